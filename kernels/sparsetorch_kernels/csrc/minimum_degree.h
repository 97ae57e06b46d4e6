// A fill-reducing order of a symmetric pattern by approximate minimum degree: Amestoy, Davis and
// Duff, SIAM J. Matrix Anal. Appl. 17 (1996). Connected components are ordered on their own, in
// parallel.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "elimination.h"
#include "tasks.h"

namespace sparsetorch {

// The quotient graph of one component. A node is a variable, which stands for `weight` unknowns with
// the same neighbours, until it is eliminated and becomes an element: a clique of the variables in
// its list. The list of a variable names elements first, then variables that no element couples it
// with. Weights are negative while a variable is in the list of the pivot, and 0 where there is
// nothing of it left.
template <typename I>
class QuotientGraph {
 public:
  // Writes the nodes of one component, `nodes[0 .. n)` in increasing order, as they are to be
  // eliminated. local[i] is the place of each node i among them.
  void order(const SymmetricPattern& a, const int64_t* nodes, int64_t n, const int64_t* local,
             int64_t* out) {
    if (n <= 2) {
      std::copy_n(nodes, n, out);
      return;
    }
    read(a, nodes, static_cast<I>(n), local);
    I pivots = 0;
    for (I least = 0; eliminated_ < n_; ++pivots) {
      while (head_[least] == kNone) ++least;
      const I p = head_[least];
      remove(p);
      pivot_[pivots] = p;
      eliminate(p);
      least = finish(p, least);
    }
    write(pivots, nodes, out);
  }

 private:
  static constexpr I kNone = -1;

  // Fills the lists with the component's edges. A few rows that couple with very many others come
  // last, and nobody counts them: they would be in every list.
  void read(const SymmetricPattern& a, const int64_t* nodes, I n, const int64_t* local) {
    n_ = n;
    for (auto* array : {&begin_, &length_, &elements_, &degree_, &next_, &previous_, &merged_,
                        &pivot_}) {
      array->assign(n, kNone);
    }
    head_.assign(n, kNone);
    bucket_.assign(n, kNone);
    weight_.assign(n, 1);
    mark_.assign(n, 1);
    list_.clear();
    stamp_ = 2;
    largest_ = 0;
    eliminated_ = 0;
    for (I i = 0; i < n; ++i) {
      begin_[i] = static_cast<I>(list_.size());
      for (int64_t e = a.crow[nodes[i]]; e < a.crow[nodes[i] + 1]; ++e) {
        if (a.col[e] != nodes[i]) list_.push_back(static_cast<I>(local[a.col[e]]));
      }
      length_[i] = static_cast<I>(list_.size()) - begin_[i];
      elements_[i] = 0;
    }
    free_ = list_.size();
    list_.resize(free_ + free_ / 4 + n);
    const double many = std::max(16.0, 10.0 * std::sqrt(static_cast<double>(n)));
    const auto couples_with_many = [&](I i) { return length_[i] > many; };
    for (I i = 0; i < n; ++i) eliminated_ += couples_with_many(i);
    if (eliminated_ > n / 16) eliminated_ = 0;  // so many are no exceptions: cliques, for instance
    for (I i = 0; i < n && eliminated_ > 0; ++i) weight_[i] = !couples_with_many(i);
    for (I i = 0; i < n; ++i) {
      degree_[i] = std::min<I>(length_[i], n - 1);
      if (weight_[i]) insert(i);
    }
  }

  void insert(I i) {
    const I first = head_[degree_[i]];
    next_[i] = first;
    previous_[i] = kNone;
    if (first != kNone) previous_[first] = i;
    head_[degree_[i]] = i;
  }

  void remove(I i) {
    if (next_[i] != kNone) previous_[next_[i]] = previous_[i];
    (previous_[i] == kNone ? head_[degree_[i]] : next_[previous_[i]]) = next_[i];
  }

  // Moves the lists that are still of use to the front of the memory.
  void collect() {
    std::vector<I> alive;
    for (I i = 0; i < n_; ++i) {
      const bool is_element = elements_[i] == kNone;
      if (is_element ? mark_[i] != 0 && length_[i] > 0 : weight_[i] != 0) alive.push_back(i);
    }
    std::sort(alive.begin(), alive.end(), [&](I i, I j) { return begin_[i] < begin_[j]; });
    size_t to = 0;
    for (const I i : alive) {
      std::copy_n(list_.begin() + begin_[i], length_[i], list_.begin() + to);
      begin_[i] = static_cast<I>(to);
      to += length_[i];
    }
    free_ = to;
  }

  // Takes variable i into the list of the pivot.
  void take(I i, size_t& to) {
    if (weight_[i] <= 0) return;
    size_ += weight_[i];
    weight_[i] = -weight_[i];
    remove(i);
    list_[to++] = i;
  }

  // Makes the variable p an element and updates the lists and degrees of its variables.
  void eliminate(I p) {
    gather(p);
    count_outside(p);
    for (I k = 0; k < length_[p]; ++k) update(p, list_[begin_[p] + k]);
    largest_ = std::max(largest_, size_);
    stamp_ += largest_ + 1;
    merge_alike(p);
  }

  // The list of the pivot: its variables and those of its elements, which it absorbs.
  void gather(I p) {
    own_ = weight_[p];
    weight_[p] = -own_;
    size_ = 0;
    if (elements_[p] == 0) {
      size_t to = begin_[p];
      const size_t end = to + length_[p];
      for (size_t k = to; k < end; ++k) take(list_[k], to);
      length_[p] = static_cast<I>(to - begin_[p]);
    } else {
      size_t most = length_[p] - elements_[p];
      for (I k = 0; k < elements_[p]; ++k) most += length_[list_[begin_[p] + k]];
      if (free_ + most > list_.size()) collect();
      if (free_ + most > list_.size()) list_.resize(free_ + most + list_.size() / 4);
      size_t to = free_;
      for (I k = 0; k < elements_[p]; ++k) {
        const I e = list_[begin_[p] + k];
        for (I m = 0; m < length_[e]; ++m) take(list_[begin_[e] + m], to);
        mark_[e] = 0;
      }
      for (I k = elements_[p]; k < length_[p]; ++k) take(list_[begin_[p] + k], to);
      begin_[p] = static_cast<I>(free_);
      length_[p] = static_cast<I>(to - free_);
      free_ = to;
    }
    elements_[p] = kNone;
  }

  // mark - stamp becomes the weight of what each element next to the pivot's list has outside of it.
  void count_outside(I p) {
    for (I k = 0; k < length_[p]; ++k) {
      const I i = list_[begin_[p] + k];
      for (I m = 0; m < elements_[i]; ++m) {
        const I e = list_[begin_[i] + m];
        if (mark_[e] == 0) continue;
        if (mark_[e] < stamp_) mark_[e] = stamp_ + degree_[e];
        mark_[e] += weight_[i];
      }
    }
  }

  // Puts the pivot in the place of what it makes superfluous in the list of i, and finds i's degree
  // without it. i goes with the pivot where nothing else is left.
  void update(I p, I i) {
    const size_t begin = begin_[i], end = begin + length_[i], between = begin + elements_[i];
    size_t to = begin;
    int64_t outside = 0;
    uint64_t hash = 0;
    for (size_t k = begin; k < between; ++k) {
      const I e = list_[k];
      if (mark_[e] == 0) continue;
      if (mark_[e] == stamp_) {  // all of its variables are in the pivot's list
        mark_[e] = 0;
        continue;
      }
      outside += mark_[e] - stamp_;
      hash += static_cast<uint64_t>(e);
      list_[to++] = e;
    }
    const size_t first = to;
    for (size_t k = between; k < end; ++k) {
      const I j = list_[k];
      if (weight_[j] <= 0) continue;
      outside += weight_[j];
      hash += static_cast<uint64_t>(j);
      list_[to++] = j;
    }
    if (outside == 0) {
      merge(i, p);
      return;
    }
    degree_[i] = static_cast<I>(std::min<int64_t>(degree_[i], outside));
    // The pivot comes first; there is room, since it or an element of it has been in the list.
    list_[to] = list_[first];
    list_[first] = list_[begin];
    list_[begin] = p;
    elements_[i] = static_cast<I>(first - begin + 1);
    length_[i] = static_cast<I>(to - begin + 1);
    const I slot = static_cast<I>(hash % static_cast<uint64_t>(n_));
    previous_[i] = slot;
    next_[i] = bucket_[slot];
    bucket_[slot] = i;
  }

  // What there is of i belongs to j, which is in the pivot's list or the pivot itself.
  void merge(I i, I j) {
    if (elements_[j] == kNone) {
      size_ += weight_[i];
      own_ -= weight_[i];
    } else {
      weight_[j] += weight_[i];
    }
    weight_[i] = 0;
    merged_[i] = j;
  }

  // Variables of the pivot's list with equal lists become one. Equal lists have equal hashes.
  void merge_alike(I p) {
    for (I k = 0; k < length_[p]; ++k) {
      const I member = list_[begin_[p] + k];
      if (weight_[member] == 0) continue;
      I i = bucket_[previous_[member]];
      bucket_[previous_[member]] = kNone;
      for (; i != kNone && next_[i] != kNone; i = next_[i], ++stamp_) {
        for (I m = 1; m < length_[i]; ++m) mark_[list_[begin_[i] + m]] = stamp_;
        for (I before = i, j = next_[i]; j != kNone; j = next_[before]) {
          if (alike(i, j)) {
            merge(j, i);
            next_[before] = next_[j];
          } else {
            before = j;
          }
        }
      }
    }
  }

  // Whether the list of j is that of i, which is marked.
  bool alike(I i, I j) const {
    if (length_[i] != length_[j] || elements_[i] != elements_[j]) return false;
    for (I m = 1; m < length_[j]; ++m) {
      if (mark_[list_[begin_[j] + m]] != stamp_) return false;
    }
    return true;
  }

  // The approximate degrees of what is left of the pivot's list; returns a bound of the least one.
  I finish(I p, I least) {
    eliminated_ += own_;
    const int64_t left = n_ - eliminated_;
    size_t to = begin_[p];
    for (I k = 0; k < length_[p]; ++k) {
      const I i = list_[begin_[p] + k];
      if (weight_[i] == 0) continue;
      const I weight = weight_[i] = -weight_[i];
      const int64_t most = std::min<int64_t>(degree_[i] + size_, left) - weight;
      degree_[i] = static_cast<I>(std::max<int64_t>(most, 0));
      insert(i);
      least = std::min(least, degree_[i]);
      list_[to++] = i;
    }
    if (static_cast<size_t>(begin_[p]) + length_[p] == free_) free_ = to;
    length_[p] = static_cast<I>(to - begin_[p]);
    weight_[p] = 0;
    degree_[p] = static_cast<I>(size_);
    mark_[p] = length_[p] > 0;
    return least;
  }

  // Pivots in turn, each with what was merged into it; then the rows that couple with very many.
  void write(I pivots, const int64_t* nodes, int64_t* out) {
    std::vector<I>& first = head_;  // of what belongs to each pivot
    std::fill(first.begin(), first.end(), kNone);
    for (I k = 0; k < pivots; ++k) merged_[pivot_[k]] = pivot_[k];
    for (I i = n_ - 1; i >= 0; --i) {
      if (merged_[i] == kNone) continue;
      I root = i;
      while (merged_[root] != root) root = merged_[root];
      for (I j = i, up; j != root; j = up) {
        up = merged_[j];
        merged_[j] = root;
      }
      next_[i] = first[root];
      first[root] = i;
    }
    int64_t done = 0;
    for (I k = 0; k < pivots; ++k) {
      for (I i = first[pivot_[k]]; i != kNone; i = next_[i]) out[done++] = nodes[i];
    }
    for (I i = 0; i < n_; ++i) {
      if (merged_[i] == kNone) out[done++] = nodes[i];
    }
  }

  I n_ = 0;
  int64_t eliminated_ = 0;  // unknowns
  int64_t own_ = 0;         // of the pivot
  int64_t size_ = 0;        // of the pivot's list, in unknowns
  int64_t largest_ = 0;     // of all lists of elements
  int64_t stamp_ = 0;       // marks below it are of the past; 0 marks elements that were absorbed
  size_t free_ = 0;         // where the unused end of `list_` begins
  std::vector<I> list_, begin_, length_, elements_, degree_, head_, next_, previous_, bucket_;
  std::vector<I> merged_, pivot_, weight_;
  std::vector<int64_t> mark_;
};

// The connected component of each node, and how many there are; numbered by their first nodes.
inline int64_t find_components(const SymmetricPattern& a, const Longs& component) {
  std::vector<int64_t> stack;
  int64_t count = 0;
  std::fill_n(component.data, a.n, int64_t{-1});
  for (int64_t root = 0; root < a.n; ++root) {
    if (component[root] != -1) continue;
    component[root] = count;
    stack.push_back(root);
    while (!stack.empty()) {
      const int64_t i = stack.back();
      stack.pop_back();
      for (int64_t e = a.crow[i]; e < a.crow[i + 1]; ++e) {
        if (component[a.col[e]] != -1) continue;
        component[a.col[e]] = count;
        stack.push_back(a.col[e]);
      }
    }
    ++count;
  }
  return count;
}

// Whether mirror gives the entry (j, i) of each entry (i, j), all of them in range.
inline bool is_mirrored(const SymmetricPattern& a, int64_t nnz) {
  if (a.crow[0] != 0 || a.crow[a.n] != nnz) return false;
  for (int64_t i = 0; i < a.n; ++i) {
    if (a.crow[i] > a.crow[i + 1] || a.crow[i + 1] > nnz) return false;
    for (int64_t e = a.crow[i]; e < a.crow[i + 1]; ++e) {
      const int64_t j = a.col[e], other = a.mirror[e];
      if (j < 0 || j >= a.n || other < 0 || other >= nnz) return false;
      if (other < a.crow[j] || other >= a.crow[j + 1] || a.col[other] != i) return false;
    }
  }
  return true;
}

// order[k] is the node to eliminate k-th.
inline void minimum_degree_order(const SymmetricPattern& a, int64_t* order) {
  constexpr int64_t kWorthATask = 1 << 14;
  const Longs component(a.n), nodes(a.n), local(a.n);
  const int64_t count = find_components(a, component);
  std::vector<int64_t> begin(count + 1, 0), tasks{0};
  for (int64_t i = 0; i < a.n; ++i) ++begin[component[i] + 1];
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
  std::vector<int64_t> next(begin.begin(), begin.end() - 1);
  for (int64_t i = 0; i < a.n; ++i) {
    const int64_t place = next[component[i]]++;
    nodes[place] = i;
    local[i] = place - begin[component[i]];
  }
  for (int64_t c = 1; c <= count; ++c) {
    if (c == count || begin[c] - begin[tasks.back()] >= kWorthATask) tasks.push_back(c);
  }
  const int64_t nnz = a.crow[a.n];
  const bool small = 4 * (nnz + a.n) < std::numeric_limits<int32_t>::max();
  const auto run = [&]<typename I>(I) {
    run_tasks(static_cast<int64_t>(tasks.size()) - 1, [&](int64_t task) {
      QuotientGraph<I> graph;
      for (int64_t c = tasks[task]; c < tasks[task + 1]; ++c) {
        graph.order(a, nodes.data + begin[c], begin[c + 1] - begin[c], local.data,
                    order + begin[c]);
      }
    });
  };
  small ? run(int32_t{}) : run(int64_t{});
}

}  // namespace sparsetorch
