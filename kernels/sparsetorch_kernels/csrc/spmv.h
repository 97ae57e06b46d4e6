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
template <bool kPerm, typename T, typename I>
inline T dot_part(const Csr<I>& a, const T* values, const T* x, int64_t first, int64_t last) {
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

// One piece of the work, as `spmm_piece`. Terms are the outer loop: the piece stays in cache.
template <bool kPerm, typename T, typename I>
void spmv_piece(const Spmm<T, I>& p, const Cut& from, const Cut& to, T* out, T* carry) {
  for (int64_t term = 0; term < p.terms; ++term) {
    const T* const values = p.values + term * p.values_step;
    const T* const x = p.x + term * p.x_step;
    for_each_row_part(p.a, from, to, [&](int64_t row, int64_t first, int64_t last) {
      T& target = first == p.a.crow[row] ? out[row] : *carry;
      const T part = dot_part<kPerm>(p.a, values, x, first, last);
      target = term == 0 ? part : target + part;
    });
  }
}

}  // namespace sparsetorch
