// Incomplete factorizations without fill, row by row, in place of the values.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "csr.h"

namespace sparsetorch {

// Whether a number, real or complex, is neither zero nor NaN.
template <typename T>
inline bool is_pivot(const T& f) {
  return f == f && f != T(0);
}

// ILU(0), the IKJ variant (Saad, Iterative Methods, algorithm 10.4): L strictly below the diagonal,
// with ones on it that are not stored, U on and above it.
template <typename T, typename I>
class Ilu0 {
 public:
  explicit Ilu0(const Csr<I>& a) : a_(a), diagonal_(a.n_rows), place_(a.n_rows, I{-1}) {}

  // The first row whose pivot is not stored, zero or NaN, or -1.
  int64_t operator()(T* f) {
    for (int64_t i = 0; i < a_.n_rows; ++i) {
      const int64_t first = a_.crow[i], last = a_.crow[i + 1];
      for (int64_t e = first; e < last; ++e) place_[a_.col[e]] = static_cast<I>(e);
      int64_t e = first;
      for (; e < last && a_.col[e] < i; ++e) eliminate(f, e);
      for (int64_t own = first; own < last; ++own) place_[a_.col[own]] = -1;
      if (e == last || a_.col[e] != i || !is_pivot(f[e])) return i;
      diagonal_[i] = static_cast<I>(e);
    }
    return -1;
  }

 private:
  // Entry e of the current row, in column k, becomes l, and l times row k of U is subtracted.
  void eliminate(T* f, int64_t e) {
    const int64_t k = a_.col[e], pivot = diagonal_[k], last = a_.crow[k + 1];
    const T l = f[e] / f[pivot];
    f[e] = l;
    for (int64_t q = pivot + 1; q < last; ++q) {
      const int64_t target = place_[a_.col[q]];
      if (target >= 0) f[target] -= l * f[q];
    }
  }

  const Csr<I> a_;
  std::vector<I> diagonal_;  // of the rows above: the entry that holds it
  std::vector<I> place_;     // of each column: the entry of the current row that is in it, or -1
};

// IC(0) of a lower triangle, up-looking: row i of L solves L_(i-1) l = a_i on its own pattern.
template <typename T, typename I>
class Ic0 {
 public:
  explicit Ic0(const Csr<I>& a) : a_(a), row_(a.n_rows, T(0)) {}

  // The first row whose pivot is not stored or whose square is not positive, or -1.
  int64_t operator()(T* f) {
    for (int64_t i = 0; i < a_.n_rows; ++i) {
      const int64_t first = a_.crow[i], last = a_.crow[i + 1] - 1;
      if (last < first || a_.col[last] != i) return i;
      T square = f[last];
      for (int64_t e = first; e < last; ++e) {
        f[e] = solved(f, a_.col[e], f[e]);
        row_[a_.col[e]] = f[e];
        square -= f[e] * f[e];
      }
      for (int64_t e = first; e < last; ++e) row_[a_.col[e]] = 0;
      if (!(square > 0)) return f[last] = square, i;
      f[last] = std::sqrt(square);
    }
    return -1;
  }

 private:
  // (value - sum over k < j of l_ik l_jk) / l_jj, for the current row i.
  T solved(const T* f, int64_t j, T value) const {
    const int64_t last = a_.crow[j + 1] - 1;
    for (int64_t e = a_.crow[j]; e < last; ++e) value -= f[e] * row_[a_.col[e]];
    return value / f[last];
  }

  const Csr<I> a_;
  std::vector<T> row_;  // the part of the current row of L that is known, dense
};

}  // namespace sparsetorch
