// Sparse times vector: y = A x with one column.
#pragma once

#include "spmm.h"

namespace sparsetorch {

// The hardware prefetcher alone leaves half of the memory bandwidth unused here: short rows reach
// the end of a page too slowly. An address beyond the array is allowed: a prefetch never faults.
template <typename P>
inline void prefetch(const P* base, int64_t element) {
  constexpr int64_t kAhead = 1024;
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(base) +
                                                   (element + kAhead) * sizeof(P)));
}

// Sum over the entries first .. last of values * x[col].
template <bool kPerm, typename T, typename I, typename P>
inline T dot_part(const Csr<I, P>& a, const T* values, const T* x, int64_t first, int64_t last) {
  const I* const col = a.col;
  const auto value = [&](int64_t e) { return values[kPerm ? static_cast<int64_t>(a.perm[e]) : e]; };
  const auto prefetch_at = [&](int64_t e) {
    prefetch(col, e);
    kPerm ? prefetch(a.perm, e) : prefetch(values, e);
  };
  T total = 0;
  int64_t e = first;
  if (last - first < 16) {
    prefetch_at(e);
  } else {  // enough independent sums to hide the latency of an addition
    T sums[8] = {};
    for (; e + 8 <= last; e += 8) {
      prefetch_at(e);
      for (int j = 0; j < 8; ++j) sums[j] += value(e + j) * x[col[e + j]];
    }
    for (int j = 0; j < 8; ++j) total += sums[j];
  }
  for (; e < last; ++e) total += value(e) * x[col[e]];
  return total;
}

// One piece of the work, as `spmm_piece`. Terms are the outer loop: the piece stays in cache. Only
// the first and the last row can be parts; to ask that of every row is a tenth of the time.
template <bool kPerm, typename T, typename I, typename P>
void spmv_piece(const Spmm<T, I, P>& p, const Cut& from, const Cut& to, T* out, T* carry) {
  const P* const crow = p.a.crow;
  for (int64_t term = 0; term < p.terms; ++term) {
    const T* const values = p.values + term * p.values_step;
    const T* const x = p.x + term * p.x_step;
    const auto dot = [&](int64_t first, int64_t last) {
      return dot_part<kPerm>(p.a, values, x, first, last);
    };
    const auto add = [&](T& target, T part) { target = term == 0 ? part : target + part; };
    int64_t row = from.row, first = from.entry;
    if (row < to.row && first > crow[row]) {  // the end of a row that began earlier
      add(*carry, dot(first, crow[row + 1]));
      first = crow[++row];
    }
    for (; row < to.row; ++row) {
      const int64_t last = crow[row + 1];
      add(out[row], dot(first, last));
      first = last;
    }
    if (first < to.entry) add(first > crow[row] ? *carry : out[row], dot(first, to.entry));
  }
}

}  // namespace sparsetorch
