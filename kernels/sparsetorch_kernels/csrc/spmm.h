// Sparse times dense, y = A x, for two columns or more.
#pragma once

#include "csr.h"
#include "scalar.h"
#include "vector.h"

namespace sparsetorch {

// One product, or the sum of `terms` products whose operands lie `values_step` and `x_step` apart.
template <typename T, typename I, typename P>
struct Spmm {
  Csr<I, P> a;
  const T* values;
  const T* x;
  int64_t k;
  int64_t terms;
  int64_t values_step;
  int64_t x_step;
};

// Numbers j .. j + N of a row of sum over the entries first .. last of values * x[col], in registers.
// A complex row counts as twice as many real numbers. With a = b + ic, sums of b x and of c x are
// kept apart, and the second is multiplied by i once, at the end.
template <int N, bool kPerm, typename T, typename I, typename P>
inline void tile(const Spmm<T, I, P>& p, int64_t first, int64_t last, int64_t j, Real<T>* to) {
  using R = Real<T>;
  constexpr int kLanes = std::min(N, kWidth<R>);
  constexpr int kVectors = N / kLanes;
  const int64_t k = p.k * kParts<T>;
  Vec<R, kLanes> acc[kVectors] = {}, turned[kVectors] = {};
  for (int64_t term = 0; term < p.terms; ++term) {
    const T* values = p.values + term * p.values_step;
    const R* x = reals(p.x + term * p.x_step) + j;
    for (int64_t e = first; e < last; ++e) {
      const T value = values[kPerm ? static_cast<int64_t>(p.a.perm[e]) : e];
      const R* row = x + static_cast<int64_t>(p.a.col[e]) * k;
      if constexpr (kVectors > 1) {  // a row of x comes from anywhere: ask for it early
        const int64_t soon = p.a.col[std::min(e + 40, p.a.nnz - 1)];
        for (int m = 0; m < kVectors; ++m) __builtin_prefetch(x + soon * k + m * kLanes);
      }
      for (int m = 0; m < kVectors; ++m) {
        const Vec<R, kLanes> numbers = load<R, kLanes>(row + m * kLanes);
        acc[m] += reals(&value)[0] * numbers;
        if constexpr (kIsComplex<T>) turned[m] += reals(&value)[1] * numbers;
      }
    }
  }
  for (int m = 0; m < kVectors; ++m) {
    if constexpr (kIsComplex<T>) {
      acc[m] += with_signs<R, kLanes>(swapped<R, kLanes>(turned[m]), true);
    }
    store<R, kLanes>(to + j + m * kLanes, acc[m]);
  }
}

// All k columns. What is left after the wide tiles is covered by a tile that overlaps the previous
// one: it computes a few columns twice and needs no loop over single columns.
template <bool kPerm, typename T, typename I, typename P>
inline void row_part(const Spmm<T, I, P>& p, int64_t first, int64_t last, T* row) {
  Real<T>* const to = reals(row);
  const int64_t k = p.k * kParts<T>;
  // A complex tile holds twice as many sums: half as wide, they stay in registers.
  constexpr int kWidest = 64 / kParts<T>;
  int64_t j = 0;
  for (; k - j >= kWidest; j += kWidest) tile<kWidest, kPerm>(p, first, last, j, to);
  if constexpr (kWidest > 32) {
    if (k - j >= 32) tile<32, kPerm>(p, first, last, j, to), j += 32;
  }
  if (k - j >= 16) tile<16, kPerm>(p, first, last, j, to), j += 16;
  if (j == k) return;
  if (k >= 16) {
    tile<16, kPerm>(p, first, last, k - 16, to);
  } else if (k >= 8) {
    tile<8, kPerm>(p, first, last, 0, to);
    if (k > 8) tile<8, kPerm>(p, first, last, k - 8, to);
  } else if (k >= 4) {
    tile<4, kPerm>(p, first, last, 0, to);
    if (k > 4) tile<4, kPerm>(p, first, last, k - 4, to);
  } else {
    tile<2, kPerm>(p, first, last, 0, to);
    if (k > 2) tile<2, kPerm>(p, first, last, k - 2, to);
  }
}

// One piece of the work. A row is written by the piece in which it begins; the part of a row that
// began earlier goes to `carry` (k values), to be added afterwards.
template <bool kPerm, typename T, typename I, typename P>
void spmm_piece(const Spmm<T, I, P>& p, const Cut& from, const Cut& to, T* out, T* carry) {
  for_each_row_part(p.a, from, to, [&](int64_t row, int64_t first, int64_t last) {
    row_part<kPerm>(p, first, last, first == p.a.crow[row] ? out + row * p.k : carry);
  });
}

}  // namespace sparsetorch
