// The symbolic half of a sparse Cholesky factorization: elimination tree, column counts, supernodes,
// the rows of each front, and where every entry of the matrix goes.
#pragma once

#include <algorithm>
#include <cstdint>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "dense.h"

namespace sparsetorch {

// An array of int64 that is a tensor.
struct Longs {
  torch::stable::Tensor tensor;
  int64_t* data;

  explicit Longs(int64_t size)
      : tensor(torch::stable::empty({size}, torch::headeronly::ScalarType::Long)),
        data(tensor.mutable_data_ptr<int64_t>()) {}
  Longs(int64_t size, int64_t value) : Longs(size) { std::fill_n(data, size, value); }

  int64_t& operator[](int64_t i) const { return data[i]; }
};

// The pattern of a symmetric matrix, both triangles; mirror[e] is the entry (j, i) of e = (i, j).
struct SymmetricPattern {
  int64_t n;
  const int64_t* crow;
  const int64_t* col;
  const int64_t* mirror;
};

// What is known of each supernode: a table with one such row per property.
enum SupernodeProperty : int64_t {
  kFirst,    // its first column; the next supernode's is its end
  kRows,     // where its rows below the diagonal block begin in the list of all
  kPanel,    // where its panel begins among the values of the factor
  kParent,   // the supernode that its update is added to; -1 for a root
  kChild,    // its first child, -1 for a leaf
  kSibling,  // the next child of the same parent, -1 for the last
  kUpdate,   // where its update matrix is in the workspace
  kTask,     // the task that it belongs to; -1 for those near the roots, which come last
  kProperties,
};

// Columns and rows of one supernode. Its panel is column-major, `ld` apart: the w rows of the
// diagonal block, then the u rows below it, padded.
struct Supernode {
  int64_t first, w, u, ld;
  int64_t panel, update;
  const int64_t* rows;
  const int64_t* relative;  // the rows' places in the parent's front
};

// A symbolic factorization, read.
struct Elimination {
  int64_t n, count;
  const int64_t* order;
  const int64_t* table;
  const int64_t* rows;
  const int64_t* relative;

  int64_t get(SupernodeProperty property, int64_t s) const {
    return table[property * (count + 1) + s];
  }
  Supernode operator[](int64_t s) const {
    const int64_t first = get(kFirst, s), w = get(kFirst, s + 1) - first;
    const int64_t at = get(kRows, s), u = get(kRows, s + 1) - at;
    return {first, w, u, w + padded(u), get(kPanel, s), get(kUpdate, s), rows + at, relative + at};
  }
};

// The elimination tree (Liu, SIAM J. Matrix Anal. Appl. 11, 1990), by path compression.
inline void elimination_tree(const SymmetricPattern& a, const Longs& order, const Longs& position,
                             const Longs& parent) {
  const Longs ancestor(a.n, -1);
  for (int64_t k = 0; k < a.n; ++k) {
    parent[k] = -1;
    const int64_t i = order[k];
    for (int64_t e = a.crow[i]; e < a.crow[i + 1]; ++e) {
      for (int64_t j = position[a.col[e]], next; j != -1 && j < k; j = next) {
        next = ancestor[j];
        ancestor[j] = k;
        if (next == -1) parent[j] = k;
      }
    }
  }
}

// The first child of each node and the next sibling of each, in increasing order; -1 at the end.
inline void link_children(int64_t n, const int64_t* parent, int64_t* child, int64_t* sibling) {
  std::fill_n(child, n, int64_t{-1});
  for (int64_t k = n - 1; k >= 0; --k) {
    sibling[k] = -1;
    if (parent[k] == -1) continue;
    sibling[k] = child[parent[k]];
    child[parent[k]] = k;
  }
}

// Renumbers the columns so that each subtree is a range that ends in its root.
inline void postorder(int64_t n, const Longs& order, const Longs& position, const Longs& parent) {
  const Longs child(n), sibling(n), stack(n + 1), number(n), old(n);
  link_children(n, parent.data, child.data, sibling.data);
  int64_t done = 0;
  for (int64_t root = 0; root < n; ++root) {
    if (parent[root] != -1) continue;
    int64_t depth = 0;
    stack[0] = root;
    while (depth >= 0) {
      const int64_t node = stack[depth];
      if (child[node] != -1) {
        stack[++depth] = child[node];
        child[node] = sibling[child[node]];
      } else {
        number[node] = done++;
        --depth;
      }
    }
  }
  for (int64_t k = 0; k < n; ++k) old[number[k]] = order[k];
  // `stack` serves as the new parents.
  for (int64_t k = 0; k < n; ++k) stack[number[k]] = parent[k] == -1 ? -1 : number[parent[k]];
  for (int64_t k = 0; k < n; ++k) {
    parent[k] = stack[k];
    order[k] = old[k];
    position[old[k]] = k;
  }
}

// The number of entries in each column of the factor, diagonal included, in almost linear time
// (Gilbert, Ng and Peyton, SIAM J. Matrix Anal. Appl. 15, 1994). The columns are in postorder.
inline void column_counts(const SymmetricPattern& a, const Longs& order, const Longs& position,
                          const Longs& parent, const Longs& count) {
  const int64_t n = a.n;
  const Longs first(n, -1), latest(n, -1), leaf(n, -1), ancestor(n);
  for (int64_t k = 0; k < n; ++k) {
    count[k] = first[k] == -1;  // a leaf of the tree
    ancestor[k] = k;
    for (int64_t j = k; j != -1 && first[j] == -1; j = parent[j]) first[j] = k;
  }
  for (int64_t j = 0; j < n; ++j) {
    if (parent[j] != -1) --count[parent[j]];
    for (int64_t e = a.crow[order[j]]; e < a.crow[order[j] + 1]; ++e) {
      const int64_t i = position[a.col[e]];
      if (i <= j || first[j] <= latest[i]) continue;  // j is no leaf of the subtree of row i
      latest[i] = first[j];
      ++count[j];
      const int64_t previous = leaf[i];
      leaf[i] = j;
      if (previous == -1) continue;
      int64_t common = previous;  // the least common ancestor of both leaves
      while (common != ancestor[common]) common = ancestor[common];
      for (int64_t k = previous, next; k != common; k = next) {
        next = ancestor[k];
        ancestor[k] = common;
      }
      --count[common];
    }
    if (parent[j] != -1) ancestor[j] = parent[j];
  }
  for (int64_t j = 0; j < n; ++j) {
    STD_TORCH_CHECK(1 <= count[j] && count[j] <= n - j, "the pattern is not symmetric");
    if (parent[j] != -1) count[parent[j]] += count[j];
  }
}

// Zeros that are worth storing for the sake of wider supernodes (Ashcraft and Grimes, ACM TOMS 15,
// 1989): the share of the panel that may be zero falls with its width.
inline bool worth_merging(int64_t w, int64_t size, int64_t zeros) {
  if (w <= 4) return true;
  const double share = static_cast<double>(zeros) / static_cast<double>(size);
  return share < (w <= 16 ? 0.5 : w <= 48 ? 0.2 : 0.05);
}

// Fundamental supernodes (Liu, Ng and Peyton, SIAM J. Matrix Anal. Appl. 14, 1993), merged with
// their parents where few zeros come in. Returns how many; first[s] is the first column of each.
inline int64_t find_supernodes(int64_t n, const Longs& parent, const Longs& count,
                               const Longs& first) {
  const Longs children(n, 0), entries(n + 1);
  for (int64_t k = 0; k < n; ++k) {
    if (parent[k] != -1) ++children[parent[k]];
  }
  int64_t groups = 0;
  for (int64_t begin = 0, end; begin < n; begin = end) {
    end = begin + 1;
    while (end < n && parent[end - 1] == end && count[end - 1] == count[end] + 1 &&
           children[end] == 1) {
      ++end;
    }
    int64_t start = begin, stored = 0;
    for (int64_t k = begin; k < end; ++k) stored += count[k];
    while (groups > 0 && parent[start - 1] != -1 && parent[start - 1] < end) {
      const int64_t w = end - first[groups - 1];
      const int64_t size = w * (w + 1) / 2 + w * (count[end - 1] - 1);
      const int64_t both = stored + entries[groups - 1];
      if (!worth_merging(w, size, size - both)) break;
      --groups;
      start = first[groups];
      stored = both;
    }
    first[groups] = start;
    entries[groups++] = stored;
  }
  first[groups] = n;
  return groups;
}

// The rows below the diagonal block of each supernode, increasing.
inline void fill_rows(const SymmetricPattern& a, const Longs& order, const Longs& position,
                      const Longs& owner, int64_t count, const int64_t* parent, const int64_t* at,
                      int64_t* rows) {
  const Longs seen(count, -1), next(count);
  std::copy_n(at, count, next.data);
  for (int64_t i = 0; i < a.n; ++i) {
    const int64_t own = owner[i];
    for (int64_t e = a.crow[order[i]]; e < a.crow[order[i] + 1]; ++e) {
      const int64_t j = position[a.col[e]];
      if (j >= i) continue;
      for (int64_t s = owner[j]; s != -1 && s != own && seen[s] != i; s = parent[s]) {
        seen[s] = i;
        STD_TORCH_CHECK(next[s] < at[s + 1], "the pattern is not symmetric");
        rows[next[s]++] = i;
      }
    }
  }
  for (int64_t s = 0; s < count; ++s) {
    STD_TORCH_CHECK(next[s] == at[s + 1], "the pattern is not symmetric");
  }
}

// Where the rows of each child are in the parent's front, and where each entry of the matrix is in
// the panels: place[e], or ~place of its mirror image for the entries of the upper triangle.
inline void locate(const SymmetricPattern& a, const Elimination& l, const Longs& position,
                   int64_t* relative, int64_t* place) {
  const Longs local(a.n, -1);
  for (int64_t s = 0; s < l.count; ++s) {
    const Supernode p = l[s];
    for (int64_t k = 0; k < p.w; ++k) local[p.first + k] = k;
    for (int64_t k = 0; k < p.u; ++k) local[p.rows[k]] = p.w + k;
    for (int64_t c = l.get(kChild, s); c != -1; c = l.get(kSibling, c)) {
      const int64_t at = l.get(kRows, c), end = l.get(kRows, c + 1);
      for (int64_t k = at; k < end; ++k) relative[k] = local[l.rows[k]];
    }
    for (int64_t j = p.first; j < p.first + p.w; ++j) {
      for (int64_t e = a.crow[l.order[j]]; e < a.crow[l.order[j] + 1]; ++e) {
        const int64_t i = position[a.col[e]];
        if (i < j) continue;
        const int64_t at = p.panel + (j - p.first) * p.ld + local[i];
        place[e] = at;
        if (i == j) continue;
        const int64_t other = a.mirror[e], row = l.order[i];
        STD_TORCH_CHECK(a.crow[row] <= other && other < a.crow[row + 1] &&
                            a.col[other] == l.order[j],
                        "the pattern is not symmetric");
        place[other] = ~at;
      }
    }
  }
}

// Operations of a supernode's elimination, roughly.
inline int64_t cost_of(const Supernode& p) {
  const int64_t f = p.w + p.u;
  return p.w * f * f + 100;
}

// Divides the forest into tasks that need nothing of each other, ranges of whole subtrees of about
// equal work, and what remains near the roots. The division depends on the pattern alone. Returns
// the number of tasks; bounds has their first and their last supernode + 1.
inline int64_t find_tasks(const Elimination& l, int64_t* task, const Longs& bounds) {
  constexpr int64_t kShares = 16, kWorthATask = 1 << 20;
  const Longs subtree(l.count);
  int64_t total = 0;
  for (int64_t s = 0; s < l.count; ++s) {
    const int64_t cost = cost_of(l[s]);
    total += cost;
    subtree[s] = cost;
    for (int64_t c = l.get(kChild, s); c != -1; c = l.get(kSibling, c)) subtree[s] += subtree[c];
  }
  const int64_t share = std::max(total / kShares, kWorthATask);
  int64_t tasks = 0, collected = 0;
  bool open = false;
  for (int64_t s = 0; s < l.count; ++s) {
    if (subtree[s] > share) {
      task[s] = -1;
      open = false;
      continue;
    }
    if (!open) {
      bounds[2 * tasks++] = s;
      collected = 0;
      open = true;
    }
    task[s] = tasks - 1;
    bounds[2 * tasks - 1] = s + 1;
    const int64_t parent = l.get(kParent, s);
    if (parent != -1 && subtree[parent] <= share) continue;  // in the middle of a subtree
    collected += subtree[s];
    open = 2 * collected < share;
  }
  return tasks;
}

// Where the update matrices go. Each task has two stacks, for even and odd depths: a supernode takes
// its children's updates from one and puts its own on the other. Returns the workspace's size.
inline int64_t place_updates(const Elimination& l, int64_t tasks, int64_t* update) {
  const Longs depth(l.count), top(2 * (tasks + 1), 0), peak(2 * (tasks + 1), 0);
  for (int64_t s = l.count - 1; s >= 0; --s) {
    const int64_t parent = l.get(kParent, s);
    depth[s] = parent == -1 ? 0 : depth[parent] + 1;
  }
  const auto stack = [&](int64_t s) { return 2 * (l.get(kTask, s) + 1) + depth[s] % 2; };
  for (int64_t s = 0; s < l.count; ++s) {
    const int64_t own = stack(s), u = l[s].u;
    update[s] = top[own];
    top[own] += u * padded(u);
    peak[own] = std::max(peak[own], top[own]);
    for (int64_t c = l.get(kChild, s); c != -1; c = l.get(kSibling, c)) {
      if (l.get(kTask, c) == l.get(kTask, s)) top[stack(c)] = std::min(top[stack(c)], update[c]);
    }
  }
  int64_t size = 0;
  for (int64_t i = 0; i < 2 * (tasks + 1); ++i) {
    top[i] = size;
    size += peak[i];
  }
  for (int64_t s = 0; s < l.count; ++s) update[s] += top[stack(s)];
  return size;
}

// Whether every index is in its range, so that no kernel leaves its arrays: the tensors of a
// factorization come back from Python.
inline bool in_range(const Elimination& l, int64_t n_rows, int64_t tasks, const int64_t* bounds) {
  const int64_t workspace = l.get(kUpdate, l.count);
  if (l.get(kFirst, 0) != 0 || l.get(kRows, 0) != 0 || l.get(kPanel, 0) != 0 ||
      l.get(kFirst, l.count) != l.n || l.get(kRows, l.count) != n_rows) {
    return false;
  }
  for (int64_t s = 0; s < l.count; ++s) {
    const Supernode p = l[s];
    const int64_t child = l.get(kChild, s), sibling = l.get(kSibling, s), task = l.get(kTask, s);
    if (p.w <= 0 || p.u < 0 || p.first + p.w > l.n || l.get(kRows, s) + p.u > n_rows ||
        l.get(kPanel, s + 1) != p.panel + p.w * p.ld || p.update < 0 ||
        p.update > workspace - p.u * padded(p.u) || child < -1 || child >= s ||
        (sibling != -1 && (sibling <= s || sibling >= l.count)) || task < -1 || task >= tasks) {
      return false;
    }
    for (int64_t k = 0; k < p.u; ++k) {
      if (p.rows[k] < p.first + p.w || p.rows[k] >= l.n) return false;
      if (k > 0 && p.relative[k] <= p.relative[k - 1]) return false;
    }
    for (int64_t c = child; c != -1; c = l.get(kSibling, c)) {
      const Supernode q = l[c];
      if (c >= s || (q.u > 0 && (q.relative[0] < 0 || q.relative[q.u - 1] >= p.w + p.u))) {
        return false;
      }
    }
  }
  for (int64_t i = 0; i < l.n; ++i) {
    if (l.order[i] < 0 || l.order[i] >= l.n) return false;
  }
  for (int64_t t = 0; t < tasks; ++t) {
    const int64_t first = bounds[2 * t], last = bounds[2 * t + 1];
    if (first < 0 || first > last || last > l.count) return false;
  }
  return true;
}

}  // namespace sparsetorch
