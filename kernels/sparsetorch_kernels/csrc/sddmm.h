// Products of dense rows at the entries of a pattern: out_e = <u_row(e), v_col(e)>.
#pragma once

#include "csr.h"
#include "scalar.h"
#include "vector.h"

namespace sparsetorch {

// One product, or the sum of `terms` products whose operands lie `u_step` and `v_step` apart.
template <typename T, typename I, typename P>
struct Sddmm {
  Csr<I, P> a;
  const T* u;
  const T* v;
  int64_t k;
  int64_t terms;
  int64_t u_step;
  int64_t v_step;
};

// Sum of u_j v_j, without conjugates.
template <typename T>
inline T dot(const T* u, const T* v, int64_t k) {
  using R = Real<T>;
  constexpr int W = kWidth<R>, kStep = W / kParts<T>;
  if (k < kStep) {
    T total = 0;
    for (int64_t j = 0; j < k; ++j) total += u[j] * v[j];
    return total;
  }
  Vec<R, W> acc[2] = {}, crossed[2] = {};
  const auto add = [&](int which, int64_t j) {
    const Vec<R, W> left = load<R, W>(reals(u + j)), right = load<R, W>(reals(v + j));
    acc[which] += left * right;
    if constexpr (kIsComplex<T>) crossed[which] += left * swapped<R, W>(right);
  };
  int64_t j = 0;
  for (; j + 2 * kStep <= k; j += 2 * kStep) {
    add(0, j);
    add(1, j + kStep);
  }
  if (j + kStep <= k) add(0, j), j += kStep;
  T total;
  if constexpr (kIsComplex<T>) {
    total = T(sum<R, W>(with_signs<R, W>(acc[0] + acc[1], false)),
              sum<R, W>(crossed[0] + crossed[1]));
  } else {
    total = sum<R, W>(acc[0] + acc[1]);
  }
  for (; j < k; ++j) total += u[j] * v[j];
  return total;
}

// The entries between two cuts. Terms are the outer loop: the piece of the result stays in cache.
template <bool kOneColumn, typename T, typename I, typename P>
void sddmm_piece(const Sddmm<T, I, P>& p, const Cut& from, const Cut& to, T* out) {
  for (int64_t term = 0; term < p.terms; ++term) {
    const T* u = p.u + term * p.u_step;
    const T* v = p.v + term * p.v_step;
    for_each_row_part(p.a, from, to, [&](int64_t row, int64_t first, int64_t last) {
      const T* u_row = u + row * p.k;
      for (int64_t e = first; e < last; ++e) {
        const int64_t col = p.a.col[e];
        if constexpr (!kOneColumn) {  // a row of v comes from anywhere: ask for it early
          const int64_t soon = p.a.col[std::min(e + 40, p.a.nnz - 1)];
          for (int64_t j = 0; j < p.k; j += 64 / sizeof(T)) __builtin_prefetch(v + soon * p.k + j);
        }
        const T product = kOneColumn ? *u_row * v[col] : dot(u_row, v + col * p.k, p.k);
        T& target = out[p.a.place(e)];
        target = term == 0 ? product : target + product;
      }
    });
  }
}

}  // namespace sparsetorch
