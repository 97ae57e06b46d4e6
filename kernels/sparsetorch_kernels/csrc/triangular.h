// Substitution: x = T^-1 b for one triangle T of a CSR pattern, and the levels of its rows.
#pragma once

#include <atomic>
#include <cmath>
#include <limits>

#include "scalar.h"
#include "spmv.h"

namespace sparsetorch {

// The smallest of the rows that are reported, from any thread.
class FirstRow {
 public:
  void report(int64_t row) {
    int64_t before = row_.load(std::memory_order_relaxed);
    while (row < before && !row_.compare_exchange_weak(before, row, std::memory_order_relaxed)) {
    }
  }

  int64_t found() const {  // -1 if none
    const int64_t row = row_.load(std::memory_order_relaxed);
    return row == kNone ? -1 : row;
  }

 private:
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> row_{kNone};
};

// Entries beyond the triangle, and with `unit` those of the diagonal, are never read. Rows whose
// diagonal is zero or not stored are reported to `singular`.
template <typename T, typename I>
struct Triangular {
  Csr<I> a;
  const T* values;
  const T* b;
  T* x;
  int64_t k;
  bool unit;
  FirstRow* singular;
};

// A row of the triangle: the entries first .. last beside the diagonal, and where that is.
struct TriangleRow {
  int64_t first;
  int64_t last;
  int64_t diagonal;  // -1 where it is not stored
};

template <bool kLower, typename I>
inline TriangleRow triangle_row(const Csr<I>& a, int64_t row) {
  int64_t first = a.crow[row], last = a.crow[row + 1];
  if constexpr (kLower) {
    while (last > first && a.col[last - 1] > row) --last;
    const bool stored = last > first && a.col[last - 1] == row;
    return {first, last - stored, stored ? last - 1 : -1};
  } else {
    while (first < last && a.col[first] < row) ++first;
    const bool stored = first < last && a.col[first] == row;
    return {first + stored, last, stored ? first : -1};
  }
}

// Division by the diagonal, which every later row waits for: a product with the reciprocal, which
// is computed meanwhile, where the reciprocal is as precise as the quotient.
template <typename T, bool = kIsComplex<T>>
struct Divisor {
  T diagonal;
  T inverse;
  bool precise;

  explicit Divisor(T d) : diagonal(d), inverse(T(1) / d) {
    constexpr T kTiny = std::numeric_limits<T>::min();
    precise = std::abs(d) >= kTiny && std::abs(d) <= T(1) / kTiny;
  }

  template <typename V>
  V divide(const V& v) const {
    return __builtin_expect(precise, true) ? v * inverse : v / diagonal;
  }
};

// Of complex numbers, scaled against overflow as `operator/` of c10::complex is.
template <typename T>
struct Divisor<T, true> {
  T diagonal;

  explicit Divisor(T d) : diagonal(d) {}

  T divide(const T& v) const { return v / diagonal; }
};

template <bool kPerm, typename T, typename I>
inline Divisor<T> divisor(const Triangular<T, I>& p, int64_t i, const TriangleRow& row) {
  if (p.unit) return Divisor<T>(T(1));
  T d(0);
  if (row.diagonal >= 0) {
    d = p.values[kPerm ? static_cast<int64_t>(p.a.perm[row.diagonal]) : row.diagonal];
  }
  if (__builtin_expect(d == T(0), false)) p.singular->report(i);
  return Divisor<T>(d);
}

// One unknown. The neighbour nearest to the diagonal comes last: it may be a moment old.
template <bool kLower, bool kPerm, typename T, typename I>
inline void substitute_one(const Triangular<T, I>& p, int64_t i) {
  const TriangleRow row = triangle_row<kLower>(p.a, i);
  const Divisor<T> d = divisor<kPerm>(p, i, row);
  T rest = p.b[i];
  if (row.first < row.last) {
    const int64_t near = kLower ? row.last - 1 : row.first;
    rest -= kLower ? dot_part<kPerm>(p.a, p.values, p.x, row.first, near)
                   : dot_part<kPerm>(p.a, p.values, p.x, near + 1, row.last);
    rest -= p.values[kPerm ? static_cast<int64_t>(p.a.perm[near]) : near] * p.x[p.a.col[near]];
  }
  p.x[i] = d.divide(rest);
}

// Columns j .. j + N of one row of unknowns, in registers.
template <int N, bool kLower, bool kPerm, typename T, typename I>
inline void substitute_tile(const Triangular<T, I>& p, int64_t i, const TriangleRow& row,
                            const Divisor<T>& d, int64_t j) {
  constexpr int kLanes = std::min(N, kWidth<T>);
  constexpr int kVectors = N / kLanes;
  Vec<T, kLanes> rest[kVectors];
  for (int m = 0; m < kVectors; ++m) rest[m] = load<T, kLanes>(p.b + i * p.k + j + m * kLanes);
  const auto subtract = [&](int64_t e) {
    const T value = p.values[kPerm ? static_cast<int64_t>(p.a.perm[e]) : e];
    const T* x = p.x + static_cast<int64_t>(p.a.col[e]) * p.k + j;
    for (int m = 0; m < kVectors; ++m) rest[m] -= value * load<T, kLanes>(x + m * kLanes);
  };
  if constexpr (kLower) {
    for (int64_t e = row.first; e < row.last; ++e) subtract(e);
  } else {
    for (int64_t e = row.last - 1; e >= row.first; --e) subtract(e);
  }
  for (int m = 0; m < kVectors; ++m) {
    store<T, kLanes>(p.x + i * p.k + j + m * kLanes, d.divide(rest[m]));
  }
}

// Columns begin .. end of one row of unknowns, two or more. Tiles overlap as in `row_part`.
template <bool kLower, bool kPerm, typename T, typename I>
inline void substitute_row(const Triangular<T, I>& p, int64_t i, int64_t begin, int64_t end) {
  const TriangleRow row = triangle_row<kLower>(p.a, i);
  const Divisor<T> d = divisor<kPerm>(p, i, row);
  const auto tile = [&]<int N>(std::integral_constant<int, N>, int64_t j) {
    substitute_tile<N, kLower, kPerm>(p, i, row, d, j);
  };
  int64_t j = begin;
  for (; end - j >= 64; j += 64) tile(std::integral_constant<int, 64>{}, j);
  if (end - j >= 32) tile(std::integral_constant<int, 32>{}, j), j += 32;
  if (end - j >= 16) tile(std::integral_constant<int, 16>{}, j), j += 16;
  if (j == end) return;
  if (end - begin >= 16) {
    tile(std::integral_constant<int, 16>{}, end - 16);
  } else if (end - begin >= 8) {
    tile(std::integral_constant<int, 8>{}, begin);
    if (end - begin > 8) tile(std::integral_constant<int, 8>{}, end - 8);
  } else if (end - begin >= 4) {
    tile(std::integral_constant<int, 4>{}, begin);
    if (end - begin > 4) tile(std::integral_constant<int, 4>{}, end - 4);
  } else {
    tile(std::integral_constant<int, 2>{}, begin);
    if (end - begin > 2) tile(std::integral_constant<int, 2>{}, end - 2);
  }
}

// The same of complex numbers, which have no lanes of their own.
template <bool kLower, bool kPerm, typename T, typename I>
inline void substitute_complex_row(const Triangular<T, I>& p, int64_t i, int64_t begin,
                                   int64_t end) {
  const TriangleRow row = triangle_row<kLower>(p.a, i);
  const Divisor<T> d = divisor<kPerm>(p, i, row);
  T* const rest = p.x + i * p.k;
  std::copy(p.b + i * p.k + begin, p.b + i * p.k + end, rest + begin);
  for (int64_t e = row.first; e < row.last; ++e) {
    const T value = p.values[kPerm ? static_cast<int64_t>(p.a.perm[e]) : e];
    const T* const x = p.x + static_cast<int64_t>(p.a.col[e]) * p.k;
    for (int64_t j = begin; j < end; ++j) rest[j] -= value * x[j];
  }
  for (int64_t j = begin; j < end; ++j) rest[j] = d.divide(rest[j]);
}

// Columns begin .. end of all rows, one after the other.
template <bool kLower, bool kPerm, typename T, typename I>
void substitute(const Triangular<T, I>& p, int64_t begin, int64_t end) {
  const int64_t n = p.a.n_rows;
  for (int64_t step = 0; step < n; ++step) {
    const int64_t i = kLower ? step : n - 1 - step;
    if (p.k == 1) {
      substitute_one<kLower, kPerm>(p, i);
    } else if constexpr (kIsComplex<T>) {
      substitute_complex_row<kLower, kPerm>(p, i, begin, end);
    } else {
      substitute_row<kLower, kPerm>(p, i, begin, end);
    }
  }
}

// One right-hand side, from the transposed pattern: each unknown, once known, is taken out of the
// equations below. A transposed matrix is read in the order of its values, without a permutation.
template <bool kLower, typename T, typename I>
void substitute_by_columns(const Triangular<T, I>& transposed) {
  const Triangular<T, I>& p = transposed;
  const int64_t n = p.a.n_rows;
  std::copy_n(p.b, n, p.x);
  for (int64_t step = 0; step < n; ++step) {
    const int64_t i = kLower ? step : n - 1 - step;
    const TriangleRow column = triangle_row<!kLower>(p.a, i);
    const T known = divisor<false>(p, i, column).divide(p.x[i]);
    p.x[i] = known;
    const auto eliminate = [&](int64_t e) { p.x[p.a.col[e]] -= p.values[e] * known; };
    if constexpr (kLower) {  // the equation that is solved next comes first
      for (int64_t e = column.first; e < column.last; ++e) eliminate(e);
    } else {
      for (int64_t e = column.last - 1; e >= column.first; --e) eliminate(e);
    }
  }
}

// The level of each row of a lower triangle: 0 if its unknown depends on no other, else one more
// than the largest level among those it depends on (Anderson and Saad, Int. J. High Speed Comput.
// 1, 1989).
template <typename I>
void find_levels(const Csr<I>& a, I* level) {
  for (int64_t i = 0; i < a.n_rows; ++i) {
    const TriangleRow row = triangle_row<true>(a, i);
    I own = 0;
    for (int64_t e = row.first; e < row.last; ++e) own = std::max<I>(own, level[a.col[e]] + 1);
    level[i] = own;
  }
}

}  // namespace sparsetorch
