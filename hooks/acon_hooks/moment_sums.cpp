// Sums over the pixels of each sample and channel in one pass over memory.
//
// What is summed, and why about offsets, is said in moment_kernels.py. Sums run in single precision
// over at most SPAN values a lane and in double precision from there on. Data must be finite: where
// a result is not, the caller repeats the call with the kernels of torch.
//
// Vector extensions of GCC and Clang; no library but the C one, nothing of torch.

#include <cstdint>
#include <cstring>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

// Vectors that are added in single precision before they are added in double precision.
constexpr int64_t SPAN = 64;

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Mask __attribute__((vector_size(4 * LANES)));
typedef float Half __attribute__((vector_size(2 * LANES)));
typedef double Double __attribute__((vector_size(4 * LANES)));

// The rows of the sums, in the order of moment_kernels.REFERRED.
enum Row {
  SX, QX, SW, QW, SXW, LOW_X, HIGH_X, POSITIVE, ST, QT, LOW_Z, HIGH_Z, SR, QR, SXR, ROWS
};

// Rows of the constants of a call; see moment_native.py.
enum Constant { LINE, OFFSET_X, OFFSET_W, OFFSET_R, OFFSET_T, HALF, REFERENCE };

enum Kind { PLAIN, GATED, REFERRED };

inline Vector load(const float* from) {
  Vector value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// The first `count` values; further lanes repeat the first one.
inline Vector load(const float* from, int64_t count) {
  Vector value = Vector{} + from[0];
  std::memcpy(&value, from, count * sizeof(float));
  return value;
}

inline Vector least(Vector a, Vector b) { return a < b ? a : b; }
inline Vector largest(Vector a, Vector b) { return a > b ? a : b; }

// Hyperbolic tangent, relative error below 3e-7 at every size, 1 exactly where float32 says so: an
// odd rational function, fitted to the least largest relative error on [0, 9].
inline Vector tangent(Vector z) {
  const Vector limit = Vector{} + 9.0f, one = Vector{} + 1.0f;
  const Vector near = least(largest(z, -limit), limit), s = near * near;
  const Vector above =
      (((1.34186565e-08f * s + 2.06604170e-05f) * s + 3.49894510e-03f) * s + 1.33839377e-01f) * s +
      1.0f;
  const Vector below =
      (((7.80425014e-07f * s + 3.29095458e-04f) * s + 2.58900134e-02f) * s + 4.67172592e-01f) * s +
      1.0f;
  const Vector inner = least(largest(near * above / below, -one), one);
  return z >= limit ? one : z <= -limit ? -one : inner;
}

struct Constants {
  Vector line, x, w, r, t, steep, reference;
};

template <Kind kind>
struct Sums {
  Vector at[10] = {};  // in the order of the rows, extremes and the count left out
  Mask positive = {};
  Vector low, high;

  template <bool partial>
  inline void add(Vector x, Vector y, const Constants& k, Mask inside) {
    const auto kept = [&](Vector value) { return partial ? (inside ? value : Vector{}) : value; };
    const Vector centred = kept(x - k.x);
    low = least(low, x);
    high = largest(high, x);
    positive -= partial ? ((x > 0.0f) & inside) : (x > 0.0f);
    at[0] += centred;
    at[1] += centred * centred;
    if (kind == PLAIN) {
      product(2, kept(y - k.line * x - k.w), centred);
      return;
    }
    const Vector gate = tangent(k.steep * x);
    const Vector shifted = kept(gate - k.t);
    at[5] += shifted;
    at[6] += shifted * shifted;
    product(2, kept((gate + k.line) * x - k.w), centred);
    if (kind == REFERRED)
      product(7, kept((tangent(k.reference * x) + k.line) * x - k.r), centred);
  }

  inline void product(int first, Vector w, Vector x) {
    at[first] += w;
    at[first + 1] += w * w;
    at[first + 2] += w * x;
  }
};

template <Kind kind>
constexpr int used() { return kind == PLAIN ? 5 : kind == GATED ? 7 : 10; }

template <int lanes>
inline double total(const double* values) {
  typedef double Part __attribute__((vector_size(4 * lanes)));
  Part low, high;
  std::memcpy(&low, values, sizeof low);
  std::memcpy(&high, values + lanes / 2, sizeof high);
  low += high;
  double sums[lanes / 2];
  std::memcpy(sums, &low, sizeof low);
  return total<lanes / 2>(sums);
}

template <>
inline double total<1>(const double* values) { return *values; }

// A vector of sums in double precision, in two halves.
struct Wide {
  Double halves[2] = {};

  inline void add(Vector value) {
    Half parts[2];
    std::memcpy(parts, &value, sizeof value);
    for (int i = 0; i < 2; ++i) halves[i] += __builtin_convertvector(parts[i], Double);
  }

  inline double sum() const {
    const Double both = halves[0] + halves[1];
    double lanes[LANES / 2];
    std::memcpy(lanes, &both, sizeof both);
    return total<LANES / 2>(lanes);
  }
};

struct Problem {
  const float *x, *y, *constants, *beta;
  int64_t channels, pixels;
  int64_t beta_sample, beta_channel;  // strides; 0 where all share one
  double* out;
  int64_t out_row, out_sample;
};

// Writes the results of one sample and channel; returns whether all are finite.
template <Kind kind>
bool write(const Problem& p, int64_t sample, int64_t channel, const double* sum, double low,
           double high, double positive, float steep) {
  double row[ROWS];
  row[SX] = sum[0], row[QX] = sum[1], row[SW] = sum[2], row[QW] = sum[3], row[SXW] = sum[4];
  row[LOW_X] = low, row[HIGH_X] = high, row[POSITIVE] = positive;
  int rows = POSITIVE + 1;
  if (kind != PLAIN) {  // so far w and r lack the factor d/2
    const double half = p.constants[HALF * p.channels + channel];
    row[ST] = sum[5], row[QT] = sum[6];
    const double a = steep * low, b = steep * high;
    row[LOW_Z] = a < b ? a : b, row[HIGH_Z] = a < b ? b : a;
    row[SR] = sum[7] * half, row[QR] = sum[8] * half * half, row[SXR] = sum[9] * half;
    row[SW] *= half, row[QW] *= half * half, row[SXW] *= half;
    rows = kind == GATED ? HIGH_Z + 1 : ROWS;
  }
  double* to = p.out + sample * p.out_sample + channel;
  bool finite = true;
  for (int i = 0; i < rows; ++i) {
    to[i * p.out_row] = row[i];
    uint64_t bits;
    std::memcpy(&bits, &row[i], sizeof bits);
    finite &= (bits >> 52 & 0x7ff) != 0x7ff;
  }
  return finite;
}

inline Vector spread(float value) { return Vector{} + value; }

// One sample and channel whose pixels lie side by side.
template <Kind kind>
bool along(const Problem& p, int64_t sample, int64_t channel) {
  const float* k = p.constants + channel;
  const int64_t step = p.channels, start = (sample * p.channels + channel) * p.pixels;
  const float beta = p.beta ? p.beta[sample * p.beta_sample + channel * p.beta_channel] : 0.0f;
  const float steep = beta * k[HALF * step];
  const Constants c = {
      spread(k[LINE * step]),     spread(k[OFFSET_X * step]), spread(k[OFFSET_W * step]),
      spread(k[OFFSET_R * step]), spread(k[OFFSET_T * step]), spread(steep),
      spread(k[REFERENCE * step])};
  const float *x = p.x + start, *y = kind == PLAIN ? p.y + start : x;
  const Vector first = spread(x[0]);
  const int64_t whole = p.pixels / LANES, rest = p.pixels % LANES;
  Wide sums[10];
  Vector low = first, high = first;
  Mask positive = {}, inside;
  // What is left over is read with the pixels before it, which must not count twice.
  const bool small = p.pixels < LANES;
  const int64_t tail = small ? 0 : p.pixels - LANES;
  for (int lane = 0; lane < LANES; ++lane)
    inside[lane] = (small ? lane < rest : lane >= LANES - rest) ? -1 : 0;
  for (int64_t from = 0; from < whole + (rest > 0); from += SPAN) {
    Sums<kind> part;
    part.low = low, part.high = high;
    const int64_t until = from + SPAN < whole ? from + SPAN : whole;
    for (int64_t i = from; i < until; ++i)
      part.template add<false>(load(x + i * LANES), load(y + i * LANES), c, inside);
    if (rest > 0 && whole - from < SPAN)
      part.template add<true>(small ? load(x, rest) : load(x + tail),
                              small ? load(y, rest) : load(y + tail), c, inside);
    for (int i = 0; i < used<kind>(); ++i) sums[i].add(part.at[i]);
    low = part.low, high = part.high, positive += part.positive;
  }
  double sum[10] = {};
  for (int i = 0; i < used<kind>(); ++i) sum[i] = sums[i].sum();
  float least_x = low[0], largest_x = high[0];
  int64_t count = 0;
  for (int lane = 0; lane < LANES; ++lane) {
    least_x = low[lane] < least_x ? low[lane] : least_x;
    largest_x = high[lane] > largest_x ? high[lane] : largest_x;
    count += positive[lane];
  }
  return write<kind>(p, sample, channel, sum, least_x, largest_x, double(count), steep);
}

// One sample and up to LANES channels that lie side by side.
template <Kind kind>
bool across(const Problem& p, int64_t sample, int64_t channel, int64_t width) {
  const float* k = p.constants + channel;
  const int64_t step = p.channels;
  const auto constant = [&](int row) { return load(k + row * step, width); };
  Vector beta = {};
  for (int64_t lane = 0; p.beta && lane < width; ++lane)
    beta[lane] = p.beta[sample * p.beta_sample + (channel + lane) * p.beta_channel];
  const Vector steep = beta * constant(HALF);
  const Constants c = {constant(LINE),     constant(OFFSET_X), constant(OFFSET_W),
                       constant(OFFSET_R), constant(OFFSET_T), steep,
                       constant(REFERENCE)};
  const int64_t start = sample * p.pixels * step + channel;
  const float *x = p.x + start, *y = kind == PLAIN ? p.y + start : x;
  Wide sums[10];
  const Vector first = load(x, width);
  Vector low = first, high = first;
  Mask positive = {};
  for (int64_t from = 0; from < p.pixels; from += SPAN) {
    Sums<kind> part;
    part.low = low, part.high = high;
    const int64_t until = from + SPAN < p.pixels ? from + SPAN : p.pixels;
    if (width == LANES) {
      for (int64_t i = from; i < until; ++i)
        part.template add<false>(load(x + i * step), load(y + i * step), c, Mask{});
    } else {
      for (int64_t i = from; i < until; ++i)
        part.template add<false>(load(x + i * step, width), load(y + i * step, width), c, Mask{});
    }
    for (int i = 0; i < used<kind>(); ++i) sums[i].add(part.at[i]);
    low = part.low, high = part.high, positive += part.positive;
  }
  double lanes[10][LANES];
  std::memcpy(lanes, sums, sizeof lanes);
  bool finite = true;
  for (int64_t lane = 0; lane < width; ++lane) {
    double sum[10];
    for (int i = 0; i < 10; ++i) sum[i] = lanes[i][lane];
    finite &= write<kind>(p, sample, channel + lane, sum, low[lane], high[lane],
                          double(positive[lane]), steep[lane]);
  }
  return finite;
}

template <Kind kind>
bool run(const Problem& p, bool last, int64_t begin, int64_t end) {
  bool finite = true;
  if (!last) {
    for (int64_t row = begin; row < end; ++row)
      finite &= along<kind>(p, row / p.channels, row % p.channels);
    return finite;
  }
  const int64_t blocks = (p.channels + LANES - 1) / LANES;
  for (int64_t block = begin; block < end; ++block) {
    int64_t channel = block % blocks * LANES;
    int64_t width = p.channels < LANES ? p.channels : LANES;
    if (channel + width > p.channels) channel = p.channels - width;  // some channels twice
    finite &= across<kind>(p, block / blocks, channel, width);
  }
  return finite;
}

// Squares of nearly nothing are taken for 0 in here: denormal numbers are slow, a hundredfold where
// a gate is so far off that its argument is 1e-20.
struct WithoutDenormals {
#if defined(__SSE__)
  const unsigned before = _mm_getcsr();
  WithoutDenormals() { _mm_setcsr(before | 0x8040); }
  ~WithoutDenormals() { _mm_setcsr(before); }
#endif
};

}  // namespace

extern "C" {

// Number of pieces of work: samples times channels, or blocks of channels that lie side by side.
int64_t acon_moment_pieces(int64_t samples, int64_t channels, int last) {
  return samples * (last ? (channels + LANES - 1) / LANES : channels);
}

// x, y: (N, C, P), or with `last` (N, P, C), without gaps; constants: (7, C); out: doubles, rows
// `out_row` and samples `out_sample` apart. Returns 1 if every result is finite.
int acon_moment_sums(int kind, int last, const float* x, const float* y, const float* constants,
                     const float* beta, int64_t beta_sample, int64_t beta_channel,
                     int64_t channels, int64_t pixels, double* out, int64_t out_row,
                     int64_t out_sample, int64_t begin, int64_t end) {
  const WithoutDenormals guard;
  const Problem p = {x,           y,            constants, beta,    channels,  pixels,
                     beta_sample, beta_channel, out,       out_row, out_sample};
  if (kind == PLAIN) return run<PLAIN>(p, last, begin, end);
  if (kind == GATED) return run<GATED>(p, last, begin, end);
  return run<REFERRED>(p, last, begin, end);
}
}
