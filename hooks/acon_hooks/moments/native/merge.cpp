// The moments of a batch's samples, merged into blocks of samples at once.
//
// The algebra is that of LayerGroup.states and LayerGroup.merge in layer_groups.py, in double precision
// and in one pass over memory. All numbers must be finite.

#include <cmath>
#include <cstring>

#include "rows.h"
#include "threads.h"
#include "vectors.h"

namespace {

inline Wide root(Wide value) {
  for (int i = 0; i < WIDE; ++i) value[i] = std::sqrt(value[i]);
  return value;
}

inline double total(Wide value) {
  double sum = 0.0;
  for (int i = 0; i < WIDE; ++i) sum += value[i];
  return sum;
}

// Residual of the affine fit of w on x, within [0, Cww]; Cww where x is constant.
inline Wide residual(Wide xx, Wide xw, Wide ww) {
  const Bits varies = xx > 0.0;
  const Wide explained = varies ? xw * (xw / (varies ? xx : Wide{} + 1.0)) : Wide{};
  return least(largest(ww - explained, Wide{}), ww);
}

}  // namespace

extern "C" {

// Layers of one kind side by side; rows of every array are `*_row` values apart.
struct acon_group {
  int64_t kind, layers, columns, samples;
  const int64_t* first;    // (layers + 1): first column of each, multiples of the vectors' width
  const double* pixels;    // (layers): values that each sample has in each channel
  const double* constants; // (3, columns): k, d/2, the largest cyy of a constant output relative
                           // to n·mean(y²), for ACON to n·mean(x²)
  const double* const* raw; // (layers): (samples, rows, channels) of each
  const int64_t* raw_row;   // (layers): values between its rows
  int64_t rows;
  const int64_t* blocks;   // (samples)
  const double* before;    // (samples, layers): samples that the block already holds
  double* values;          // (blocks, layers): values in each channel that the block already holds
  double *means, *moments, *within, *low, *high;  // (fields, blocks, columns)
  int64_t store_row;
  double* totals;          // (6, samples, layers)
  double* inputs;          // (samples, columns): means of x; null where nobody wants them
};
}

namespace {

typedef acon_group Group;

// Merges columns of one sample into its block.
template <Kind kind>
void merge(const Group& g, int64_t layer, int64_t sample) {
  const double pixels = g.pixels[layer], each = 1.0 / pixels;
  const double before = g.before[sample * g.layers + layer];
  const int64_t block = g.blocks[sample];
  double* held = g.values + block * g.layers + layer;
  const double share = pixels / (*held + pixels), weight = *held * share;
  const double share_of_beta = 1.0 / (before + 1.0);  // one value a sample
  *held += pixels;
  const double* raw = g.raw[layer] + sample * g.rows * g.raw_row[layer] - g.first[layer];
  Wide sums[6] = {};
  for (int64_t c = g.first[layer]; c < g.first[layer + 1]; c += WIDE) {
    const auto row = [&](int i) { return load(raw + i * g.raw_row[layer] + c); };
    const auto constant = [&](int i) { return load(g.constants + i * g.columns + c); };
    const int64_t at = block * g.columns + c;
    const auto add = [&](double* to, int i, Wide value) {
      store(to + i * g.store_row + at, load(to + i * g.store_row + at) + value);
    };
    const auto step = [&](int i, Wide value, double part) {
      double* mean = g.means + i * g.store_row + at;
      const Wide old = load(mean), change = value - old;
      store(mean, old + change * part);
      return change;
    };
    const auto extreme = [&](int i, Wide low, Wide high) {
      double *to_low = g.low + i * g.store_row + at, *to_high = g.high + i * g.store_row + at;
      store(to_low, least(load(to_low), low));
      store(to_high, largest(load(to_high), high));
    };
    const Wide slope = constant(0), mean = row(SX), mean_w = row(SW);
    const auto variance = [&](Wide xx, Wide xw, Wide ww) {  // Cyy of y = k·x + w
      return largest(slope * (slope * xx + 2.0 * xw) + ww, Wide{});
    };
    const Wide xx = row(QX), ww = row(QW), xw = row(SXW), sse = residual(xx, xw, ww);
    if (g.inputs) store(g.inputs + sample * g.columns + c, mean);
    const Wide dx = step(0, mean, share), dw = step(1, mean_w, share);
    add(g.moments, 0, xx + dx * dx * weight);
    add(g.moments, 1, xw + dx * dw * weight);
    add(g.moments, 2, ww + dw * dw * weight);
    add(g.within, 0, sse), add(g.within, 1, row(POSITIVE));
    extreme(0, row(LOW_X), row(HIGH_X));
    // Channels whose outputs vary by no more than rounding add nothing.
    const auto total_of = [&](int i, Wide yy, Wide rest) {
      const Wide y = mean_w + slope * mean;
      const Wide square = kind == PLAIN ? yy + pixels * y * y : xx + pixels * mean * mean;
      const Bits varies = yy > constant(2) * square;
      sums[i] += varies ? yy : Wide{}, sums[i + 1] += varies ? rest : Wide{};
    };
    total_of(0, variance(xx, xw, ww), sse);
    if constexpr (kind != PLAIN) {
      const Wide tt = row(QT), dt = step(2, row(ST), share);
      const Wide gain = row(kind == GATED ? SR : BETA) * constant(1);
      add(g.moments, 3, tt + dt * dt * weight);
      extreme(1, row(LOW_Z), row(HIGH_Z));
      sums[2] += tt * 0.25;
      sums[3] += 2.0 * largest(gain, -gain) * root(xx * each);
    }
    if constexpr (kind == REFERRED) {
      const Wide rr = row(QR), xr = row(SXR), other = residual(xx, xr, rr);
      const Wide dr = step(3, row(SR), share), db = step(4, row(BETA), share_of_beta);
      add(g.moments, 4, xr + dx * dr * weight);
      add(g.moments, 5, rr + dr * dr * weight);
      add(g.moments, 6, db * db * (before * share_of_beta));
      add(g.within, 2, other);
      total_of(4, variance(xx, xr, rr), other);
    }
  }
  constexpr int used = kind == PLAIN ? 2 : kind == GATED ? 4 : 6;
  for (int i = 0; i < used; ++i)
    g.totals[(i * g.samples + sample) * g.layers + layer] = total(sums[i]);
}

}  // namespace

extern "C" {

// Merges all layers.
void acon_moment_merge(const acon_group* group, int threads, Team team) {
  spread(group->layers, threads, team, [=](int64_t begin, int64_t end) {
    for (int64_t layer = begin; layer < end; ++layer)
      for (int64_t sample = 0; sample < group->samples; ++sample)
        switch (group->kind) {
          case PLAIN: merge<PLAIN>(*group, layer, sample); break;
          case GATED: merge<GATED>(*group, layer, sample); break;
          default: merge<REFERRED>(*group, layer, sample);
        }
  });
}
}
