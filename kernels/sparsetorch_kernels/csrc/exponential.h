// The exponential of a vector, to the last bit or two. Too small to be a normal number is zero.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "vector.h"

namespace sparsetorch {

// What exp needs to know of a type: the bits of its mantissa, the range of x for which exp(x) is
// a normal number, log 2 as the sum of a number of few bits and a small one, and the inverse
// factorials that reach the last bit for |x| <= log(2) / 2.
template <typename T>
struct Exponential;

template <>
struct Exponential<double> {
  using Int = int64_t;
  static constexpr int kMantissa = 52, kBias = 1023, kTerms = 13;
  static constexpr double kLow = -708.0, kHigh = 709.0;
  static constexpr double kLog2High = 6.93147180369123816490e-01;
  static constexpr double kLog2Low = 1.90821492927058770002e-10;
};

template <>
struct Exponential<float> {
  using Int = int32_t;
  static constexpr int kMantissa = 23, kBias = 127, kTerms = 7;
  static constexpr float kLow = -87.0f, kHigh = 88.0f;
  static constexpr float kLog2High = 0.693359375f, kLog2Low = -2.12194440e-4f;
};

// x = n log 2 + r, exp(x) = 2^n exp(r) with Taylor's series for the latter.
template <typename T, int N>
inline Vec<T, N> exponential(const Vec<T, N>& x) {
  using E = Exponential<T>;
  using V = Vec<T, N>;
  using Bits = Vec<typename E::Int, N>;
  // Added to a number, it leaves the nearest integer in the last bits of the mantissa.
  constexpr T kRound = T(3) * (typename E::Int{1} << (E::kMantissa - 1));
  V inside = x < E::kLow ? V{} + E::kLow : x;
  inside = inside > E::kHigh ? V{} + E::kHigh : inside;
  const V shifted = inside * T(1.44269504088896340736) + kRound;
  const V n = shifted - kRound;
  const V r = (inside - n * E::kLog2High) - n * E::kLog2Low;
  V series = V{} + 1;
  for (int term = E::kTerms; term > 0; --term) series = 1 + series * r * (T(1) / term);
  Bits bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits + E::kBias) << E::kMantissa;  // what lies above the integer is shifted out
  V power;
  std::memcpy(&power, &bits, sizeof(power));
  return x < E::kLow ? V{} : series * power;
}

}  // namespace sparsetorch
