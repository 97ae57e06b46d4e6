// The numeric half of a sparse Cholesky or signed (L S L^T) factorization, by fronts (Duff and Reid, ACM TOMS 9, 1983;
// Liu, SIAM Review 34, 1992), and solves with it.
#pragma once

#include <limits>
#include <vector>

#include "dense.h"
#include "elimination.h"

namespace sparsetorch {

template <typename T>
struct Factorization {
  Elimination l;
  const int64_t* crow;
  const int64_t* place;
  const T* values;
  T* panels;
  T* updates;
  T* floors;  // (n,) the smallest pivots that rounding leaves a sign
  bool indefinite;  // L S L^T, S the signs of L's diagonal, else L L^T

  // The front of a supernode: the panel with the entries of the matrix, and an update of zeros.
  void start(const Supernode& p) const {
    T* const panel = panels + p.panel;
    std::fill_n(panel, p.w * p.ld, T(0));
    std::fill_n(updates + p.update, p.u * padded(p.u), T(0));
    for (int64_t j = 0; j < p.w; ++j) {
      const int64_t row = l.order[p.first + j];
      for (int64_t e = crow[row]; e < crow[row + 1]; ++e) {
        if (place[e] >= 0) panels[place[e]] = values[e];
      }
      floors[p.first + j] = std::numeric_limits<T>::epsilon() * magnitude(row, panel[j * p.ld + j]);
    }
  }

  // What a pivot is compared with: its entry or, where that may vanish, the largest of its row.
  T magnitude(int64_t row, T diagonal) const {
    T largest = std::abs(diagonal);
    if (!indefinite) return largest;
    for (int64_t e = crow[row]; e < crow[row + 1]; ++e) {
      largest = std::max(largest, std::abs(values[e]));
    }
    return largest;
  }

  // Adds the update of a child.
  void take(const Supernode& p, const Supernode& child) const {
    const int64_t u = child.u;
    for (int64_t j = 0; j < u; ++j) {
      const int64_t to = child.relative[j];
      T* const target = to < p.w ? panels + p.panel + to * p.ld
                                 : updates + p.update + (to - p.w) * padded(p.u);
      const int64_t* const rows = child.relative;
      const T* const source = updates + child.update + j * padded(u);
      // In an update's column the first row is that of the diagonal block's end.
      const int64_t shift = to < p.w ? 0 : p.w;
      if (rows[u - 1] - to == u - 1 - j) {
        add_scaled(u - j, T(1), source + j, target + to - shift);
      } else {
        for (int64_t i = j; i < u; ++i) target[rows[i] - shift] += source[i];
      }
    }
  }

  // Returns the column whose pivot is not above its floor, or -1. `scratch` grows as needed.
  int64_t eliminate(int64_t s, std::vector<T>& scratch) const {
    const Supernode p = l[s];
    start(p);
    for (int64_t c = l.get(kChild, s); c != -1; c = l.get(kSibling, c)) take(p, l[c]);
    T* const panel = panels + p.panel;
    T* signed_panel = panel;
    if (indefinite) {
      scratch.resize(std::max<size_t>(scratch.size(), p.w * p.ld));
      signed_panel = scratch.data();
    }
    const int64_t good = factor_panel(p.w, panel, p.ld, floors + p.first, signed_panel);
    if (good < p.w) return p.first + good;
    const int64_t rows = padded(p.u);
    subtract_product(rows, p.u, p.w, panel + p.w, p.ld, Factor<T>{signed_panel + p.w, p.ld, 1},
                     updates + p.update, rows, true);
    return -1;
  }

  // Eliminates all; the same of the first task that fails.
  int64_t run(int64_t tasks, const int64_t* bounds, const Longs& failed) const {
    run_tasks(tasks, [&](int64_t task) {
      failed[task] = -1;
      std::vector<T> scratch;
      for (int64_t s = bounds[2 * task]; s < bounds[2 * task + 1] && failed[task] == -1; ++s) {
        failed[task] = eliminate(s, scratch);
      }
    });
    for (int64_t task = 0; task < tasks; ++task) {
      if (failed[task] != -1) return failed[task];
    }
    std::vector<T> scratch;
    for (int64_t s = 0; s < l.count; ++s) {
      if (l.get(kTask, s) != -1) continue;
      const int64_t column = eliminate(s, scratch);
      if (column != -1) return column;
    }
    return -1;
  }
};

// Solves with the factor for some right-hand sides: x (k, n) column-major, in the order of
// elimination, overwritten. k is a multiple of 4.
template <typename T>
struct Substitution {
  Elimination l;
  const T* panels;
  T* x;
  int64_t k;

  void forward(T* gathered) const {
    for (int64_t s = 0; s < l.count; ++s) {
      const Supernode p = l[s];
      const T* const panel = panels + p.panel;
      T* const own = x + p.first * k;
      solve_right(p.w, panel, p.ld, k, own, k);
      std::fill_n(gathered, k * p.u, T(0));
      subtract_product(k, p.u, p.w, own, k, Factor<T>{panel + p.w, p.ld, 1}, gathered, k);
      for (int64_t i = 0; i < p.u; ++i) add_scaled(k, T(1), gathered + i * k, x + p.rows[i] * k);
    }
  }

  // Between the two halves: L S L^T x = b.
  void apply_signs() const {
    for (int64_t s = 0; s < l.count; ++s) {
      const Supernode p = l[s];
      for (int64_t j = 0; j < p.w; ++j) {
        if (!(panels[p.panel + j * (p.ld + 1)] < 0)) continue;
        T* const row = x + (p.first + j) * k;
        for (int64_t i = 0; i < k; ++i) row[i] = -row[i];
      }
    }
  }

  void backward(int64_t s, T* gathered) const {
    const Supernode p = l[s];
    const T* const panel = panels + p.panel;
    T* const own = x + p.first * k;
    for (int64_t i = 0; i < p.u; ++i) std::copy_n(x + p.rows[i] * k, k, gathered + i * k);
    subtract_product(k, p.w, p.u, gathered, k, Factor<T>{panel + p.w, 1, p.ld}, own, k);
    solve_right_transposed(p.w, panel, p.ld, k, own, k);
  }

  // gathered: room for the rows of the longest front, once for each task and once more.
  void backward(int64_t tasks, const int64_t* bounds, T* gathered, int64_t room) const {
    for (int64_t s = l.count - 1; s >= 0; --s) {
      if (l.get(kTask, s) == -1) backward(s, gathered);
    }
    run_tasks(tasks, [&](int64_t task) {
      for (int64_t s = bounds[2 * task + 1] - 1; s >= bounds[2 * task]; --s) {
        backward(s, gathered + (task + 1) * room);
      }
    });
  }
};

// So many right-hand sides are solved for together: what is read of a panel serves them all.
inline constexpr int64_t kColumns = 32;

// Columns first .. first + kColumns of x with A x = b, (n, k) row-major.
template <typename T>
void solve_columns(const Elimination& l, int64_t tasks, const int64_t* bounds, const T* panels,
                   const T* b, int64_t k, int64_t first, T* work, T* gathered, int64_t room, T* x) {
  const int64_t columns = std::min(kColumns, k - first), wide = padded(columns);
  for (int64_t i = 0; i < l.n; ++i) {
    T* const row = work + i * wide;
    std::copy_n(b + l.order[i] * k + first, columns, row);
    std::fill_n(row + columns, wide - columns, T(0));
  }
  const Substitution<T> run{l, panels, work, wide};
  run.forward(gathered);
  run.apply_signs();
  run.backward(tasks, bounds, gathered, room);
  for (int64_t i = 0; i < l.n; ++i) {
    std::copy_n(work + i * wide, columns, x + l.order[i] * k + first);
  }
}

}  // namespace sparsetorch
