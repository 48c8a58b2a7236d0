// Moments over the pixels of each sample and channel in one pass over memory.
//
// What is returned is said in kernels.py. A vector holds one pixel of several channels, so that
// nothing is ever summed across its lanes: as the data lie where channels lie side by side, and after
// a transposition in registers where pixels do. Everything is summed in double precision, about the
// first pixel of each sample and channel: products of two floats are exact in it, squares neither
// overflow nor vanish, and no pixel is further than sqrt(pixels) deviations from the mean. Results of
// a sample and channel depend on nothing but its pixels, neither on the batch nor on the threads.
// Gates are computed in single precision, and again in double precision where pixels are so few, or an
// output varies so little, that their rounding would be seen. Data must be finite: where a result is
// not, the caller sums again with torch. In the same pass the ACON family's output can be written.
//
// Vector extensions of GCC and Clang; no library but the C one, nothing of torch.

#include <cstring>
#include <utility>

#include "results.h"
#include "threads.h"

namespace {

// Pixels that are added before they are added to the sums: sums of sums round less.
constexpr int SPAN = 64;

// Vectors of channels that a piece of work takes side by side.
constexpr int SIDE = 4;

// Most vectors after which channels begin anew at the first lane.
constexpr int PERIOD = 16;

// What the pixels of one vector of channels are compared with, the first ones, and the constants of
// their gates: d/2, m, and β·d/2.
template <Kind kind>
struct Origin {
  Vector half, middle, steep, reference;
  Wide x[2], w[2], t[2], r[2];

  Origin(const Given& k, Vector first, Vector output) {
    for (int i = 0; i < LANES; ++i) {
      half[i] = float(k.half[i]), middle[i] = float(k.middle[i]);
      steep[i] = float(k.steep[i]), reference[i] = float(k.reference[i]);
    }
    const Vector gate = tangent(steep * first), other = tangent(reference * first);
    for (int half = 0; half < 2; ++half) {
      x[half] = widen(first, half), t[half] = widen(gate, half);
      w[half] = kind == PLAIN ? widen(output, half) : t[half] * x[half];
      r[half] = widen(other, half) * x[half];
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
// foresee. The output is a function of x, or y if it is GIVEN.
template <bool far, Function function>
void add_pair(Slot& slot, const Origin<PLAIN>& from, const float* x, const float* y, int64_t step,
              int64_t count) {
  const Origin<PLAIN> origin = from;
  Wide part[5][2] = {};
  Ends ends(slot);
  for (int64_t i = 0; i < count; ++i, x += step, y += step) {
    if (far) __builtin_prefetch(x + SPAN * step);
    if (far && function == GIVEN) __builtin_prefetch(y + SPAN * step);
    const Vector value = load(x), output = function == GIVEN ? load(y) : apply<function>(value);
    ends.add(value);
    for (int half = 0; half < 2; ++half) {
      const Wide a = widen(value, half) - origin.x[half];
      const Wide w = widen(output, half) - origin.w[half];
      part[0][half] += a, part[1][half] += a * a;
      part[2][half] += w, part[3][half] += w * w, part[4][half] += w * a;
    }
  }
  ends.put(slot);
  for (int i = 0; i < 5; ++i)
    for (int half = 0; half < 2; ++half) slot.sum[i][half] += part[i][half];
}

template <bool far>
void add(Slot& slot, const Origin<PLAIN>& from, Function function, const float* x, float* y,
         int64_t step, int64_t count) {
  if (function == GIVEN) add_pair<far, GIVEN>(slot, from, x, y, step, count);
  if (function == RELU) add_pair<far, RELU>(slot, from, x, x, step, count);
  if (function == HARDSWISH) add_pair<far, HARDSWISH>(slot, from, x, x, step, count);
  if (function == SILU) add_pair<far, SILU>(slot, from, x, x, step, count);
}

// The same with gates, and with the output, which is written to `y` unless that is null. Gates are
// computed first, and then the two halves are summed one after the other: the sums of both do not fit
// into the registers.
template <bool far, Kind kind>
void add(Slot& slot, const Origin<kind>& from, Function, const float* x, float* y, int64_t step,
         int64_t count) {
  const Vector steep = from.steep, reference = from.reference;
  const Vector slope = from.half, middle = from.middle;
  alignas(64) float values[SPAN * LANES], gates[SPAN * LANES], others[SPAN * LANES];
  Ends ends(slot);
  for (int64_t i = 0; i < count; ++i, x += step) {
    if (far) __builtin_prefetch(x + SPAN * step);
    const Vector value = load(x);
    ends.add(value);
    store(values + i * LANES, value);
    const Vector gate = tangent(steep * value);
    store(gates + i * LANES, gate);
    if (y) store(y + i * step, value * (slope * gate + middle));
    if constexpr (kind == REFERRED) store(others + i * LANES, tangent(reference * value));
  }
  ends.put(slot);
  for (int half = 0; half < 2; ++half) {
    const Wide from_x = from.x[half], from_w = from.w[half], from_t = from.t[half];
    const Wide from_r = kind == REFERRED ? from.r[half] : Wide{};
    Wide part[USED[kind]] = {};
    const auto add = [&](int first, Wide w, Wide a) {
      part[first] += w, part[first + 1] += w * w, part[first + 2] += w * a;
    };
    for (int64_t i = half * WIDE; i < count * LANES; i += LANES) {
      const Wide value = widen(values + i), a = value - from_x;
      const Wide gate = widen(gates + i), t = gate - from_t;
      part[0] += a, part[1] += a * a;
      add(2, gate * value - from_w, a);
      part[5] += t, part[6] += t * t;
      if constexpr (kind == REFERRED) add(7, widen(others + i) * value - from_r, a);
    }
    for (int i = 0; i < USED[kind]; ++i) slot.sum[i][half] += part[i];
  }
}

// Adds what one lane holds to the totals of its channel.
template <Kind kind, int width>
void take(Totals<width>& to, int64_t at, const Slot& slot, const Origin<kind>& origin, int lane) {
  for (int i = 0; i < USED[kind]; ++i) to.sum[i][at] += slot.sum[i][lane / WIDE][lane % WIDE];
  const Wide* about[] = {origin.x, origin.w, origin.t, origin.r};
  for (int i = 0; i < ABOUT[kind]; ++i) to.about[i][at] = about[i][lane / WIDE][lane % WIDE];
  to.low[at] = slot.low[lane] < to.low[at] ? slot.low[lane] : to.low[at];
  to.high[at] = slot.high[lane] > to.high[at] ? slot.high[lane] : to.high[at];
  to.positive[at] += slot.positive[lane];
}

template <Kind kind>
Totals<LANES> totals(const Slot& slot, const Origin<kind>& origin) {
  Totals<LANES> to;
  std::memcpy(to.sum, slot.sum, USED[kind] * sizeof to.sum[0]);
  for (int half = 0; half < 2; ++half) {
    const int at = half * WIDE;
    const Wide* about[] = {origin.x, origin.w, origin.t, origin.r};
    for (int i = 0; i < ABOUT[kind]; ++i) store(to.about[i] + at, about[i][half]);
    store(to.low + at, widen(slot.low, half)), store(to.high + at, widen(slot.high, half));
  }
  for (int i = 0; i < LANES; ++i) to.positive[i] = slot.positive[i];
  return to;
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
        rows[r] = first_of(from[r] + start + i, int(count - i));
      }
    }
    exchange<1>(rows, std::make_integer_sequence<int, LANES>());
    for (int r = 0; r < LANES; ++r) store(to + (i + r) * LANES, rows[r]);
  }
}

// Turns `count` pixels back, from[pixel][lane] into to[lane][pixel].
void transpose_back(const float* from, float* const* to, int64_t start, int64_t count) {
  for (int64_t i = 0; i < count; i += LANES) {
    Vector rows[LANES];
    for (int r = 0; r < LANES; ++r) rows[r] = load(from + (i + r) * LANES);
    exchange<1>(rows, std::make_integer_sequence<int, LANES>());
    for (int r = 0; r < LANES; ++r)
      if (count - i >= LANES)
        store(to[r] + start + i, rows[r]);
      else
        store_first(to[r] + start + i, rows[r], int(count - i));
  }
}

// LANES pairs of sample and channel whose pixels lie side by side.
template <Kind kind>
bool along(const Problem& p, int64_t group) {
  const int64_t begin = group * LANES, all = p.samples * p.channels;
  const int width = int(all - begin < LANES ? all - begin : LANES);
  const float* x[LANES];
  float* y[LANES];
  Given constants;
  int64_t sample = begin / p.channels, channel = begin % p.channels;
  for (int lane = 0; lane < LANES; ++lane) {
    const int64_t row = begin + (lane < width ? lane : width - 1);
    x[lane] = p.x + row * p.pixels;
    if (p.y) y[lane] = p.y + row * p.pixels;
    constants.set<kind>(p, lane, sample, channel);
    if (lane < width - 1 && ++channel == p.channels) ++sample, channel = 0;
  }
  Vector first, output;
  for (int lane = 0; lane < LANES; ++lane)
    first[lane] = x[lane][0], output[lane] = kind == PLAIN && p.y ? y[lane][0] : 0.0f;
  if (kind == PLAIN && !p.y) output = apply(p.function, first);
  const Origin<kind> origin(constants, first, output);
  Slot slot;
  slot.low = slot.high = first;
  alignas(64) float tiles[2][SPAN * LANES];
  for (int64_t from = 0; from < p.pixels; from += SPAN) {
    const int64_t count = p.pixels - from < SPAN ? p.pixels - from : SPAN;
    transpose(x, from, count, tiles[0]);
    if (kind == PLAIN && p.y) transpose(y, from, count, tiles[1]);
    add<false>(slot, origin, p.function, tiles[0], p.y ? tiles[1] : nullptr, LANES, count);
    if (kind != PLAIN && p.y) transpose_back(tiles[1], y, from, count);
  }
  Results results;
  const bool finite = finish<kind>(p, constants, totals(slot, origin), 0, results);
  for (int lane = 0, next; lane < width; lane = next) {
    channel = (begin + lane) % p.channels;
    next = int(lane + p.channels - channel < width ? lane + p.channels - channel : width);
    write<kind>(p, (begin + lane) / p.channels, channel, results, lane, next - lane);
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
  const float* x = p.x + sample * size;
  float* y = p.y ? p.y + sample * size : nullptr;
  Slot slots[PERIOD];
  Origin<kind> origins[PERIOD];
  for (int64_t v = 0; v < layout.period; ++v) {
    Given constants;
    Vector first, output;
    for (int lane = 0; lane < LANES; ++lane) {
      const int64_t channel = (v * LANES + lane) % p.channels;
      constants.set<kind>(p, lane, sample, channel);
      first[lane] = x[channel], output[lane] = kind == PLAIN && y ? y[channel] : 0.0f;
    }
    if (kind == PLAIN && !y) output = apply(p.function, first);
    origins[v] = Origin<kind>(constants, first, output);
    slots[v].low = slots[v].high = first;
  }
  // Piece by piece, so that memory is gone through once and not once for every vector.
  for (int64_t from = 0; from < whole; from += SPAN)
    for (int64_t v = 0; v < layout.period; ++v) {
      const int64_t at = from * step + v * LANES;
      add<true>(slots[v], origins[v], p.function, x + at, y ? y + at : y, step,
                whole - from < SPAN ? whole - from : SPAN);
    }
  Totals<PERIOD * LANES> found = {};
  for (int i = 0; i < p.channels; ++i) found.low[i] = 3.5e38, found.high[i] = -3.5e38;
  for (int64_t v = 0; v < layout.period; ++v) {
    const int64_t at = whole * step + v * LANES, rest = size - at;  // lanes with one pixel more
    alignas(64) float last[2][LANES] = {};
    const size_t bytes = sizeof(float) * (rest < 0 ? 0 : rest < LANES ? rest : LANES);
    std::memcpy(last[0], x + at, bytes);
    if (kind == PLAIN && y) std::memcpy(last[1], y + at, bytes);
    Slot more = slots[v];
    if (rest > 0) add<false>(more, origins[v], p.function, last[0], y ? last[1] : y, 0, 1);
    if (kind != PLAIN && y) std::memcpy(y + at, last[1], bytes);
    for (int lane = 0; lane < LANES; ++lane)
      if (whole > 0 || lane < rest)
        take(found, (v * LANES + lane) % p.channels, lane < rest ? more : slots[v], origins[v],
             lane);
  }
  bool finite = true;
  for (int first = 0; first < p.channels; first += LANES) {
    const int count = int(p.channels - first < LANES ? p.channels - first : LANES);
    Given constants = {};
    for (int lane = 0; lane < count; ++lane) constants.set<kind>(p, lane, sample, first + lane);
    finite &= put<kind>(p, sample, first, constants, found, first, count);
  }
  return finite;
}

template <Kind kind>
bool across(const Problem& p, int64_t sample, int64_t piece, const Layout& layout) {
  const int64_t first = piece * SIDE;
  const int count = int(layout.vectors - first < SIDE ? layout.vectors - first : SIDE);
  Slot slots[SIDE];
  Given constants[SIDE];
  Origin<kind> origins[SIDE];
  int64_t channel[SIDE];
  const int64_t size = p.channels * p.pixels;
  const float* x = p.x + sample * size;
  float* y = p.y ? p.y + sample * size : nullptr;
  for (int v = 0; v < count; ++v) {
    channel[v] = (first + v) * LANES;  // the last vector may take some channels again
    if (channel[v] + LANES > p.channels) channel[v] = p.channels - LANES;
    for (int lane = 0; lane < LANES; ++lane)
      constants[v].set<kind>(p, lane, sample, channel[v] + lane);
    const Vector first = load(x + channel[v]);
    const Vector output = kind == PLAIN && y ? load(y + channel[v]) : apply(p.function, first);
    origins[v] = Origin<kind>(constants[v], first, output);
    slots[v].low = slots[v].high = first;
  }
  for (int64_t from = 0; from < p.pixels; from += SPAN)
    for (int v = 0; v < count; ++v) {
      const int64_t at = from * p.channels + channel[v];
      add<true>(slots[v], origins[v], p.function, x + at, y ? y + at : y, p.channels,
                p.pixels - from < SPAN ? p.pixels - from : SPAN);
    }
  bool finite = true;
  for (int v = 0; v < count; ++v)
    finite &= put<kind>(p, sample, channel[v], constants[v], totals(slots[v], origins[v]), 0, LANES);
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

template <Kind kind>
bool run(const Problem& p, int threads, Team team) {
  const Layout layout(p.channels);
  const int64_t pieces = p.last ? p.samples * layout.pieces()
                                : (p.samples * p.channels + LANES - 1) / LANES;
  std::atomic<bool> finite{true};
  spread(pieces, threads, team, [&](int64_t begin, int64_t end) {
    const WithoutDenormals guard;
    for (int64_t piece = begin; piece < end; ++piece) {
      const bool fine = !p.last ? along<kind>(p, piece)
                        : layout.period ? periodic<kind>(p, piece, layout)
                                        : across<kind>(p, piece / layout.pieces(),
                                                       piece % layout.pieces(), layout);
      if (!fine) finite = false;
    }
  });
  return finite;
}

}  // namespace

extern "C" {

// x, y: (N, C, P), or with `last` (N, P, C), without gaps; y is read for activations, null where it is a
// `function` of x; for the ACON family it is written, unless it is null. constants: (3, C);
// out: doubles, rows `out_row` and samples `out_sample` apart. Returns 1 if all results are finite; y is
// not to be relied on otherwise.
int acon_moment_sums(int kind, int function, int last, const float* x, float* y, const double* constants,
                     const float* beta, int64_t beta_sample, int64_t beta_channel,
                     int64_t samples, int64_t channels, int64_t pixels,
                     double* out, int64_t out_row, int64_t out_sample, int threads, Team team) {
  const Problem p = {Function(function), bool(last), x, beta, y, constants, samples, channels, pixels,
                     beta_sample, beta_channel, out, out_row, out_sample};
  if (kind == PLAIN) return run<PLAIN>(p, threads, team);
  if (kind == GATED) return run<GATED>(p, threads, team);
  return run<REFERRED>(p, threads, team);
}
}
