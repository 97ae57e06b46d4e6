// Sparse times sparse on a known pattern: the values of C = A B at the entries of c.
//
// Row i of C is computed in the cheaper of two ways. Scaled rows (Gustavson, ACM TOMS 4, 1978)
// adds a_ik times row k of B into row i; it suits a full product. Dots multiplies row i of A with
// column j of B for each wanted (i, j); it suits a sparse mask, as in the gradient of a product.
// Rows belong to one thread each: no hashing, no atomics, a fixed order of summation.
#pragma once

#include <bit>

#include "csr.h"

namespace sparsetorch {

template <typename T, typename I, typename P>
struct Spgemm {
  Csr<I, P> a, b, b_transposed, c;
  const T* a_values;
  const T* b_values;
  int64_t terms;  // the sum of so many products, whose operands lie this far apart:
  int64_t a_step;
  int64_t b_step;
};

// Scratch of one thread. `sums` has a place for every column of C and needs no cleaning: a row
// clears the places that it wants, and what other places have gathered is never read. `dense` has
// one for every column of A and is zero between rows, and so has `marked`.
template <typename T>
struct SpgemmScratch {
  T* sums;
  T* dense;
  bool* marked;
};

// Steps of a binary search among n.
inline int64_t bits(int64_t n) { return std::bit_width(static_cast<uint64_t>(n)); }

// A row of B that is much longer than the wanted row is searched, not scanned.
inline bool search_is_cheaper(int64_t wanted, int64_t length) {
  return wanted * bits(length) * 2 < length;
}

template <typename T, typename I, typename P>
int64_t scaled_rows_cost(const Spgemm<T, I, P>& p, int64_t row) {
  const int64_t wanted = p.c.crow[row + 1] - p.c.crow[row];
  int64_t cost = 2 * wanted;
  for (int64_t e = p.a.crow[row]; e < p.a.crow[row + 1]; ++e) {
    const int64_t length = p.b.crow[p.a.col[e] + 1] - p.b.crow[p.a.col[e]];
    cost += 1 + (search_is_cheaper(wanted, length) ? wanted * bits(length) * 2 : length);
  }
  return cost;
}

template <typename T, typename I, typename P>
int64_t dots_cost(const Spgemm<T, I, P>& p, int64_t row) {
  int64_t cost = 2 * (p.a.crow[row + 1] - p.a.crow[row]);
  for (int64_t e = p.c.crow[row]; e < p.c.crow[row + 1]; ++e) {
    const int64_t col = p.c.col[e];
    cost += 1 + p.b_transposed.crow[col + 1] - p.b_transposed.crow[col];
  }
  return cost;
}

// A row's cost, negative where dots are the cheaper way.
template <typename T, typename I, typename P>
int64_t signed_cost(const Spgemm<T, I, P>& p, int64_t row) {
  const int64_t scaled = scaled_rows_cost(p, row);
  const int64_t operands = p.a.crow[row + 1] - p.a.crow[row] + p.c.crow[row + 1] - p.c.crow[row];
  // Dots cost about as much as the row's operands at least: here they cannot gain much.
  if (scaled < 4 * operands) return scaled;
  const int64_t dots = dots_cost(p, row);
  return dots < scaled ? -dots : scaled;
}

template <typename T, typename I, typename P>
void scaled_rows(const Spgemm<T, I, P>& p, int64_t row, const SpgemmScratch<T>& scratch, T* out) {
  const int64_t begin = p.c.crow[row], end = p.c.crow[row + 1];
  const I* const wanted = p.c.col;
  T* const sums = scratch.sums;
  for (int64_t g = begin; g < end; ++g) sums[wanted[g]] = 0;
  for (int64_t term = 0; term < p.terms; ++term) {
    const T* a_values = p.a_values + term * p.a_step;
    const T* b_values = p.b_values + term * p.b_step;
    for (int64_t e = p.a.crow[row]; e < p.a.crow[row + 1]; ++e) {
      const T scale = a_values[p.a.place(e)];
      const int64_t first = p.b.crow[p.a.col[e]], last = p.b.crow[p.a.col[e] + 1];
      if (search_is_cheaper(end - begin, last - first)) {
        const I* from = p.b.col + first;
        const I* const stop = p.b.col + last;
        for (int64_t g = begin; g < end && from != stop; ++g) {
          from = std::lower_bound(from, stop, wanted[g]);
          if (from != stop && *from == wanted[g]) {
            sums[wanted[g]] += scale * b_values[p.b.place(from - p.b.col)];
          }
        }
      } else {
        for (int64_t f = first; f < last; ++f) {
          sums[p.b.col[f]] += scale * b_values[p.b.place(f)];
        }
      }
    }
  }
  for (int64_t g = begin; g < end; ++g) out[p.c.place(g)] = sums[wanted[g]];
}

template <typename T, typename I, typename P>
void dots(const Spgemm<T, I, P>& p, int64_t row, const SpgemmScratch<T>& scratch, T* out) {
  const int64_t begin = p.a.crow[row], end = p.a.crow[row + 1];
  for (int64_t e = begin; e < end; ++e) scratch.marked[p.a.col[e]] = true;
  for (int64_t term = 0; term < p.terms; ++term) {
    const T* a_values = p.a_values + term * p.a_step;
    const T* b_values = p.b_values + term * p.b_step;
    for (int64_t e = begin; e < end; ++e) {
      scratch.dense[p.a.col[e]] = a_values[p.a.place(e)];
    }
    for (int64_t g = p.c.crow[row]; g < p.c.crow[row + 1]; ++g) {
      const int64_t col = p.c.col[g];
      T total = 0;
      for (int64_t f = p.b_transposed.crow[col]; f < p.b_transposed.crow[col + 1]; ++f) {
        const I k = p.b_transposed.col[f];
        // A place without an entry is skipped, not multiplied: 0 times infinity would be NaN.
        if (scratch.marked[k]) total += scratch.dense[k] * b_values[p.b_transposed.place(f)];
      }
      T& target = out[p.c.place(g)];
      target = term == 0 ? total : target + total;
    }
  }
  for (int64_t e = begin; e < end; ++e) scratch.marked[p.a.col[e]] = false;
}

// Rows begin .. end of one result; `cost` holds each row's signed cost.
template <typename T, typename I, typename P>
void spgemm_rows(const Spgemm<T, I, P>& p, int64_t begin, int64_t end, const int64_t* cost,
                 const SpgemmScratch<T>& scratch, T* out) {
  for (int64_t row = begin; row < end; ++row) {
    (cost[row] < 0 ? dots<T, I, P> : scaled_rows<T, I, P>)(p, row, scratch, out);
  }
}

}  // namespace sparsetorch
