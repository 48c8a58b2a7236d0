// Arithmetic on vectors of single precision, with the instructions that compilers do not find.

#ifndef ACON_MOMENT_VECTORS_H
#define ACON_MOMENT_VECTORS_H

#include <cstring>
#include <initializer_list>

#include "rows.h"

namespace {

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Mask __attribute__((vector_size(4 * LANES)));

inline Vector load(const float* from) {
  Vector value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Loads `count` values, fewer than LANES, and zeros.
inline Vector first_of(const float* from, int count) {
#if defined(__AVX512F__)
  return (Vector)_mm512_maskz_loadu_ps(__mmask16((1 << count) - 1), from);
#else
  Vector value = {};
  std::memcpy(&value, from, count * sizeof(float));
  return value;
#endif
}

inline void store(float* to, Vector value) { std::memcpy(to, &value, sizeof value); }

// Stores the first `count` values, fewer than LANES.
inline void store_first(float* to, Vector value, int count) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, __mmask16((1 << count) - 1), (__m512)value);
#else
  std::memcpy(to, &value, count * sizeof(float));
#endif
}

// Half as many of double precision.
constexpr int WIDE = LANES / 2;
typedef float Narrow __attribute__((vector_size(4 * WIDE)));
typedef double Wide __attribute__((vector_size(8 * WIDE)));
typedef int64_t Bits __attribute__((vector_size(8 * WIDE)));

inline Wide load(const double* from) {
  Wide value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

inline void store(double* to, Wide value) { std::memcpy(to, &value, sizeof value); }
inline Wide least(Wide a, Wide b) { return a < b ? a : b; }
inline Wide largest(Wide a, Wide b) { return a > b ? a : b; }

inline Wide widen(Narrow values) {
#if defined(__AVX512F__)
  return (Wide)_mm512_cvtps_pd((__m256)values);
#elif defined(__AVX__)
  return (Wide)_mm256_cvtps_pd((__m128)values);
#else
  return __builtin_convertvector(values, Wide);
#endif
}

inline Wide widen(const float* from) {
  Narrow values;
  std::memcpy(&values, from, sizeof values);
  return widen(values);
}

inline Wide widen(Vector values, int half) {
#if defined(__AVX512DQ__)
  if (half) return widen((Narrow)_mm512_extractf32x8_ps((__m512)values, 1));
  return widen((Narrow)_mm512_castps512_ps256((__m512)values));
#else
  Narrow found;
  std::memcpy(&found, (const char*)&values + half * sizeof found, sizeof found);
  return widen(found);
#endif
}

#if defined(__AVX512F__)
inline Vector least(Vector a, Vector b) { return (Vector)_mm512_min_ps((__m512)a, (__m512)b); }
inline Vector largest(Vector a, Vector b) { return (Vector)_mm512_max_ps((__m512)a, (__m512)b); }
#else
#if defined(__AVX__)
inline Vector least(Vector a, Vector b) { return (Vector)_mm256_min_ps((__m256)a, (__m256)b); }
inline Vector largest(Vector a, Vector b) { return (Vector)_mm256_max_ps((__m256)a, (__m256)b); }
#else
inline Vector least(Vector a, Vector b) { return a < b ? a : b; }
inline Vector largest(Vector a, Vector b) { return a > b ? a : b; }
#endif
#endif

#if defined(__AVX512DQ__)
inline void tally(Mask& counts, Vector a) {
  const __mmask16 positive = _mm512_cmp_ps_mask((__m512)a, __m512(), _CMP_GT_OQ);
  const __m512i one = _mm512_set1_epi32(1);
  counts = (Mask)_mm512_mask_add_epi32((__m512i)counts, positive, (__m512i)counts, one);
}
#else
inline void tally(Mask& counts, Vector a) { counts -= a > 0.0f; }
#endif

}  // namespace

#endif
