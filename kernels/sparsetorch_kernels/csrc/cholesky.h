// The operators of the sparse Cholesky and LDL^T factorizations.
#pragma once

#include <tuple>

#include <torch/csrc/stable/library.h>

#include "minimum_degree.h"
#include "multifrontal.h"
#include "selected_inverse.h"
#include "tensors.h"

namespace sparsetorch {

inline Tensor longs(const Tensor& t, int64_t dim) {
  STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == ScalarType::Long && t.dim() == dim,
                  "structure must be int64 tensors on the CPU");
  return torch::stable::contiguous(t);
}

// The same of int32 or int64 indices.
inline Tensor as_longs(const Tensor& t) {
  if (t.scalar_type() == ScalarType::Long) return longs(t, 1);
  STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == ScalarType::Int && t.dim() == 1,
                  "indices must be int32 or int64 on the CPU");
  const Tensor from = torch::stable::contiguous(t);
  const Longs out(t.numel());
  std::copy_n(from.const_data_ptr<int32_t>(), t.numel(), out.data);
  return out.tensor;
}

// The tensors of a symbolic factorization, as `eliminate` made them.
struct EliminationTensors {
  Tensor order, table, rows, relative, bounds;

  EliminationTensors(const Tensor& order_, const Tensor& table_, const Tensor& rows_,
                     const Tensor& relative_, const Tensor& bounds_)
      : order(longs(order_, 1)),
        table(longs(table_, 2)),
        rows(longs(rows_, 1)),
        relative(longs(relative_, 1)),
        bounds(longs(bounds_, 2)) {
    STD_TORCH_CHECK(table.size(0) == kProperties && table.size(1) > 0 &&
                        rows.numel() == relative.numel() && bounds.size(1) == 2,
                    "the symbolic factorization is not whole");
    STD_TORCH_CHECK(in_range(view(), rows.numel(), tasks(), bounds.const_data_ptr<int64_t>()),
                    "the symbolic factorization is damaged");
  }

  Elimination view() const {
    return {order.numel(), table.size(1) - 1, order.const_data_ptr<int64_t>(),
            table.const_data_ptr<int64_t>(), rows.const_data_ptr<int64_t>(),
            relative.const_data_ptr<int64_t>()};
  }
  int64_t tasks() const { return bounds.size(0); }
  int64_t panels() const { return view().get(kPanel, view().count); }
  int64_t workspace() const { return view().get(kUpdate, view().count); }
};

inline void check_places(const Tensor& crow, const Tensor& place, int64_t panels) {
  const int64_t* const pointers = crow.const_data_ptr<int64_t>();
  const int64_t* const places = place.const_data_ptr<int64_t>();
  const int64_t n = crow.numel() - 1, nnz = place.numel();
  bool good = pointers[0] == 0 && pointers[n] == nnz;
  for (int64_t i = 0; i < n; ++i) good &= pointers[i] <= pointers[i + 1];
  for (int64_t e = 0; e < nnz; ++e) good &= places[e] < panels;
  STD_TORCH_CHECK(good, "the places of the entries are damaged");
}

// The columns in the order of their elimination, by position: order[k] is the k-th one.
inline void invert(const Tensor& order, const Longs& position) {
  const int64_t n = order.numel();
  const int64_t* const data = order.const_data_ptr<int64_t>();
  std::fill_n(position.data, n, int64_t{-1});
  for (int64_t k = 0; k < n; ++k) {
    const int64_t i = data[k];
    STD_TORCH_CHECK(i >= 0 && i < n && position[i] == -1, "order must be a permutation");
    position[i] = k;
  }
}

// The order in which to eliminate the nodes of a symmetric pattern; see minimum_degree.h.
inline Tensor minimum_degree(const Tensor& crow_, const Tensor& col_, const Tensor& mirror_) {
  const Tensor crow = as_longs(crow_), col = as_longs(col_), mirror = as_longs(mirror_);
  STD_TORCH_CHECK(crow.numel() > 0 && mirror.numel() == col.numel(), "sizes do not fit");
  const SymmetricPattern a{crow.numel() - 1, crow.const_data_ptr<int64_t>(),
                           col.const_data_ptr<int64_t>(), mirror.const_data_ptr<int64_t>()};
  STD_TORCH_CHECK(is_mirrored(a, col.numel()), "the pattern is not symmetric");
  const Longs order(a.n);
  minimum_degree_order(a, order.data);
  return order.tensor;
}

// (order, table, rows, relative, bounds, place, crow) of a symmetric pattern; see elimination.h.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> eliminate(
    const Tensor& crow_, const Tensor& col_, const Tensor& mirror_, const Tensor& order_) {
  const Tensor crow = as_longs(crow_), col = as_longs(col_), mirror = as_longs(mirror_);
  const Tensor wanted = longs(order_, 1);
  const int64_t n = wanted.numel();
  STD_TORCH_CHECK(crow.numel() == n + 1 && mirror.numel() == col.numel(), "sizes do not fit");
  const SymmetricPattern a{n, crow.const_data_ptr<int64_t>(), col.const_data_ptr<int64_t>(),
                           mirror.const_data_ptr<int64_t>()};
  const Longs order(n), position(n), parent(n), counts(n), first(n + 1);
  invert(wanted, position);
  std::copy_n(wanted.const_data_ptr<int64_t>(), n, order.data);
  elimination_tree(a, order, position, parent);
  postorder(n, order, position, parent);
  column_counts(a, order, position, parent, counts);
  const int64_t count = find_supernodes(n, parent, counts, first);

  const Tensor table = torch::stable::empty({kProperties, count + 1}, ScalarType::Long);
  int64_t* const data = table.mutable_data_ptr<int64_t>();
  std::fill_n(data, kProperties * (count + 1), int64_t{-1});
  const auto property = [&](SupernodeProperty p) { return data + p * (count + 1); };
  const Longs owner(n);
  int64_t n_rows = 0, size = 0;
  for (int64_t s = 0; s <= count; ++s) {
    property(kFirst)[s] = first[s];
    property(kRows)[s] = n_rows;
    property(kPanel)[s] = size;
    if (s == count) break;
    const int64_t w = first[s + 1] - first[s], u = counts[first[s + 1] - 1] - 1;
    for (int64_t k = first[s]; k < first[s + 1]; ++k) owner[k] = s;
    n_rows += u;
    size += w * (w + padded(u));
  }
  for (int64_t s = 0; s < count; ++s) {
    const int64_t up = parent[first[s + 1] - 1];
    property(kParent)[s] = up == -1 ? -1 : owner[up];
  }
  link_children(count, property(kParent), property(kChild), property(kSibling));
  const Longs rows(n_rows), relative(n_rows), place(col.numel());
  fill_rows(a, order, position, owner, count, property(kParent), property(kRows), rows.data);
  const Elimination l{n, count, order.data, data, rows.data, relative.data};
  locate(a, l, position, relative.data, place.data);
  const Longs bounds(2 * count);
  const int64_t tasks = find_tasks(l, property(kTask), bounds);
  property(kUpdate)[count] = place_updates(l, tasks, property(kUpdate));
  const Tensor ranges = torch::stable::empty({tasks, 2}, ScalarType::Long);
  std::copy_n(bounds.data, 2 * tasks, ranges.mutable_data_ptr<int64_t>());
  return {order.tensor, table, rows.tensor, relative.tensor, ranges, place.tensor, crow};
}

// The factor's panels, and (column, pivot) of a column whose pivot is not above rounding, or (-1, 0).
// Positive pivots and L L^T or, `indefinite`, any pivots and L S L^T.
inline std::tuple<Tensor, Tensor> cholesky_factor(const Tensor& order, const Tensor& table,
                                           const Tensor& rows, const Tensor& relative,
                                           const Tensor& bounds, const Tensor& place_,
                                           const Tensor& crow_, const Tensor& values_,
                                           bool indefinite) {
  const EliminationTensors structure(order, table, rows, relative, bounds);
  const Tensor place = longs(place_, 1), crow = longs(crow_, 1);
  const Tensor values = torch::stable::contiguous(values_);
  const Elimination l = structure.view();
  STD_TORCH_CHECK(values.is_cpu() && values.dim() == 1 && values.numel() == place.numel() &&
                      crow.numel() == l.n + 1,
                  "the values do not fit the symbolic factorization");
  check_places(crow, place, structure.panels());
  const Tensor panels = make_output(values, {structure.panels()});
  const Tensor updates = make_output(values, {structure.workspace()});
  const Tensor floors = torch::stable::new_empty(values, {l.n});
  const Tensor failure = torch::stable::empty({2}, ScalarType::Double);
  dispatch_real(values, [&]<typename T>(T) {
    const Factorization<T> f{l,
                             crow.const_data_ptr<int64_t>(),
                             place.const_data_ptr<int64_t>(),
                             values.const_data_ptr<T>(),
                             panels.mutable_data_ptr<T>(),
                             updates.mutable_data_ptr<T>(),
                             floors.mutable_data_ptr<T>(),
                             indefinite};
    const Longs failed(structure.tasks());
    const int64_t column =
        f.run(structure.tasks(), structure.bounds.const_data_ptr<int64_t>(), failed);
    double* const report = failure.mutable_data_ptr<double>();
    report[0] = -1;
    report[1] = 0;
    if (column == -1) return;
    report[0] = static_cast<double>(l.order[column]);
    for (int64_t s = 0; s < l.count; ++s) {
      const Supernode p = l[s];
      if (column < p.first + p.w) {
        report[1] = f.panels[p.panel + (column - p.first) * (p.ld + 1)];
        return;
      }
    }
  });
  return {panels, failure};
}

// x with A x = b, both (n, k).
inline Tensor cholesky_solve(const Tensor& order, const Tensor& table, const Tensor& rows,
                             const Tensor& relative, const Tensor& bounds, const Tensor& panels_,
                             const Tensor& b_) {
  const EliminationTensors structure(order, table, rows, relative, bounds);
  const Elimination l = structure.view();
  const Tensor panels = torch::stable::contiguous(panels_), b = torch::stable::contiguous(b_);
  STD_TORCH_CHECK(panels.is_cpu() && panels.numel() == structure.panels(),
                  "the factor does not fit the symbolic factorization");
  STD_TORCH_CHECK(b.is_cpu() && b.dim() == 2 && b.size(0) == l.n &&
                      b.scalar_type() == panels.scalar_type(),
                  "the right-hand side does not fit the factor");
  const int64_t k = b.size(1), chunks = (k + kColumns - 1) / kColumns;
  Tensor x = make_output(b, {l.n, k});
  if (x.numel() == 0) return x;
  int64_t longest = 0;
  for (int64_t s = 0; s < l.count; ++s) longest = std::max(longest, l[s].u);
  const int64_t wide = std::min(kColumns, padded(k));
  const int64_t room = std::max<int64_t>(longest, 1) * wide, rooms = structure.tasks() + 1;
  const Tensor work = make_output(panels, {chunks, l.n * wide});
  const Tensor gathered = torch::stable::new_empty(panels, {chunks, rooms * room});
  dispatch_real(panels, [&]<typename T>(T) {
    run_tasks(chunks, [&](int64_t chunk) {
      solve_columns(l, structure.tasks(), structure.bounds.const_data_ptr<int64_t>(),
                    panels.const_data_ptr<T>(), b.const_data_ptr<T>(), k, chunk * kColumns,
                    work.mutable_data_ptr<T>() + chunk * l.n * wide,
                    gathered.mutable_data_ptr<T>() + chunk * rooms * room, room,
                    x.mutable_data_ptr<T>());
    });
  });
  return x;
}

// Panels of the inverse, arranged as those of the factor.
inline Tensor cholesky_inverse(const Tensor& order, const Tensor& table, const Tensor& rows,
                               const Tensor& relative, const Tensor& bounds,
                               const Tensor& panels_) {
  const EliminationTensors structure(order, table, rows, relative, bounds);
  const Elimination l = structure.view();
  const Tensor panels = torch::stable::contiguous(panels_);
  STD_TORCH_CHECK(panels.is_cpu() && panels.numel() == structure.panels(),
                  "the factor does not fit the symbolic factorization");
  Tensor inverse = make_output(panels, {structure.panels()});
  const Tensor updates = make_output(panels, {structure.workspace()});
  dispatch_real(panels, [&]<typename T>(T) {
    const Longs sizes(structure.tasks() + 1, 0), starts(structure.tasks() + 1);
    for (int64_t s = 0; s < l.count; ++s) {
      int64_t& size = sizes[l.get(kTask, s) + 1];
      size = std::max(size, SelectedInverse<T>::scratch_size(l[s]));
    }
    int64_t total = 0;
    for (int64_t i = 0; i <= structure.tasks(); ++i) {
      starts[i] = total;
      total += sizes[i];
    }
    const Tensor scratch = make_output(panels, {total});
    const SelectedInverse<T> run{l, panels.const_data_ptr<T>(), inverse.mutable_data_ptr<T>(),
                                 updates.mutable_data_ptr<T>()};
    run.run(structure.tasks(), structure.bounds.const_data_ptr<int64_t>(),
            scratch.mutable_data_ptr<T>(), starts);
  });
  return inverse;
}

}  // namespace sparsetorch

STABLE_TORCH_LIBRARY_FRAGMENT(sparsetorch_native, m) {
  m.def("minimum_degree(Tensor crow, Tensor col, Tensor mirror) -> Tensor");
  m.def(
      "eliminate(Tensor crow, Tensor col, Tensor mirror, Tensor order) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "cholesky_factor(Tensor order, Tensor table, Tensor rows, Tensor relative, Tensor bounds, "
      "Tensor place, Tensor crow, Tensor values, bool indefinite) -> (Tensor, Tensor)");
  m.def(
      "cholesky_solve(Tensor order, Tensor table, Tensor rows, Tensor relative, Tensor bounds, "
      "Tensor panels, Tensor b) -> Tensor");
  m.def(
      "cholesky_inverse(Tensor order, Tensor table, Tensor rows, Tensor relative, Tensor bounds, "
      "Tensor panels) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(sparsetorch_native, CPU, m) {
  m.impl("minimum_degree", TORCH_BOX(&sparsetorch::minimum_degree));
  m.impl("eliminate", TORCH_BOX(&sparsetorch::eliminate));
  m.impl("cholesky_factor", TORCH_BOX(&sparsetorch::cholesky_factor));
  m.impl("cholesky_solve", TORCH_BOX(&sparsetorch::cholesky_solve));
  m.impl("cholesky_inverse", TORCH_BOX(&sparsetorch::cholesky_inverse));
}
