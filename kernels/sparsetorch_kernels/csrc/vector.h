// Short vectors of one type, through the compiler's vector extension (GCC and Clang).
#pragma once

#include <cstring>
#include <utility>

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

// Complex numbers lie in vectors as pairs of lanes, real before imaginary. The two exchanged:
template <typename T, int N>
inline Vec<T, N> swapped(const Vec<T, N>& v) {
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
  return [&]<int... I>(std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, (I ^ 1)...);
  }(std::make_integer_sequence<int, N>{});
#else  // GCC before 12
  decltype(v == v) order;
  for (int lane = 0; lane < N; ++lane) order[lane] = lane ^ 1;
  return __builtin_shuffle(v, order);
#endif
}

// With the sign of every second lane, from the first or the second, changed.
template <typename T, int N>
inline Vec<T, N> with_signs(const Vec<T, N>& v, bool first) {
  Vec<T, N> signs;
  for (int lane = 0; lane < N; ++lane) signs[lane] = (lane % 2 == 0) == first ? -1 : 1;
  return v * signs;
}

}  // namespace sparsetorch
