// Products and triangular solves of small dense blocks, column-major, in registers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "tasks.h"
#include "vector.h"

namespace sparsetorch {

// Rows come in strips of this many, and storage is padded to it.
inline int64_t padded(int64_t rows) { return (rows + 3) / 4 * 4; }

// Calls f with `count`, 1 to kBlock, as a constant.
inline constexpr int kBlock = 8;
template <typename F>
inline void with_constant(int64_t count, F&& f) {
  switch (count) {
    case 1: return f(std::integral_constant<int, 1>{});
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
    case 4: return f(std::integral_constant<int, 4>{});
    case 5: return f(std::integral_constant<int, 5>{});
    case 6: return f(std::integral_constant<int, 6>{});
    case 7: return f(std::integral_constant<int, 7>{});
    default: return f(std::integral_constant<int, kBlock>{});
  }
}

// The second factor of a product: entry (k, j) is at data[k * step_k + j * step_j].
template <typename T>
struct Factor {
  const T* data;
  int64_t step_k, step_j;

  Factor at(int64_t k, int64_t j) const { return {data + k * step_k + j * step_j, step_k, step_j}; }
};

// c -= a b for N * M rows and C columns.
template <int N, int M, int C, typename T>
inline void subtract_tile(int64_t depth, const T* a, int64_t lda, const Factor<T>& b, T* c,
                          int64_t ldc) {
  Vec<T, N> sums[C][M];
  for (int j = 0; j < C; ++j) {
    for (int m = 0; m < M; ++m) sums[j][m] = load<T, N>(c + j * ldc + m * N);
  }
  const T* right = b.data;
  for (int64_t k = 0; k < depth; ++k, a += lda, right += b.step_k) {
    Vec<T, N> left[M];
    for (int m = 0; m < M; ++m) left[m] = load<T, N>(a + m * N);
    for (int j = 0; j < C; ++j) {
      const T factor = right[j * b.step_j];
      for (int m = 0; m < M; ++m) sums[j][m] -= left[m] * factor;
    }
  }
  for (int j = 0; j < C; ++j) {
    for (int m = 0; m < M; ++m) store<T, N>(c + j * ldc + m * N, sums[j][m]);
  }
}

// c -= a b for C columns; the number of rows is a multiple of 4.
template <int C, typename T>
inline void subtract_columns(int64_t rows, int64_t depth, const T* a, int64_t lda,
                             const Factor<T>& b, T* c, int64_t ldc) {
  constexpr int W = kWidth<T>;
  int64_t i = 0;
  for (; rows - i >= 2 * W; i += 2 * W) {
    subtract_tile<W, 2, C>(depth, a + i, lda, b, c + i, ldc);
  }
  if (rows - i >= W) subtract_tile<W, 1, C>(depth, a + i, lda, b, c + i, ldc), i += W;
  if constexpr (W > 8) {
    if (rows - i >= 8) subtract_tile<8, 1, C>(depth, a + i, lda, b, c + i, ldc), i += 8;
  }
  if (rows - i >= 4) subtract_tile<4, 1, C>(depth, a + i, lda, b, c + i, ldc);
}

// c -= a b: a (rows, depth), b (depth, cols). rows is a multiple of 4. With `lower`, what lies above
// the diagonal of c may be left as it is or become anything. Large products use all threads; the
// order of each sum does not depend on their number.
template <typename T>
inline void subtract_product(int64_t rows, int64_t cols, int64_t depth, const T* a, int64_t lda,
                             const Factor<T>& b, T* c, int64_t ldc, bool lower = false) {
  // A block of a stays in the second-level cache, a strip of b in the first.
  constexpr int64_t kRows = 128, kDepth = 256, kWorthTasks = 1 << 24;
  const auto block = [&](int64_t first, int64_t last) {
    const int64_t end = lower ? std::min(cols, last) : cols;
    for (int64_t k = 0; k < depth; k += kDepth) {
      const int64_t part = std::min(kDepth, depth - k);
      for (int64_t j = 0; j < end; j += kBlock) {
        const int64_t i = lower ? std::max(first, j) : first;
        with_constant(std::min<int64_t>(kBlock, end - j), [&]<int C>(std::integral_constant<int, C>) {
          subtract_columns<C>(last - i, part, a + i + k * lda, lda, b.at(k, j), c + i + j * ldc, ldc);
        });
      }
    }
  };
  const int64_t blocks = (rows + kRows - 1) / kRows;
  if (blocks < 4 || rows * cols * depth < kWorthTasks) {
    for (int64_t i = 0; i < rows; i += kRows) block(i, std::min(rows, i + kRows));
  } else {  // the last rows of a triangle are the longest
    run_tasks(blocks, [&](int64_t task) {
      const int64_t i = (blocks - 1 - task) * kRows;
      block(i, std::min(rows, i + kRows));
    });
  }
}

// Calls f(lanes, i) for rows first .. last in pieces as wide as a register, then narrower ones.
template <typename T, typename F>
inline void for_each_strip(int64_t first, int64_t last, F&& f) {
  constexpr int W = kWidth<T>;
  int64_t i = first;
  for (; last - i >= W; i += W) f(std::integral_constant<int, W>{}, i);
  if constexpr (W > 8) {
    if (last - i >= 8) f(std::integral_constant<int, 8>{}, i), i += 8;
  }
  if (last - i >= 4) f(std::integral_constant<int, 4>{}, i), i += 4;
  if (last - i >= 2) f(std::integral_constant<int, 2>{}, i), i += 2;
  if (last - i >= 1) f(std::integral_constant<int, 1>{}, i);
}

// y += scale x.
template <typename T>
inline void add_scaled(int64_t n, T scale, const T* x, T* y) {
  for_each_strip<T>(0, n, [&]<int N>(std::integral_constant<int, N>, int64_t i) {
    store<T, N>(y + i, load<T, N>(y + i) + load<T, N>(x + i) * scale);
  });
}

// Columns of a lower triangular block of B columns: x := x L^-T for `rows` rows of x.
template <int B, typename T>
inline void solve_rows(const T* l, int64_t ldl, int64_t rows, T* x, int64_t ldx) {
  T inverse[B];
  for (int j = 0; j < B; ++j) inverse[j] = T(1) / l[j * ldl + j];
  for_each_strip<T>(0, rows, [&]<int N>(std::integral_constant<int, N>, int64_t i) {
    Vec<T, N> v[B];
    for (int j = 0; j < B; ++j) v[j] = load<T, N>(x + i + j * ldx);
    for (int j = 0; j < B; ++j) {
      v[j] *= inverse[j];
      for (int k = j + 1; k < B; ++k) v[k] -= v[j] * l[j * ldl + k];
    }
    for (int j = 0; j < B; ++j) store<T, N>(x + i + j * ldx, v[j]);
  });
}

// The same with the triangle itself: x := x L^-1.
template <int B, typename T>
inline void solve_rows_transposed(const T* l, int64_t ldl, int64_t rows, T* x, int64_t ldx) {
  T inverse[B];
  for (int j = 0; j < B; ++j) inverse[j] = T(1) / l[j * ldl + j];
  for_each_strip<T>(0, rows, [&]<int N>(std::integral_constant<int, N>, int64_t i) {
    Vec<T, N> v[B];
    for (int j = 0; j < B; ++j) v[j] = load<T, N>(x + i + j * ldx);
    for (int j = B - 1; j >= 0; --j) {
      for (int k = j + 1; k < B; ++k) v[j] -= v[k] * l[j * ldl + k];
      v[j] *= inverse[j];
    }
    for (int j = 0; j < B; ++j) store<T, N>(x + i + j * ldx, v[j]);
  });
}

// x := x L^-T for a lower triangle of w columns; the number of rows of x is a multiple of 4. An
// `upper` triangular x stays so, and what is below its diagonal is not touched.
template <typename T>
inline void solve_right(int64_t w, const T* l, int64_t ld, int64_t all, T* x, int64_t ldx,
                        bool upper = false) {
  for (int64_t j = 0; j < w; j += kBlock) {
    const int64_t width = std::min<int64_t>(kBlock, w - j);
    const int64_t rows = upper ? std::min(all, padded(j + width)) : all;
    subtract_product(rows, width, j, x, ldx, Factor<T>{l + j, ld, 1}, x + j * ldx, ldx);
    with_constant(width, [&]<int B>(std::integral_constant<int, B>) {
      solve_rows<B>(l + j * ld + j, ld, rows, x + j * ldx, ldx);
    });
  }
}

// x := x L^-1, likewise.
template <typename T>
inline void solve_right_transposed(int64_t w, const T* l, int64_t ld, int64_t rows, T* x,
                                   int64_t ldx) {
  for (int64_t j = (w - 1) / kBlock * kBlock; j >= 0; j -= kBlock) {
    const int64_t width = std::min<int64_t>(kBlock, w - j), after = j + width;
    subtract_product(rows, width, w - after, x + after * ldx, ldx,
                     Factor<T>{l + j * ld + after, 1, ld}, x + j * ldx, ldx);
    with_constant(width, [&]<int B>(std::integral_constant<int, B>) {
      solve_rows_transposed<B>(l + j * ld + j, ld, rows, x + j * ldx, ldx);
    });
  }
}

// L with A = L L^T for a block of B columns, or, `indefinite`, with A = L S L^T, S holding the signs
// of L's diagonal. Returns the first column whose pivot is not above its floor (in magnitude, if
// indefinite), or B; that pivot is then left on the diagonal.
template <int B, typename T>
inline int factor_block(T* l, int64_t ld, const T* floor, bool indefinite) {
  for (int j = 0; j < B; ++j) {
    const T pivot = l[j * ld + j];
    const bool negative = indefinite && pivot < 0;
    const T size = negative ? -pivot : pivot;
    if (!(size > floor[j])) return j;
    const T root = std::sqrt(size), inverse = T(1) / root;
    l[j * ld + j] = negative ? -root : root;
    for (int i = j + 1; i < B; ++i) l[j * ld + i] *= inverse;
    for (int k = j + 1; k < B; ++k) {
      const T factor = negative ? -l[j * ld + k] : l[j * ld + k];
      for (int i = k; i < B; ++i) l[k * ld + i] -= l[j * ld + i] * factor;
    }
  }
  return B;
}

// The rows first .. last of columns j .. j + width times the signs of the diagonal: negated in l,
// where the solve with L^T has left them without, and with both signs in `signed_l`.
template <typename T>
inline void apply_signs(int64_t j, int64_t width, int64_t ld, T* l, T* signed_l) {
  const int64_t end = j + width;
  for (int64_t k = j; k < end; ++k) {
    T* const column = l + k * ld;
    T* const copy = signed_l + k * ld;
    if (column[k] < 0) {
      for (int64_t i = end; i < ld; ++i) copy[i] = column[i];
      for (int64_t i = end; i < ld; ++i) column[i] = -column[i];
    } else {
      std::copy_n(column + end, ld - end, copy + end);
    }
  }
}

// A panel of w columns and ld rows, ld >= w: the factor of its diagonal block, as `factor_block`
// finds it, and the rows below times the inverse transpose (and S). Returns w, or the first column
// whose pivot is not above its floor. An indefinite one needs room for `signed_l`, which gets L S
// below each block of the diagonal; of a definite one that is L itself.
template <typename T>
inline int64_t factor_panel(int64_t w, T* l, int64_t ld, const T* floor, T* signed_l) {
  const bool indefinite = signed_l != l;
  for (int64_t k = 0; k < w; k += kBlock) {
    const int64_t width = std::min<int64_t>(kBlock, w - k);
    if (k > 0) {  // rows above the diagonal are computed too, to make whole strips
      const int64_t first = ld - padded(ld - k);
      subtract_product(ld - first, width, k, l + first, ld, Factor<T>{signed_l + k, ld, 1},
                       l + k * ld + first, ld);
    }
    int64_t failed = w;
    with_constant(width, [&]<int B>(std::integral_constant<int, B>) {
      T* const block = l + k * ld + k;
      const int good = factor_block<B>(block, ld, floor + k, indefinite);
      if (good < B) {
        failed = k + good;
      } else {
        solve_rows<B>(block, ld, ld - k - B, block + B, ld);
      }
    });
    if (failed < w) return failed;
    if (indefinite) apply_signs(k, width, ld, l, signed_l);
  }
  return w;
}

}  // namespace sparsetorch
