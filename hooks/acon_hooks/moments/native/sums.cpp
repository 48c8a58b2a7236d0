// Moments over the pixels of each sample and channel in one pass over memory.
//
// What is returned is said in kernels.py. A vector holds one pixel of several channels, so that
// nothing is ever summed across its lanes: as the data lie where channels lie side by side, and after
// a transposition in registers where pixels do. Everything is summed in double precision, about the
// first pixel of each sample and channel: products of two floats are exact in it, squares neither
// overflow nor vanish, and no pixel is further than sqrt(pixels) deviations from the mean. Results of
// a sample and channel depend on nothing but its pixels, neither on the batch nor on the threads.
// Gates are computed in single precision, and again in double precision where an output varies so
// little that their rounding would be seen. Data must be finite: where a result is not, the caller sums
// again with torch.
//
// Vector extensions of GCC and Clang; no library but the C one, nothing of torch.

#include <cstring>
#include <utility>

#include "rows.h"
#include "vectors.h"

namespace {

// Pixels that are added before they are added to the sums: sums of sums round less.
constexpr int SPAN = 64;

// Vectors of channels that a piece of work takes side by side.
constexpr int SIDE = 4;

// Most vectors after which channels begin anew at the first lane.
constexpr int PERIOD = 16;

// Rows of the constants of a call; see `Prepared` in sums.py.
enum Constant { HALF, MIDDLE, REFERENCE, CONSTANTS };

// Sums of an accumulator: of x, w, t and r in the order in which kinds come to need them.
constexpr int USED[] = {5, 7, 10};

// What an output's deviation has to exceed for a gate in single precision; see kernels.py.
constexpr double ROUGH[] = {0.3, 3e-3};

// What the pixels of one vector of channels are compared with: constants, and the first pixel.
template <Kind kind>
struct Origin {
  Vector steep, reference;  // β·d/2, and at the reference β
  Wide x[2], w[2], t[2], r[2];

  Origin(Vector steep, Vector reference, const float* first, const float* y)
      : steep(steep), reference(reference) {
    const Vector values = load(first);
    for (int half = 0; half < 2; ++half) {
      x[half] = widen(first + half * WIDE);
      if constexpr (kind == PLAIN) {
        w[half] = widen(y + half * WIDE);
      } else {
        t[half] = widen(tangent(steep * values), half), w[half] = t[half] * x[half];
        if constexpr (kind == REFERRED)
          r[half] = widen(tangent(reference * values), half) * x[half];
      }
    }
  }
  Origin() {}
};

// Sums and extremes of one vector of channels.
struct Slot {
  Wide sum[10][2] = {};
  Vector low, high;
  Mask positive = {};
};

// Sums of one half of a vector of channels.
template <Kind kind>
struct Sums {
  Wide at[USED[kind]] = {};

  inline void product(int first, Wide w, Wide x) {
    at[first] += w;
    at[first + 1] += w * w;
    at[first + 2] += w * x;
  }

  inline void add_to(Slot& slot, int half) const {
    for (int i = 0; i < USED[kind]; ++i) slot.sum[i][half] += at[i];
  }
};

// Extremes of a vector of channels, and how many pixels are positive.
struct Ends {
  Vector low, high;
  Mask positive;

  explicit Ends(const Slot& slot) : low(slot.low), high(slot.high), positive(slot.positive) {}

  inline void add(Vector x) {
    low = least(low, x);
    high = largest(high, x);
    tally(positive, x);
  }

  inline void put(Slot& slot) const { slot.low = low, slot.high = high, slot.positive = positive; }
};

// Adds `count` pixels, at most SPAN, `step` values apart, to the sums of one vector of channels. With
// `far` those that come SPAN pixels later are fetched meanwhile: steps are too long for processors to
// foresee.
template <bool far>
void add(Slot& slot, const Origin<PLAIN>& from, const float* x, const float* y, int64_t step,
         int64_t count) {
  const Origin<PLAIN> origin = from;
  Sums<PLAIN> part[2];
  Ends ends(slot);
  for (int64_t i = 0; i < count; ++i, x += step, y += step) {
    if (far) __builtin_prefetch(x + SPAN * step), __builtin_prefetch(y + SPAN * step);
    ends.add(load(x));
    for (int half = 0; half < 2; ++half) {
      const Wide centred = widen(x + half * WIDE) - origin.x[half];
      part[half].at[0] += centred;
      part[half].at[1] += centred * centred;
      part[half].product(2, widen(y + half * WIDE) - origin.w[half], centred);
    }
  }
  ends.put(slot);
  for (int half = 0; half < 2; ++half) part[half].add_to(slot, half);
}

// The same with gates. They are computed first, and then the two halves are summed one after the other:
// the sums of both do not fit into the registers.
template <bool far, Kind kind>
void add(Slot& slot, const Origin<kind>& from, const float* x, const float*, int64_t step,
         int64_t count) {
  const Vector steep = from.steep, reference = from.reference;
  alignas(64) float values[SPAN * LANES], gates[SPAN * LANES], others[SPAN * LANES];
  Ends ends(slot);
  for (int64_t i = 0; i < count; ++i, x += step) {
    if (far) __builtin_prefetch(x + SPAN * step);
    const Vector value = load(x);
    ends.add(value);
    store(values + i * LANES, value);
    store(gates + i * LANES, tangent(steep * value));
    if constexpr (kind == REFERRED) store(others + i * LANES, tangent(reference * value));
  }
  ends.put(slot);
  for (int half = 0; half < 2; ++half) {
    const Wide from_x = from.x[half], from_w = from.w[half], from_t = from.t[half];
    const Wide from_r = kind == REFERRED ? from.r[half] : Wide{};
    Sums<kind> part;
    for (int64_t i = half * WIDE; i < count * LANES; i += LANES) {
      const Wide wide = widen(values + i), centred = wide - from_x;
      const Wide gate = widen(gates + i), shifted = gate - from_t;
      part.at[0] += centred;
      part.at[1] += centred * centred;
      part.product(2, gate * wide - from_w, centred);
      part.at[5] += shifted;
      part.at[6] += shifted * shifted;
      if constexpr (kind == REFERRED)
        part.product(7, widen(others + i) * wide - from_r, centred);
    }
    part.add_to(slot, half);
  }
}

struct Problem {
  bool last;
  const float *x, *y, *beta;
  const double* constants;
  int64_t samples, channels, pixels;
  int64_t beta_sample, beta_channel;  // strides; 0 where all share one
  double* out;
  int64_t out_row, out_sample;

  float slope(int64_t sample, int64_t channel) const {
    return beta ? beta[sample * beta_sample + channel * beta_channel] : 0.0f;
  }
  double constant(int row, int64_t channel) const { return constants[row * channels + channel]; }
  double steep(int64_t sample, int64_t channel) const {
    return slope(sample, channel) * constant(HALF, channel);
  }
};

// What lanes are compared with, as arrays that are filled lane by lane.
template <Kind kind>
struct Filling {
  float steep[LANES] = {}, reference[LANES] = {}, x[LANES] = {}, y[LANES] = {};

  void set(const Problem& p, int lane, int64_t sample, int64_t channel, float first, float output) {
    x[lane] = first, y[lane] = output;
    if (kind == PLAIN) return;
    steep[lane] = float(p.steep(sample, channel));
    reference[lane] = float(p.constant(REFERENCE, channel) * p.constant(HALF, channel));
  }

  Origin<kind> origin() const { return Origin<kind>(load(steep), load(reference), x, y); }
};

// Results of channels side by side: sums as USED has them, and what x, w, t and r are about.
template <int width>
struct Results {
  double sum[10][width] = {}, about[4][width] = {};
  double low[width], high[width], positive[width] = {};

  Results() {
    for (int i = 0; i < width; ++i) low[i] = 3.5e38, high[i] = -3.5e38;
  }

  template <Kind kind>
  void take(int to, const Slot& slot, const Origin<kind>& origin, int lane) {
    const int half = lane / WIDE, at = lane % WIDE;
    for (int i = 0; i < USED[kind]; ++i) sum[i][to] += slot.sum[i][half][at];
    about[0][to] = origin.x[half][at], about[1][to] = origin.w[half][at];
    if (kind != PLAIN) about[2][to] = origin.t[half][at];
    if (kind == REFERRED) about[3][to] = origin.r[half][at];
    low[to] = slot.low[lane] < low[to] ? slot.low[lane] : low[to];
    high[to] = slot.high[lane] > high[to] ? slot.high[lane] : high[to];
    positive[to] += slot.positive[lane];
  }

  template <Kind kind>
  Results(const Slot& slot, const Origin<kind>& origin) {
    std::memcpy(sum, slot.sum, sizeof sum);
    std::memcpy(about[0], origin.x, sizeof about[0]);
    std::memcpy(about[1], origin.w, sizeof about[1]);
    if (kind != PLAIN) std::memcpy(about[2], origin.t, sizeof about[2]);
    if (kind == REFERRED) std::memcpy(about[3], origin.r, sizeof about[3]);
    for (int i = 0; i < width; ++i)
      low[i] = slot.low[i], high[i] = slot.high[i], positive[i] = slot.positive[i];
  }
};

// Sums of one sample and channel with gates in double precision.
template <Kind kind>
Results<1> precisely(const Problem& p, int64_t sample, int64_t channel) {
  const int64_t size = p.channels * p.pixels, step = p.last ? p.channels : 1;
  const float* x = p.x + sample * size + (p.last ? channel : channel * p.pixels);
  const double steep = p.steep(sample, channel);
  const double reference = p.constant(REFERENCE, channel) * p.constant(HALF, channel);
  Wide sum[10] = {}, first[4] = {};
  for (int64_t from = -1; from < p.pixels; from += from < 0 ? 1 : WIDE) {
    Wide values[4];
    for (int i = 0; i < WIDE; ++i)
      values[0][i] = x[from >= 0 && from + i < p.pixels ? (from + i) * step : 0];
    values[2] = tangent(steep * values[0]), values[1] = values[2] * values[0];
    if constexpr (kind == REFERRED) values[3] = tangent(reference * values[0]) * values[0];
    if (from < 0) std::memcpy(first, values, sizeof first);
    const auto about = [&](int i) { return values[i] - first[i]; };
    const auto add = [&](int i, Wide value) { sum[i] += value, sum[i + 1] += value * value; };
    add(0, about(0)), add(2, about(1)), add(5, about(2));
    sum[4] += about(0) * about(1);
    if constexpr (kind == REFERRED) add(7, about(3)), sum[9] += about(0) * about(3);
  }
  Results<1> found;
  for (int i = 0; i < USED[kind]; ++i)
    for (int lane = 0; lane < WIDE; ++lane) found.sum[i][0] += sum[i][lane];
  for (int i = 0; i < 4; ++i) found.about[i][0] = first[i][0];
  return found;
}

// Writes results of neighbouring channels of one sample; returns whether all are finite. Row by row,
// for the rows lie far apart.
template <Kind kind, int width, bool precise = false>
bool write(const Problem& p, int64_t sample, int64_t channel, const Results<width>& from, int first,
           int count) {
  double* to = p.out + sample * p.out_sample + channel;
  const double each = 1.0 / p.pixels;
  double sizes[width] = {}, size = 0.0, half[width];
  bool again[width] = {};
  const auto put = [&](int row, const double* values) {
    std::memcpy(to + row * p.out_row, values, count * sizeof(double));
    for (int i = 0; i < count; ++i) sizes[i] += __builtin_fabs(values[i]);
  };
  // Mean and centred sum of squares of a variable, and its centred sum of products with x.
  const auto variable = [&](int row, int index, int about, bool scaled, double* square,
                            double* cross) {
    const double *sum = from.sum[index] + first, *sums = from.sum[0] + first;
    double mean[width];
    for (int i = 0; i < count; ++i) {
      const double factor = scaled ? half[i] : 1.0;
      const double own = from.sum[index + 1][first + i] - sum[i] * sum[i] * each;
      mean[i] = (from.about[about][first + i] + sum[i] * each) * factor;
      square[i] = (own > 0.0 ? own : 0.0) * factor * factor;
      if (cross)
        cross[i] = (from.sum[index + 2][first + i] - sum[i] * sums[i] * each) * factor;
    }
    put(row, mean), put(row + 1, square);
    if (cross) put(row + 2, cross);
  };
  double xx[width], square[width], cross[width];
  variable(SX, 0, 0, false, xx, nullptr);
  if constexpr (!precise)
    put(LOW_X, from.low + first), put(HIGH_X, from.high + first),
        put(POSITIVE, from.positive + first);
  if constexpr (kind == PLAIN) {
    variable(SW, 2, 1, false, square, cross);
  } else {
    const double few = ROUGH[0] * ROUGH[0] * each, least = ROUGH[1] * ROUGH[1];
    const double limit = few > least ? few : least;
    const auto judge = [&] {
      for (int i = 0; i < count; ++i) {
        const double middle = p.constant(MIDDLE, channel + i), mean = to[SX * p.out_row + i];
        const double own = square[i] + middle * (2.0 * cross[i] + middle * xx[i]);
        const double all = half[i] * half[i] * (xx[i] + p.pixels * mean * mean);
        again[i] |= xx[i] > 0.0 && own < limit * all;
      }
    };
    for (int i = 0; i < count; ++i) half[i] = p.constant(HALF, channel + i);
    variable(SW, 2, 1, true, square, cross);
    judge();
    variable(ST, 5, 2, false, square, nullptr);
    if constexpr (kind == REFERRED) {
      variable(SR, 7, 3, true, square, cross);
      judge();
    }
    if constexpr (!precise) {
      double beta[width], low[width], high[width];
      for (int i = 0; i < count; ++i) {
        const double steep = p.steep(sample, channel + i);
        const double a = steep * from.low[first + i], b = steep * from.high[first + i];
        beta[i] = p.slope(sample, channel + i), low[i] = a < b ? a : b, high[i] = a < b ? b : a;
      }
      put(LOW_Z, low), put(HIGH_Z, high);
      put(kind == GATED ? SR : BETA, beta);
    }
  }
  for (int i = 0; i < count; ++i) size += sizes[i];
  uint64_t bits;
  std::memcpy(&bits, &size, sizeof bits);
  if ((bits >> 52 & 0x7ff) == 0x7ff) return false;
  if constexpr (kind != PLAIN && !precise)
    for (int i = 0; i < count; ++i)
      if (again[i])
        write<kind, 1, true>(p, sample, channel + i, precisely<kind>(p, sample, channel + i), 0, 1);
  return true;
}

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Mask{__VA_ARGS__})
#endif

// One step of a transposition: exchanges squares of `size` lanes off the diagonal.
template <int size, int... lane>
inline void exchange(Vector* rows, std::integer_sequence<int, lane...>) {
  for (int i = 0; i < LANES; ++i) {
    if (i & size) continue;
    const Vector a = rows[i], b = rows[i | size];
    rows[i] = SHUFFLE(a, b, (lane & size ? LANES + lane - size : lane)...);
    rows[i | size] = SHUFFLE(a, b, (lane & size ? LANES + lane : lane + size)...);
  }
  if constexpr (2 * size < LANES)
    exchange<2 * size>(rows, std::integer_sequence<int, lane...>());
}

// Turns `count` pixels of LANES channels, from[lane][pixel], into to[pixel][lane].
void transpose(const float* const* from, int64_t start, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += LANES) {
    Vector rows[LANES];
    if (count - i >= LANES) {
      for (int r = 0; r < LANES; ++r) {
        rows[r] = load(from[r] + start + i);
        __builtin_prefetch(from[r] + start + i + SPAN);
      }
    } else {
      for (int r = 0; r < LANES; ++r) {
        rows[r] = Vector{};
        std::memcpy(&rows[r], from[r] + start + i, (count - i) * sizeof(float));
      }
    }
    exchange<1>(rows, std::make_integer_sequence<int, LANES>());
    for (int r = 0; r < LANES; ++r) store(to + (i + r) * LANES, rows[r]);
  }
}

// LANES pairs of sample and channel whose pixels lie side by side.
template <Kind kind>
bool along(const Problem& p, int64_t group) {
  const int64_t begin = group * LANES, all = p.samples * p.channels;
  const int width = int(all - begin < LANES ? all - begin : LANES);
  const float *x[LANES], *y[LANES];
  for (int lane = 0; lane < LANES; ++lane) {
    const int64_t row = begin + (lane < width ? lane : width - 1);
    x[lane] = p.x + row * p.pixels, y[lane] = p.y + row * p.pixels;
  }
  Filling<kind> filling;
  for (int lane = 0; lane < LANES; ++lane) {
    const int64_t row = begin + (lane < width ? lane : width - 1);
    filling.set(p, lane, row / p.channels, row % p.channels, x[lane][0], y[lane][0]);
  }
  const Origin<kind> origin = filling.origin();
  Slot slot;
  alignas(64) float tiles[kind == PLAIN ? 2 : 1][SPAN * LANES];
  for (int64_t from = 0; from < p.pixels; from += SPAN) {
    const int64_t count = p.pixels - from < SPAN ? p.pixels - from : SPAN;
    transpose(x, from, count, tiles[0]);
    if (kind == PLAIN) transpose(y, from, count, tiles[kind == PLAIN]);
    if (from == 0) slot.low = slot.high = load(tiles[0]);
    add<false>(slot, origin, tiles[0], tiles[kind == PLAIN], LANES, count);
  }
  const Results<LANES> results(slot, origin);
  bool finite = true;
  for (int lane = 0, next; lane < width; lane = next) {
    const int64_t channel = (begin + lane) % p.channels;
    next = int(lane + p.channels - channel < width ? lane + p.channels - channel : width);
    finite &= write<kind>(p, (begin + lane) / p.channels, channel, results, lane, next - lane);
  }
  return finite;
}

// Vectors `first` to `last` of a pixel of one sample whose channels lie side by side. With fewer
// channels than fill whole vectors one takes several pixels, until channels begin at lane 0 again.
struct Layout {
  int64_t period, together, vectors;  // vectors, pixels, and those of all channels

  explicit Layout(int64_t channels) {
    int64_t common = LANES;
    while (channels % common) common /= 2;
    period = channels / common, together = LANES / common;
    if (period > PERIOD || together == 1) period = 0;
    vectors = (channels + LANES - 1) / LANES;
  }

  int64_t pieces() const { return period ? 1 : (vectors + SIDE - 1) / SIDE; }
};

template <Kind kind>
bool periodic(const Problem& p, int64_t sample, const Layout& layout) {
  const int64_t size = p.channels * p.pixels, step = layout.period * LANES;
  const int64_t whole = size / step;
  const float *x = p.x + sample * size, *y = p.y + sample * size;
  Slot slots[PERIOD];
  Origin<kind> origins[PERIOD];
  int64_t rest[PERIOD];
  for (int64_t v = 0; v < layout.period; ++v) {
    Filling<kind> filling;
    for (int lane = 0; lane < LANES; ++lane) {
      const int64_t channel = (v * LANES + lane) % p.channels;
      filling.set(p, lane, sample, channel, x[channel], y[channel]);
    }
    origins[v] = filling.origin();
    slots[v].low = slots[v].high = load(filling.x);
    rest[v] = size - whole * step - v * LANES;
  }
  // Piece by piece, so that memory is gone through once and not once for every vector.
  for (int64_t from = 0; from < whole; from += SPAN)
    for (int64_t v = 0; v < layout.period; ++v)
      add<true>(slots[v], origins[v], x + from * step + v * LANES, y + from * step + v * LANES,
                step, whole - from < SPAN ? whole - from : SPAN);
  Results<PERIOD * LANES> results;
  for (int64_t v = 0; v < layout.period; ++v) {
    if (rest[v] > 0) {
      alignas(64) float last[2][LANES];
      for (int lane = 0; lane < LANES; ++lane) {
        const int64_t at = whole * step + v * LANES + lane;
        last[0][lane] = x[lane < rest[v] ? at : at % p.channels];
        last[1][lane] = y[lane < rest[v] ? at : at % p.channels];
      }
      add<false>(slots[v], origins[v], last[0], last[1], 0, 1);
      // The first pixel, repeated where there is none, adds nothing but to this count.
      for (int lane = int(rest[v]); lane < LANES; ++lane)
        slots[v].positive[lane] -= last[0][lane] > 0.0f;
    }
    for (int lane = 0; lane < LANES; ++lane)
      if (whole > 0 || lane < rest[v])
        results.take((v * LANES + lane) % p.channels, slots[v], origins[v], lane);
  }
  return write<kind>(p, sample, 0, results, 0, int(p.channels));
}

template <Kind kind>
bool across(const Problem& p, int64_t sample, int64_t piece, const Layout& layout) {
  const int64_t first = piece * SIDE;
  const int count = int(layout.vectors - first < SIDE ? layout.vectors - first : SIDE);
  Slot slots[SIDE];
  Origin<kind> origins[SIDE];
  int64_t channel[SIDE];
  const int64_t size = p.channels * p.pixels;
  const float *x = p.x + sample * size, *y = p.y + sample * size;
  for (int v = 0; v < count; ++v) {
    channel[v] = (first + v) * LANES;  // the last vector may take some channels again
    if (channel[v] + LANES > p.channels) channel[v] = p.channels - LANES;
    Filling<kind> filling;
    for (int lane = 0; lane < LANES; ++lane) {
      const int64_t at = channel[v] + lane;
      filling.set(p, lane, sample, at, x[at], y[at]);
    }
    origins[v] = filling.origin();
    slots[v].low = slots[v].high = load(x + channel[v]);
  }
  for (int64_t from = 0; from < p.pixels; from += SPAN)
    for (int v = 0; v < count; ++v) {
      const int64_t at = from * p.channels + channel[v];
      add<true>(slots[v], origins[v], x + at, y + at, p.channels,
                p.pixels - from < SPAN ? p.pixels - from : SPAN);
    }
  bool finite = true;
  for (int v = 0; v < count; ++v)
    finite &= write<kind>(p, sample, channel[v], Results<LANES>(slots[v], origins[v]), 0, LANES);
  return finite;
}

template <Kind kind>
bool run(const Problem& p, bool last, int64_t begin, int64_t end) {
  bool finite = true;
  if (!last) {
    for (int64_t group = begin; group < end; ++group) finite &= along<kind>(p, group);
    return finite;
  }
  const Layout layout(p.channels);
  for (int64_t piece = begin; piece < end; ++piece)
    finite &= layout.period ? periodic<kind>(p, piece, layout)
                            : across<kind>(p, piece / layout.pieces(), piece % layout.pieces(),
                                           layout);
  return finite;
}

// Squares of nearly nothing are taken for 0 in here: denormal numbers are slow, a hundredfold where
// a gate is so far off that its argument is 1e-20. Only results: a β of 1e-39 is passed on as it is.
struct WithoutDenormals {
#if defined(__SSE__)
  const unsigned before = _mm_getcsr();
  WithoutDenormals() { _mm_setcsr(before | 0x8000); }
  ~WithoutDenormals() { _mm_setcsr(before); }
#endif
};

}  // namespace

extern "C" {

// Number of pieces of work that a call can be cut into.
int64_t acon_moment_pieces(int64_t samples, int64_t channels, int last) {
  return last ? samples * Layout(channels).pieces()
              : (samples * channels + LANES - 1) / LANES;
}

// x, y: (N, C, P), or with `last` (N, P, C), without gaps; constants: (3, C);
// out: doubles, rows `out_row` and samples `out_sample` apart. Returns 1 if all results are finite.
int acon_moment_sums(int kind, int last, const float* x, const float* y, const double* constants,
                     const float* beta, int64_t beta_sample, int64_t beta_channel,
                     int64_t samples, int64_t channels, int64_t pixels,
                     double* out, int64_t out_row, int64_t out_sample, int64_t begin, int64_t end) {
  const WithoutDenormals guard;
  const Problem p = {bool(last), x, y, beta, constants, samples, channels, pixels,
                     beta_sample, beta_channel, out, out_row, out_sample};
  if (kind == PLAIN) return run<PLAIN>(p, last, begin, end);
  if (kind == GATED) return run<GATED>(p, last, begin, end);
  return run<REFERRED>(p, last, begin, end);
}
}
