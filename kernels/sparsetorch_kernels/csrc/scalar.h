// Real and complex numbers seen alike: one is stored as one real number, the other as two.
#pragma once

#include <type_traits>

#include <torch/headeronly/util/complex.h>

namespace sparsetorch {

template <typename T>
using Complex = c10::complex<T>;

template <typename T>
struct RealOf {
  using type = T;
};

template <typename T>
struct RealOf<Complex<T>> {
  using type = T;
};

template <typename T>
using Real = typename RealOf<T>::type;

template <typename T>
inline constexpr bool kIsComplex = !std::is_same_v<T, Real<T>>;

template <typename T>
inline constexpr int kParts = kIsComplex<T> ? 2 : 1;

// Numbers as the real ones that they are made of (as the standard allows for complex numbers).
template <typename T>
inline Real<T>* reals(T* numbers) {
  return reinterpret_cast<Real<T>*>(numbers);
}

template <typename T>
inline const Real<T>* reals(const T* numbers) {
  return reinterpret_cast<const Real<T>*>(numbers);
}

}  // namespace sparsetorch
