// Sparse times sparse on a known pattern: the values of C = A B at the entries of c.
//
// Row i of C is computed in the cheaper of two ways. Scaled rows (Gustavson, ACM TOMS 4, 1978)
// adds a_ik times row k of B into row i; it suits a full product. Dots multiplies row i of A with
// column j of B for each wanted (i, j); it suits a sparse mask, as in the gradient of a product.
// Both look up columns through `place`, an array over all columns that holds -1 where there is
// nothing. Rows belong to one thread each: no hashing, no atomics, a fixed order of summation.
#pragma once

#include "csr.h"

namespace sparsetorch {

template <typename T, typename I>
struct Spgemm {
  Csr<I> a, b, b_transposed, c;
  const T* a_values;
  const T* b_values;
  int64_t terms;  // the sum of so many products, whose operands lie this far apart:
  int64_t a_step;
  int64_t b_step;
};

// Scratch of one thread; `place` is all -1 between rows.
template <typename T, typename I>
struct SpgemmScratch {
  I* place;  // max(columns of A, columns of B)
  T* row;    // longest row of c
};

inline int64_t bits(int64_t n) {
  int64_t count = 1;
  while (n >>= 1) ++count;
  return count;
}

// A row of B that is much longer than the wanted row is searched, not scanned.
inline bool search_is_cheaper(int64_t wanted, int64_t length) {
  return wanted * bits(length) * 2 < length;
}

template <typename T, typename I>
int64_t scaled_rows_cost(const Spgemm<T, I>& p, int64_t row) {
  const int64_t wanted = p.c.crow[row + 1] - p.c.crow[row];
  int64_t cost = 2 * wanted;
  for (int64_t e = p.a.crow[row]; e < p.a.crow[row + 1]; ++e) {
    const int64_t length = p.b.crow[p.a.col[e] + 1] - p.b.crow[p.a.col[e]];
    cost += 1 + (search_is_cheaper(wanted, length) ? wanted * bits(length) * 2 : length);
  }
  return cost;
}

template <typename T, typename I>
int64_t dots_cost(const Spgemm<T, I>& p, int64_t row) {
  int64_t cost = 2 * (p.a.crow[row + 1] - p.a.crow[row]);
  for (int64_t e = p.c.crow[row]; e < p.c.crow[row + 1]; ++e) {
    const int64_t col = p.c.col[e];
    cost += 1 + p.b_transposed.crow[col + 1] - p.b_transposed.crow[col];
  }
  return cost;
}

// A row's cost, negative where dots are the cheaper way.
template <typename T, typename I>
int64_t signed_cost(const Spgemm<T, I>& p, int64_t row) {
  const int64_t scaled = scaled_rows_cost(p, row), dots = dots_cost(p, row);
  return dots < scaled ? -dots : scaled;
}

template <typename T, typename I>
void scaled_rows(const Spgemm<T, I>& p, int64_t row, const SpgemmScratch<T, I>& scratch) {
  const I* wanted = p.c.col + p.c.crow[row];
  const int64_t n_wanted = p.c.crow[row + 1] - p.c.crow[row];
  I* place = scratch.place;
  T* sums = scratch.row;
  for (int64_t j = 0; j < n_wanted; ++j) {
    place[wanted[j]] = static_cast<I>(j);
    sums[j] = 0;
  }
  for (int64_t term = 0; term < p.terms; ++term) {
    const T* a_values = p.a_values + term * p.a_step;
    const T* b_values = p.b_values + term * p.b_step;
    for (int64_t e = p.a.crow[row]; e < p.a.crow[row + 1]; ++e) {
      const T scale = a_values[p.a.place(e)];
      const int64_t first = p.b.crow[p.a.col[e]], last = p.b.crow[p.a.col[e] + 1];
      if (search_is_cheaper(n_wanted, last - first)) {
        const I* from = p.b.col + first;
        const I* const end = p.b.col + last;
        for (int64_t j = 0; j < n_wanted && from != end; ++j) {
          from = std::lower_bound(from, end, wanted[j]);
          if (from != end && *from == wanted[j]) {
            sums[j] += scale * b_values[p.b.place(from - p.b.col)];
          }
        }
      } else {
        for (int64_t f = first; f < last; ++f) {
          const I j = place[p.b.col[f]];
          if (j >= 0) sums[j] += scale * b_values[p.b.place(f)];
        }
      }
    }
  }
  for (int64_t j = 0; j < n_wanted; ++j) place[wanted[j]] = -1;
}

template <typename T, typename I>
void dots(const Spgemm<T, I>& p, int64_t row, const SpgemmScratch<T, I>& scratch) {
  const int64_t begin = p.a.crow[row], end = p.a.crow[row + 1], c_begin = p.c.crow[row];
  I* place = scratch.place;
  for (int64_t e = begin; e < end; ++e) place[p.a.col[e]] = static_cast<I>(e - begin);
  for (int64_t g = c_begin; g < p.c.crow[row + 1]; ++g) {
    T total = 0;
    const int64_t col = p.c.col[g];
    for (int64_t term = 0; term < p.terms; ++term) {
      const T* a_values = p.a_values + term * p.a_step;
      const T* b_values = p.b_values + term * p.b_step;
      for (int64_t f = p.b_transposed.crow[col]; f < p.b_transposed.crow[col + 1]; ++f) {
        const I e = place[p.b_transposed.col[f]];
        if (e >= 0) total += a_values[p.a.place(begin + e)] * b_values[p.b_transposed.place(f)];
      }
    }
    scratch.row[g - c_begin] = total;
  }
  for (int64_t e = begin; e < end; ++e) place[p.a.col[e]] = -1;
}

// Rows begin .. end of one result; `cost` holds each row's signed cost.
template <typename T, typename I>
void spgemm_rows(const Spgemm<T, I>& p, int64_t begin, int64_t end, const int64_t* cost,
                 const SpgemmScratch<T, I>& scratch, T* out) {
  for (int64_t row = begin; row < end; ++row) {
    (cost[row] < 0 ? dots<T, I> : scaled_rows<T, I>)(p, row, scratch);
    const int64_t first = p.c.crow[row], last = p.c.crow[row + 1];
    for (int64_t e = first; e < last; ++e) out[p.c.place(e)] = scratch.row[e - first];
  }
}

}  // namespace sparsetorch
