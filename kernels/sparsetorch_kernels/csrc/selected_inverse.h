// Entries of the inverse on the pattern of the Cholesky factor, by Takahashi's equations in
// supernodal form (Takahashi, Fagan and Chin 1973; Erisman and Tinney, CACM 18, 1975; Lin et al.,
// ACM TOMS 37, 2011). With L = [L11; L21] the panel of a supernode and Y = L21 L11^-1,
//
//     Z21 = -Z22 Y,    Z11 = L11^-T S L11^-1 - Y^T Z21,
//
// where S are the signs of L11's diagonal, all positive for Cholesky, and Z22, the inverse at the rows of L21, is part of the parent's front: from the roots down.
#pragma once

#include "multifrontal.h"

namespace sparsetorch {

template <typename T>
struct SelectedInverse {
  Elimination l;
  const T* panels;
  T* inverse;  // panels of Z, arranged as those of L
  T* updates;  // Z22 of each supernode, all of it, where the factorization had its update

  static int64_t scratch_size(const Supernode& p) {
    const int64_t w = padded(p.w);
    return 3 * w * p.w + padded(p.u) * p.w + w * p.u;
  }

  // Z22 of a child, from the front of its parent.
  void give(const Supernode& p, const Supernode& child) const {
    const int64_t u = child.u, ld = padded(u);
    T* const target = updates + child.update;
    for (int64_t j = 0; j < u; ++j) {
      const int64_t from = child.relative[j];
      const bool own = from < p.w;
      const T* const source = own ? inverse + p.panel + from * p.ld
                                  : updates + p.update + (from - p.w) * padded(p.u);
      const int64_t shift = own ? 0 : p.w;
      for (int64_t i = j; i < u; ++i) {
        target[j * ld + i] = target[i * ld + j] = source[child.relative[i] - shift];
      }
      std::fill_n(target + j * ld + u, ld - u, T(0));
    }
  }

  void compute(const Supernode& p, T* scratch) const {
    const int64_t w = p.w, u = p.u, rows = padded(u), wide = padded(w);
    const T* const panel = panels + p.panel;
    T* const z = inverse + p.panel;
    T* const x = scratch;              // L11^-T, (wide, w)
    T* const minus_x = x + wide * w;   // -L11^-T S, (wide, w)
    T* const z11 = minus_x + wide * w; // (wide, w)
    T* const y = z11 + wide * w;       // (rows, w)
    T* const y_t = y + rows * w;       // (wide, u)
    std::fill_n(x, 3 * wide * w, T(0));
    for (int64_t j = 0; j < w; ++j) x[j * wide + j] = T(1);
    solve_right(w, panel, p.ld, wide, x, wide, true);
    for (int64_t j = 0; j < w; ++j) {
      const T minus_sign = panel[j * (p.ld + 1)] < 0 ? T(1) : T(-1);
      for (int64_t i = j * wide; i < (j + 1) * wide; ++i) minus_x[i] = minus_sign * x[i];
    }
    for (int64_t j = 0; j < w; j += kBlock) {  // column j of L11^-1 begins in row j
      const int64_t width = std::min<int64_t>(kBlock, w - j);
      subtract_product(wide - j, width, w - j, x + j * wide + j, wide,
                       Factor<T>{minus_x + j * wide + j, wide, 1}, z11 + j * wide + j, wide);
    }
    if (u > 0) {
      for (int64_t j = 0; j < w; ++j) std::copy_n(panel + j * p.ld + w, rows, y + j * rows);
      solve_right_transposed(w, panel, p.ld, rows, y, rows);
      for (int64_t j = 0; j < w; ++j) std::fill_n(z + j * p.ld + w, rows, T(0));
      subtract_product(rows, w, u, updates + p.update, rows, Factor<T>{y, 1, rows}, z + w, p.ld);
      for (int64_t i = 0; i < u; ++i) {
        for (int64_t j = 0; j < w; ++j) y_t[i * wide + j] = y[j * rows + i];
        std::fill_n(y_t + i * wide + w, wide - w, T(0));
      }
      subtract_product(wide, w, u, y_t, wide, Factor<T>{z + w, 1, p.ld}, z11, wide, true);
    }
    for (int64_t j = 0; j < w; ++j) {
      std::fill_n(z + j * p.ld, j, T(0));
      std::copy_n(z11 + j * wide + j, w - j, z + j * p.ld + j);
    }
  }

  void visit(int64_t s, T* scratch) const {
    const Supernode p = l[s];
    compute(p, scratch);
    for (int64_t c = l.get(kChild, s); c != -1; c = l.get(kSibling, c)) give(p, l[c]);
  }

  // scratch_at[task + 1] is where the scratch of a task begins, [0] that of the top.
  void run(int64_t tasks, const int64_t* bounds, T* scratch, const Longs& scratch_at) const {
    for (int64_t s = l.count - 1; s >= 0; --s) {
      if (l.get(kTask, s) == -1) visit(s, scratch + scratch_at[0]);
    }
    run_tasks(tasks, [&](int64_t task) {
      for (int64_t s = bounds[2 * task + 1] - 1; s >= bounds[2 * task]; --s) {
        visit(s, scratch + scratch_at[task + 1]);
      }
    });
  }
};

}  // namespace sparsetorch
