// Sums over the pixels of each sample and channel in one pass over memory.
//
// What is summed, and why about offsets, is said in kernels.py. A vector holds one pixel of
// several channels, so that nothing is ever summed across its lanes: as the data lie where channels
// lie side by side, and after a transposition in registers where pixels do. Sums run in single
// precision over at most SPAN pixels and in double precision from there on; those of a sample and
// channel depend on nothing but its pixels, neither on the batch nor on the threads. Data must be
// finite: where a result is not, the caller repeats the call with the kernels of torch.
//
// Vector extensions of GCC and Clang; no library but the C one, nothing of torch.

#include <cstring>
#include <utility>

#include "rows.h"
#include "vectors.h"

namespace {

// Pixels that are added in single precision before they are added in double precision.
constexpr int SPAN = 64;

// Vectors of channels that a piece of work takes side by side.
constexpr int SIDE = 4;

// Most vectors after which channels begin anew at the first lane.
constexpr int PERIOD = 16;

// Rows of the constants of a call; see `Prepared` in sums.py.
enum Constant { LINE, OFFSET_X, OFFSET_W, OFFSET_R, OFFSET_T, HALF, REFERENCE, CONSTANTS };

// Sums of an accumulator: of x, w, t and r in the order in which kinds come to need them.
constexpr int USED[] = {5, 7, 10};

struct Constants {
  Vector at[CONSTANTS];
  Vector steep;  // β·d/2
};

// Sums in double precision and extremes of one vector of channels.
struct Slot {
  double sum[10][LANES] = {};
  Vector low, high;
  Mask positive = {};
};

template <Kind kind>
struct Sums {
  Vector at[USED[kind]] = {};
  Mask positive = {};
  Vector low, high;

  template <bool partial>
  inline void add(Vector x, Vector y, const Constants& k, Mask inside) {
    const auto kept = [&](Vector value) { return partial ? (inside ? value : Vector{}) : value; };
    if (partial) x = inside ? x : low;
    const Vector centred = kept(x - k.at[OFFSET_X]);
    low = least(low, x);
    high = largest(high, x);
    count(positive, kept(x));
    at[0] += centred;
    at[1] += centred * centred;
    if constexpr (kind == PLAIN) {
      product(2, kept(y - k.at[LINE] * x - k.at[OFFSET_W]), centred);
    } else {
      const Vector gate = tangent(k.steep * x);
      const Vector shifted = kept(gate - k.at[OFFSET_T]);
      at[5] += shifted;
      at[6] += shifted * shifted;
      product(2, kept((gate + k.at[LINE]) * x - k.at[OFFSET_W]), centred);
      if constexpr (kind == REFERRED) {
        const Vector other = tangent(k.at[REFERENCE] * x);
        product(7, kept((other + k.at[LINE]) * x - k.at[OFFSET_R]), centred);
      }
    }
  }

  inline void product(int first, Vector w, Vector x) {
    at[first] += w;
    at[first + 1] += w * w;
    at[first + 2] += w * x;
  }
};

// Adds `count` pixels, `step` values apart; with `partial` only their lanes `inside`. With `far` those
// that come SPAN pixels later are fetched meanwhile: steps are too long for processors to foresee.
template <Kind kind, bool far, bool partial = false>
void add(Slot& slot, const Constants& constants, const float* x, const float* y, int64_t step,
         int64_t count, Mask inside = Mask{}) {
  const Constants k = constants;
  Sums<kind> part;
  part.low = slot.low, part.high = slot.high;
  for (int64_t i = 0; i < count; ++i) {
    if (far) __builtin_prefetch(x + (i + SPAN) * step);
    if (far && kind == PLAIN) __builtin_prefetch(y + (i + SPAN) * step);
    part.template add<partial>(load(x + i * step), load(y + i * step), k, inside);
  }
  for (int i = 0; i < USED[kind]; ++i) {
    alignas(64) float values[LANES];
    store(values, part.at[i]);
    for (int lane = 0; lane < LANES; ++lane) slot.sum[i][lane] += double(values[lane]);
  }
  slot.low = part.low, slot.high = part.high, slot.positive += part.positive;
}

struct Problem {
  const float *x, *y, *constants, *beta;
  int64_t samples, channels, pixels;
  int64_t beta_sample, beta_channel;  // strides; 0 where all share one
  double* out;
  int64_t out_row, out_sample;

  float slope(int64_t sample, int64_t channel) const {
    return beta ? beta[sample * beta_sample + channel * beta_channel] : 0.0f;
  }
};

// Constants of lanes as an array that is filled in pieces.
struct Filling {
  float at[CONSTANTS + 1][LANES] = {};

  void set(const Problem& p, int lane, int64_t sample, int64_t channel, int width) {
    for (int row = 0; row < CONSTANTS; ++row)
      std::memcpy(at[row] + lane, p.constants + row * p.channels + channel, 4 * width);
    for (int i = 0; i < width; ++i)
      at[CONSTANTS][lane + i] = p.slope(sample, channel + i) * at[HALF][lane + i];
  }

  Constants vectors() const {
    Constants found;
    for (int row = 0; row < CONSTANTS; ++row) found.at[row] = load(at[row]);
    found.steep = load(at[CONSTANTS]);
    return found;
  }
};

// Results of channels side by side; row 7 on as USED has them.
template <int width>
struct Results {
  double sum[10][width] = {};
  double low[width], high[width], positive[width] = {};

  void take(int to, const Slot& slot, int lane) {
    for (int i = 0; i < 10; ++i) sum[i][to] += slot.sum[i][lane];
    low[to] = slot.low[lane] < low[to] ? slot.low[lane] : low[to];
    high[to] = slot.high[lane] > high[to] ? slot.high[lane] : high[to];
    positive[to] += slot.positive[lane];
  }

  Results() {
    for (int i = 0; i < width; ++i) low[i] = 3.5e38, high[i] = -3.5e38;
  }

  explicit Results(const Slot& slot) {
    std::memcpy(sum, slot.sum, sizeof sum);
    for (int i = 0; i < width; ++i)
      low[i] = slot.low[i], high[i] = slot.high[i], positive[i] = slot.positive[i];
  }
};

// Writes results of neighbouring channels of one sample; returns whether all are finite. Row by row,
// for the rows lie far apart.
template <Kind kind, int width>
bool write(const Problem& p, int64_t sample, int64_t channel, const Results<width>& from, int first,
           int count) {
  double* to = p.out + sample * p.out_sample + channel;
  double sizes[width] = {}, size = 0.0;
  const auto put = [&](int row, const double* values) {
    std::memcpy(to + row * p.out_row, values + first, count * sizeof(double));
    for (int i = 0; i < count; ++i) sizes[i] += __builtin_fabs(values[first + i]);
  };
  const auto scaled = [&](int row, const double* values, const double* factors) {
    double* out = to + row * p.out_row;
    for (int i = 0; i < count; ++i) out[i] = values[first + i] * factors[i];
    for (int i = 0; i < count; ++i) sizes[i] += __builtin_fabs(out[i]);
  };
  put(SX, from.sum[0]), put(QX, from.sum[1]);
  put(LOW_X, from.low), put(HIGH_X, from.high), put(POSITIVE, from.positive);
  if constexpr (kind == PLAIN) {
    put(SW, from.sum[2]), put(QW, from.sum[3]), put(SXW, from.sum[4]);
  } else {  // so far w and r lack the factor d/2
    double half[width], square[width], beta[width], low[width], high[width];
    const float* halves = p.constants + HALF * p.channels + channel;
    for (int i = 0; i < count; ++i) {
      half[i] = halves[i], square[i] = half[i] * half[i];
      const float slope = p.slope(sample, channel + i), steep = slope * halves[i];
      const double a = steep * from.low[first + i], b = steep * from.high[first + i];
      beta[i] = slope, low[i] = a < b ? a : b, high[i] = a < b ? b : a;
    }
    scaled(SW, from.sum[2], half), scaled(QW, from.sum[3], square), scaled(SXW, from.sum[4], half);
    put(ST, from.sum[5]), put(QT, from.sum[6]);
    put(LOW_Z, low - first), put(HIGH_Z, high - first);
    if constexpr (kind == REFERRED) {
      scaled(SR, from.sum[7], half), scaled(QR, from.sum[8], square), scaled(SXR, from.sum[9], half);
    }
    put(kind == GATED ? SR : BETA, beta - first);
  }
  for (int i = 0; i < count; ++i) size += sizes[i];
  uint64_t bits;
  std::memcpy(&bits, &size, sizeof bits);
  return (bits >> 52 & 0x7ff) != 0x7ff;
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
  Filling filling;
  for (int lane = 0, next; lane < width; lane = next) {
    const int64_t channel = (begin + lane) % p.channels;
    next = int(lane + p.channels - channel < width ? lane + p.channels - channel : width);
    filling.set(p, lane, (begin + lane) / p.channels, channel, next - lane);
  }
  const Constants constants = filling.vectors();
  Slot slot;
  alignas(64) float tiles[kind == PLAIN ? 2 : 1][SPAN * LANES];
  for (int64_t from = 0; from < p.pixels; from += SPAN) {
    const int64_t count = p.pixels - from < SPAN ? p.pixels - from : SPAN;
    transpose(x, from, count, tiles[0]);
    if (kind == PLAIN) transpose(y, from, count, tiles[kind == PLAIN]);
    if (from == 0) slot.low = slot.high = load(tiles[0]);
    add<kind, false>(slot, constants, tiles[0], tiles[kind == PLAIN], LANES, count);
  }
  const Results<LANES> results(slot);
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
  Constants constants[PERIOD];
  int64_t rest[PERIOD];
  for (int64_t v = 0; v < layout.period; ++v) {
    Filling filling;
    for (int lane = 0; lane < LANES; ++lane)
      filling.set(p, lane, sample, (v * LANES + lane) % p.channels, 1);
    constants[v] = filling.vectors();
    slots[v].low = Vector{} + 3e38f, slots[v].high = -slots[v].low;
    rest[v] = size - whole * step - v * LANES;
  }
  // Piece by piece, so that memory is gone through once and not once for every vector.
  for (int64_t from = 0; from < whole; from += SPAN)
    for (int64_t v = 0; v < layout.period; ++v)
      add<kind, true>(slots[v], constants[v], x + from * step + v * LANES, y + from * step + v * LANES,
                step, whole - from < SPAN ? whole - from : SPAN);
  Results<PERIOD * LANES> results;
  for (int64_t v = 0; v < layout.period; ++v) {
    if (rest[v] > 0) {
      alignas(64) float last[2][LANES] = {};
      Mask inside = {};
      for (int lane = 0; lane < LANES && lane < rest[v]; ++lane) {
        inside[lane] = -1;
        last[0][lane] = x[whole * step + v * LANES + lane];
        last[1][lane] = y[whole * step + v * LANES + lane];
      }
      add<kind, false, true>(slots[v], constants[v], last[0], last[1], 0, 1, inside);
    }
    for (int lane = 0; lane < LANES; ++lane)
      if (whole > 0 || lane < rest[v])
        results.take((v * LANES + lane) % p.channels, slots[v], lane);
  }
  return write<kind>(p, sample, 0, results, 0, int(p.channels));
}

template <Kind kind>
bool across(const Problem& p, int64_t sample, int64_t piece, const Layout& layout) {
  const int64_t first = piece * SIDE;
  const int count = int(layout.vectors - first < SIDE ? layout.vectors - first : SIDE);
  Slot slots[SIDE];
  Constants constants[SIDE];
  int64_t channel[SIDE];
  const int64_t size = p.channels * p.pixels;
  const float *x = p.x + sample * size, *y = p.y + sample * size;
  for (int v = 0; v < count; ++v) {
    channel[v] = (first + v) * LANES;  // the last vector may take some channels again
    if (channel[v] + LANES > p.channels) channel[v] = p.channels - LANES;
    Filling filling;
    filling.set(p, 0, sample, channel[v], LANES);
    constants[v] = filling.vectors();
    slots[v].low = slots[v].high = load(x + channel[v]);
  }
  for (int64_t from = 0; from < p.pixels; from += SPAN)
    for (int v = 0; v < count; ++v) {
      const int64_t at = from * p.channels + channel[v];
      add<kind, true>(slots[v], constants[v], x + at, y + at, p.channels,
                p.pixels - from < SPAN ? p.pixels - from : SPAN);
    }
  bool finite = true;
  for (int v = 0; v < count; ++v) {
    finite &= write<kind>(p, sample, channel[v], Results<LANES>(slots[v]), 0, LANES);
  }
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

// x, y: (N, C, P), or with `last` (N, P, C), without gaps; constants: (7, C);
// out: doubles, rows `out_row` and samples `out_sample` apart. Returns 1 if all results are finite.
int acon_moment_sums(int kind, int last, const float* x, const float* y, const float* constants,
                     const float* beta, int64_t beta_sample, int64_t beta_channel,
                     int64_t samples, int64_t channels, int64_t pixels,
                     double* out, int64_t out_row, int64_t out_sample, int64_t begin, int64_t end) {
  const WithoutDenormals guard;
  const Problem p = {x,      y,           constants,    beta, samples, channels,
                     pixels, beta_sample, beta_channel, out,  out_row, out_sample};
  if (kind == PLAIN) return run<PLAIN>(p, last, begin, end);
  if (kind == GATED) return run<GATED>(p, last, begin, end);
  return run<REFERRED>(p, last, begin, end);
}
}
