// Activations that have no parameters, of vectors.

#ifndef ACON_MOMENT_FUNCTIONS_H
#define ACON_MOMENT_FUNCTIONS_H

#include "vectors.h"

namespace {

// In the order of FUNCTIONS in sums.py. Of GIVEN ones the output is read.
enum Function { GIVEN, RELU, HARDSWISH, SILU };

// Relative error below 2.5e-7; 0 below -87, infinite above 88.7. exp(z) = 2^whole exp(r); the polynomial
// of exp(r) was fitted to the least largest relative error, 1e-7.
inline Vector exponential(Vector z) {
  const Vector lowest = Vector{} - 87.0f, highest = Vector{} + 89.0f, magic = Vector{} + 0x1.8p23f;
  const Vector near = least(largest(z, lowest), highest);
  const Vector shifted = near * 1.44269504f + magic, whole = shifted - magic;
  const Vector r = (near - whole * 0.693359375f) + whole * 2.12194440e-4f;
  const Vector series =
      ((((8.290272206e-3f * r + 4.189816117e-2f) * r + 1.666763872e-1f) * r + 4.999914765e-1f) * r +
       9.999997020e-1f) * r + 1.0f;
  Mask bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 126) << 23;  // half of 2^whole, which is finite where exp(z) is
  Vector power;
  std::memcpy(&power, &bits, sizeof power);
  return series * power * 2.0f;
}

template <Function function>
inline Vector apply(Vector x) {
  const Vector none = Vector{};
  if constexpr (function == RELU) return largest(x, none);
  if constexpr (function == HARDSWISH)
    return x * least(largest(x + 3.0f, none), none + 6.0f) * (1.0f / 6.0f);
  if constexpr (function == SILU) return x / (1.0f + exponential(-x));
  return x;
}

inline Vector apply(Function function, Vector x) {
  return function == RELU ? apply<RELU>(x)
         : function == HARDSWISH ? apply<HARDSWISH>(x)
         : function == SILU ? apply<SILU>(x) : x;
}

}  // namespace

#endif
