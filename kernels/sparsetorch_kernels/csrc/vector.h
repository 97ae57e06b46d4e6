// Short vectors of one type, through the compiler's vector extension (GCC and Clang).
#pragma once

#include <cstring>

namespace sparsetorch {

template <typename T, int N>
struct Lanes {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};

template <typename T, int N>
using Vec = typename Lanes<T, N>::type;

// The widest vector a register of any supported machine holds; narrower machines split it.
template <typename T>
inline constexpr int kWidth = 64 / sizeof(T);

template <typename T, int N>
inline Vec<T, N> load(const T* from) {
  Vec<T, N> v;
  std::memcpy(&v, from, sizeof(v));  // unaligned
  return v;
}

template <typename T, int N>
inline void store(T* to, const Vec<T, N>& v) {
  std::memcpy(to, &v, sizeof(v));
}

// Sum of the lanes, pairwise.
template <typename T, int N>
inline T sum(const Vec<T, N>& v) {
  if constexpr (N == 2) {
    return v[0] + v[1];
  } else {
    Vec<T, N / 2> half[2];
    std::memcpy(half, &v, sizeof(v));
    return sum<T, N / 2>(half[0] + half[1]);
  }
}

}  // namespace sparsetorch
