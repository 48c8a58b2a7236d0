// What the sums of a batch hold, and how wide this processor's vectors are.

#ifndef ACON_MOMENT_ROWS_H
#define ACON_MOMENT_ROWS_H

#include <cstdint>
#if defined(__SSE__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;  // of single precision
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

// Activations, ACON with one β a channel, and with one β a sample and channel.
enum Kind { PLAIN, GATED, REFERRED };

// The rows of the sums, in the order of kernels.Sums. β follows the last one of a kind.
enum Row {
  SX, QX, SW, QW, SXW, LOW_X, HIGH_X, POSITIVE, ST, QT, LOW_Z, HIGH_Z, SR, QR, SXR, BETA
};

}  // namespace

#endif
