// Rows reduced in other semirings than (+, *), and the sums that their derivatives are made of.
//
// Entry e of row i, in column c, sends to column j of the result the message m = a_e x_cj, or
// a_e + x_cj. Messages are computed where they are needed and never stored.
#pragma once

#include <cmath>
#include <utility>

#include "csr.h"
#include "exponential.h"
#include "vector.h"

namespace sparsetorch {

template <typename T, typename I>
struct Messages {
  Csr<I> a;
  const T* values;
  const T* x;
  int64_t k;
};

template <bool kAdd, typename T, typename V>
inline V message(T value, const V& x) {
  return kAdd ? value + x : value * x;
}

// Calls tile.operator()<N>(j) for columns j .. j + N until all k are covered. What is left is
// covered by a tile that overlaps the one before.
template <typename Tile>
inline void for_each_tile(int64_t k, const Tile& tile) {
  const auto cover = [&]<int N>(std::integral_constant<int, N>) {
    int64_t j = 0;
    for (; j + N <= k; j += N) tile.template operator()<N>(j);
    if (j < k) tile.template operator()<N>(k - N);
  };
  if (k >= 16) return cover(std::integral_constant<int, 16>{});
  if (k >= 4) return cover(std::integral_constant<int, 4>{});
  cover(std::integral_constant<int, 1>{});
}

// Calls visit(e, message, m) for the entries first .. last and each vector m of N columns from j.
template <bool kAdd, int N, typename T, typename I, typename Visit>
inline void for_each_message(const Messages<T, I>& p, int64_t first, int64_t last, int64_t j,
                             const Visit& visit) {
  constexpr int kLanes = std::min(N, kWidth<T>);
  for (int64_t e = first; e < last; ++e) {
    const T value = p.values[p.a.place(e)];
    const T* const row = p.x + static_cast<int64_t>(p.a.col[e]) * p.k + j;
    const T* const soon = p.x + static_cast<int64_t>(p.a.col[std::min(e + 20, p.a.nnz - 1)]) * p.k;
    for (int m = 0; m < N / kLanes; ++m) {
      __builtin_prefetch(soon + j + m * kLanes);  // a row of x comes from anywhere
      visit(e, message<kAdd>(value, load<T, kLanes>(row + m * kLanes)), m);
    }
  }
}

// The largest or smallest message of the entries first .. last, and how many reach it. NaN wins.
template <bool kMax, bool kAdd, int N, typename T, typename I>
inline void extremum_tile(const Messages<T, I>& p, int64_t first, int64_t last, int64_t j, T* to,
                          T* count) {
  constexpr int kLanes = std::min(N, kWidth<T>), kVectors = N / kLanes;
  using V = Vec<T, kLanes>;
  const V one = V{} + 1;
  V best[kVectors], ties[kVectors] = {};
  for (V& b : best) b = V{} + (kMax ? -1 : 1) * std::numeric_limits<T>::infinity();
  for_each_message<kAdd, N>(p, first, last, j, [&](int64_t, const V& now, int m) {
    const auto take = (kMax ? now > best[m] : now < best[m]) | (now != now);
    ties[m] = take ? one : ties[m] + (now == best[m] ? one : V{});
    best[m] = take ? now : best[m];
  });
  for (int m = 0; m < kVectors; ++m) {
    store<T, kLanes>(to + j + m * kLanes, best[m]);
    store<T, kLanes>(count + j + m * kLanes, best[m] == best[m] ? ties[m] : best[m]);
  }
}

// Joins the extremum of a part of the row, and its count, to that of the rest.
template <bool kMax, typename T>
inline void join_extremum(T& best, T& count, T other, T others) {
  if (others == 0 || best != best) return;
  if (other != other || (kMax ? other > best : other < best)) {
    best = other, count = others;
  } else if (other == best) {
    count += others;
  }
}

// log sum exp of the messages of the entries first .. last; -inf where there are none. The row is
// read twice, which costs less than one more exponential of each message.
template <bool kAdd, int N, typename T, typename I>
inline void log_sum_exp_tile(const Messages<T, I>& p, int64_t first, int64_t last, int64_t j,
                             T* to) {
  constexpr int kLanes = std::min(N, kWidth<T>), kVectors = N / kLanes;
  using V = Vec<T, kLanes>;
  V largest[kVectors], sums[kVectors] = {};
  for (V& l : largest) l = V{} - std::numeric_limits<T>::infinity();
  for_each_message<kAdd, N>(p, first, last, j, [&](int64_t, const V& now, int m) {
    largest[m] = ((now > largest[m]) | (now != now)) ? now : largest[m];
  });
  for_each_message<kAdd, N>(p, first, last, j, [&](int64_t, const V& now, int m) {
    sums[m] += exponential<T, kLanes>(now - largest[m]);
  });
  for (int m = 0; m < kVectors; ++m) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const T shift = largest[m][lane];
      to[j + m * kLanes + lane] = std::isfinite(shift) ? shift + std::log(sums[m][lane]) : shift;
    }
  }
}

template <typename T>
inline T log_add_exp(T a, T b) {
  if (std::isnan(a) || std::isnan(b)) return a + b;
  const T large = std::max(a, b), small = std::min(a, b);
  return std::isfinite(large) ? large + std::log1p(std::exp(small - large)) : large;
}

// The trilinear form  L(p, q, r) = sum over entries e = (i, c) and columns j of
// w_ej p_e q_cj r_ij,  with p (nnz,), q (n_cols, k), r (n_rows, k), in which every derivative of a
// reduction y of the messages m is written; each result here is its derivative in one argument.
// Soft weights are exp(m - y_i), those of the log-sum-exp; hard ones are 1 where m = y_i, else 0.
template <typename T, typename I>
struct Contraction {
  Csr<I> a;
  const T* values;
  const T* x;
  const T* y;
  const T* entries;  // p
  const T* dense;    // q or r
  const T* other;    // r, where both are given
  int64_t k;
};

// a times the weight of a message. What a message of weight zero carries must not matter, so that
// it is skipped and not multiplied: 0 times infinity would be NaN.
template <bool kSoft, typename T, int N>
inline Vec<T, N> weighted(const Vec<T, N>& m, const Vec<T, N>& y, const Vec<T, N>& a) {
  if constexpr (kSoft) {
    const Vec<T, N> lowest = Vec<T, N>{} - std::numeric_limits<T>::infinity();
    return m == lowest ? Vec<T, N>{} : exponential<T, N>(m - y) * a;
  } else {
    return m == y ? a : Vec<T, N>{};
  }
}

// Columns j .. j + N of dL/dr of one row of the matrix, or with kTransposed, where `a` is the
// transposed pattern, of dL/dq of one column.
template <bool kTransposed, bool kSoft, bool kAdd, int N, typename T, typename I>
inline void contract_tile(const Contraction<T, I>& p, int64_t row, int64_t first, int64_t last,
                          int64_t j, T* to) {
  constexpr int kLanes = std::min(N, kWidth<T>), kVectors = N / kLanes;
  using V = Vec<T, kLanes>;
  V acc[kVectors] = {};
  for (int64_t e = first; e < last; ++e) {
    const int64_t place = p.a.place(e), col = p.a.col[e];
    const int64_t soon = p.a.col[std::min(e + 20, p.a.nnz - 1)];
    const T value = p.values[place], entry = p.entries[place];
    const T* const far = kTransposed ? p.y : p.x;
    const T* const x = p.x + (kTransposed ? row : col) * p.k + j;
    const T* const y = p.y + (kTransposed ? col : row) * p.k + j;
    const T* const d = p.dense + col * p.k + j;
    for (int m = 0; m < kVectors; ++m) {
      const int64_t at = m * kLanes;
      __builtin_prefetch(far + soon * p.k + j + at);
      __builtin_prefetch(p.dense + soon * p.k + j + at);
      const V sent = message<kAdd>(value, load<T, kLanes>(x + at));
      const V top = load<T, kLanes>(y + at), factor = load<T, kLanes>(d + at);
      if constexpr (kTransposed) {
        acc[m] += weighted<kSoft, T, kLanes>(sent, top, V{} + entry) * factor;
      } else {
        acc[m] += weighted<kSoft, T, kLanes>(sent, top, entry * factor);
      }
    }
  }
  for (int m = 0; m < kVectors; ++m) store<T, kLanes>(to + j + m * kLanes, acc[m]);
}

// dL/dp of one entry, in `row` and `col`.
template <bool kSoft, bool kAdd, typename T, typename I>
inline T contract_entry(const Contraction<T, I>& p, int64_t row, int64_t col, T value) {
  const T* const x = p.x + col * p.k;
  const T* const y = p.y + row * p.k;
  const T* const q = p.dense + col * p.k;
  const T* const r = p.other + row * p.k;
  const auto term = [&]<int N>(std::integral_constant<int, N>, int64_t j) {
    const Vec<T, N> sent = message<kAdd>(value, load<T, N>(x + j));
    return weighted<kSoft, T, N>(sent, load<T, N>(y + j), load<T, N>(q + j)) * load<T, N>(r + j);
  };
  constexpr int W = std::min(16, kWidth<T>);
  T total = 0;
  int64_t j = 0;
  if (p.k >= W) {
    Vec<T, W> sums = {};
    for (; j + W <= p.k; j += W) sums += term(std::integral_constant<int, W>{}, j);
    total = sum<T, W>(sums);
  }
  for (; j < p.k; ++j) total += term(std::integral_constant<int, 1>{}, j)[0];
  return total;
}

}  // namespace sparsetorch
