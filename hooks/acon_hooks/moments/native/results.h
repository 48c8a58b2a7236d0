// From sums over the pixels of LANES samples and channels to what is returned of them.

#ifndef ACON_MOMENT_RESULTS_H
#define ACON_MOMENT_RESULTS_H

#include <cstring>

#include "functions.h"
#include "rows.h"
#include "tangent.h"
#include "vectors.h"

namespace {

// Rows of the constants of a call; see `Prepared` in sums.py.
enum Constant { HALF, MIDDLE, REFERENCE };

// Sums of an accumulator, and what they are about: of x, w, t and r as kinds come to need them.
constexpr int USED[] = {5, 7, 10}, ABOUT[] = {2, 3, 4};

// What an output's deviation has to exceed for a gate in single precision; see kernels.py.
constexpr double ROUGH[] = {0.3, 3e-3};

// Fewer pixels than these take gates in double precision: their roundings do not cancel each other.
constexpr int64_t FEWEST = 8;

struct Problem {
  Function function;
  bool last;
  const float *x, *beta;
  float* y;
  const double* constants;
  int64_t samples, channels, pixels;
  int64_t beta_sample, beta_channel;  // strides; 0 where all share one
  double* out;
  int64_t out_row, out_sample;

  double constant(int row, int64_t channel) const { return constants[row * channels + channel]; }
};

// Constants of LANES pairs of sample and channel.
struct Given {
  alignas(64) double half[LANES], middle[LANES], beta[LANES];
  alignas(64) double steep[LANES], reference[LANES];  // β·d/2, and at the reference β

  template <Kind kind>
  void set(const Problem& p, int lane, int64_t sample, int64_t channel) {
    if (kind == PLAIN) return;
    half[lane] = p.constant(HALF, channel), middle[lane] = p.constant(MIDDLE, channel);
    beta[lane] = p.beta ? p.beta[sample * p.beta_sample + channel * p.beta_channel] : 0.0f;
    steep[lane] = beta[lane] * half[lane];
    reference[lane] = p.constant(REFERENCE, channel) * half[lane];
  }
};

// Sums of channels side by side, and what x, w, t and r are about; w and r lack the factor d/2.
template <int width>
struct Totals {
  alignas(64) double sum[10][width], about[4][width];
  alignas(64) double low[width], high[width], positive[width];
};

// What is returned of LANES channels, and where it takes gates in double precision.
struct Results {
  alignas(64) double row[BETA + 1][LANES];
  Bits again[2] = {};
  Wide size = {};  // not finite if something is not

  void put(int index, int half, Wide value) {
    store(row[index] + half * WIDE, value);
    size += value < 0.0 ? -value : value;
  }
};

// The results of half a vector of channels, those from `first` on.
template <Kind kind, bool precise, int width>
void finish(const Problem& p, const Given& k, const Totals<width>& from, int first, int side,
            Results& to) {
  const double pixels = double(p.pixels), each = 1.0 / pixels;
  const int own = side * WIDE, at = first + own;
  const Wide none = {}, sum_x = load(from.sum[0] + at);
  const Wide mean_x = load(from.about[0] + at) + sum_x * each;
  const Wide xx = largest(load(from.sum[1] + at) - sum_x * sum_x * each, none);
  Bits again = {};
  to.put(SX, side, mean_x), to.put(QX, side, xx);
  const Wide low = load(from.low + at), high = load(from.high + at);
  if constexpr (!precise) {
    to.put(LOW_X, side, low), to.put(HIGH_X, side, high);
    to.put(POSITIVE, side, load(from.positive + at));
  }
  const auto mean = [&](int index, int about) {
    return load(from.about[about] + at) + load(from.sum[index] + at) * each;
  };
  const auto square = [&](int index) {
    const Wide sum = load(from.sum[index] + at);
    return largest(load(from.sum[index + 1] + at) - sum * sum * each, none);
  };
  const auto cross = [&](int index) {
    return load(from.sum[index + 2] + at) - load(from.sum[index] + at) * sum_x * each;
  };
  if constexpr (kind == PLAIN) {
    to.put(SW, side, mean(2, 1)), to.put(QW, side, square(2)), to.put(SXW, side, cross(2));
  } else {
    const Wide half = load(k.half + own), middle = load(k.middle + own);
    const double few = ROUGH[0] * ROUGH[0] * each, least = ROUGH[1] * ROUGH[1];
    const Wide limit = (few > least ? few : least) * half * half * (xx + pixels * mean_x * mean_x);
    const auto even_part = [&](int row, int index, int about) {
      const Wide qw = square(index) * half * half, xw = cross(index) * half;
      to.put(row, side, mean(index, about) * half), to.put(row + 1, side, qw);
      to.put(row + 2, side, xw);
      again |= qw + middle * (2.0 * xw + middle * xx) < limit;
    };
    even_part(SW, 2, 1);
    to.put(ST, side, mean(5, 2)), to.put(QT, side, square(5));
    if constexpr (kind == REFERRED) even_part(SR, 7, 3);
    if (p.pixels < FEWEST) again = ~Bits{};
    to.again[side] = again & (xx > 0.0);
    if constexpr (!precise) {
      const Wide steep = load(k.steep + own), a = steep * low, b = steep * high;
      to.put(LOW_Z, side, a < b ? a : b), to.put(HIGH_Z, side, a < b ? b : a);
      to.put(kind == GATED ? SR : BETA, side, load(k.beta + own));
    }
  }
}

// Sums of one sample and channel with gates in double precision, about its first pixel.
template <Kind kind>
Totals<LANES> precisely(const Problem& p, int64_t sample, int64_t channel, const Given& k) {
  const int64_t size = p.channels * p.pixels, step = p.last ? p.channels : 1;
  const float* x = p.x + sample * size + (p.last ? channel : channel * p.pixels);
  Wide sum[10] = {}, first[4] = {};
  for (int64_t from = -1; from < p.pixels; from += from < 0 ? 1 : WIDE) {
    Wide values[4];
    for (int i = 0; i < WIDE; ++i)
      values[0][i] = x[from >= 0 && from + i < p.pixels ? (from + i) * step : 0];
    values[2] = tangent(k.steep[0] * values[0]), values[1] = values[2] * values[0];
    if constexpr (kind == REFERRED) values[3] = tangent(k.reference[0] * values[0]) * values[0];
    if (from < 0) std::memcpy(first, values, sizeof first);
    const auto about = [&](int i) { return values[i] - first[i]; };
    const auto add = [&](int i, Wide value) { sum[i] += value, sum[i + 1] += value * value; };
    add(0, about(0)), add(2, about(1)), add(5, about(2));
    sum[4] += about(0) * about(1);
    if constexpr (kind == REFERRED) add(7, about(3)), sum[9] += about(0) * about(3);
  }
  Totals<LANES> found = {};
  for (int i = 0; i < USED[kind]; ++i)
    for (int lane = 0; lane < WIDE; ++lane) found.sum[i][0] += sum[i][lane];
  for (int i = 0; i < 4; ++i) found.about[i][0] = first[i][0];
  return found;
}

// Takes one channel again and writes it over what `write` has written.
template <Kind kind>
void again(const Problem& p, int64_t sample, int64_t channel) {
  Given constants = {};
  constants.set<kind>(p, 0, sample, channel);
  Results results;
  finish<kind, true>(p, constants, precisely<kind>(p, sample, channel, constants), 0, 0, results);
  double* to = p.out + sample * p.out_sample + channel;
  for (int row : {SX, QX, SW, QW, SXW, ST, QT, SR, QR, SXR})
    if (kind == REFERRED || row < SR) to[row * p.out_row] = results.row[row][0];
}

// Writes `count` results from lane `first` on, of neighbouring channels of one sample.
template <Kind kind>
void write(const Problem& p, int64_t sample, int64_t channel, const Results& from, int first,
           int count) {
  constexpr int rows = kind == PLAIN ? POSITIVE + 1 : kind == GATED ? SR + 1 : BETA + 1;
  double* to = p.out + sample * p.out_sample + channel;
  for (int row = 0; row < rows; ++row)
    if (count == LANES)
      std::memcpy(to + row * p.out_row, from.row[row], sizeof from.row[row]);
    else
      std::memcpy(to + row * p.out_row, from.row[row] + first, count * sizeof(double));
  if constexpr (kind != PLAIN)
    for (int lane = first; lane < first + count; ++lane)
      if (from.again[lane / WIDE][lane % WIDE]) again<kind>(p, sample, channel + lane - first);
}

// Computes LANES results; returns whether all are finite.
template <Kind kind, int width>
bool finish(const Problem& p, const Given& k, const Totals<width>& from, int first, Results& to) {
  for (int side = 0; side < 2; ++side) finish<kind, false>(p, k, from, first, side, to);
  double size = 0.0;
  for (int i = 0; i < WIDE; ++i) size += to.size[i];
  uint64_t bits;
  std::memcpy(&bits, &size, sizeof bits);
  return (bits >> 52 & 0x7ff) != 0x7ff;
}

// The same, written for `count` neighbouring channels of one sample.
template <Kind kind, int width>
bool put(const Problem& p, int64_t sample, int64_t channel, const Given& k,
         const Totals<width>& from, int first, int count) {
  Results results;
  const bool finite = finish<kind>(p, k, from, first, results);
  write<kind>(p, sample, channel, results, 0, count);
  return finite;
}

}  // namespace

#endif
