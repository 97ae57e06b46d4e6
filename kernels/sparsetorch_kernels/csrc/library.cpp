// The operators of the CPU library, on PyTorch's stable ABI only: one build serves torch 2.11 and
// later, and every Python. Python has checked shapes, dtypes and devices before it calls these
// (`csr/checks.py`); what is checked again here is what memory safety rests on.
#include <tuple>

#include <torch/csrc/stable/library.h>

#include "cholesky.h"
#include "pieces.h"
#include "sddmm.h"
#include "spgemm.h"
#include "spmm.h"
#include "spmv.h"
#include "tensors.h"
#include "triangular.h"

namespace sparsetorch {
namespace {

Tensor spmm(const Tensor& crow, const Tensor& col, const MaybeTensor& perm, const Tensor& values,
            const Tensor& x, int64_t n_cols, bool reduce) {
  const Pattern pattern(crow, col, perm);
  const int64_t k = x.size(2), n_rows = crow.numel() - 1;
  const Operand left(values, values, 2, col.numel()), right(x, values, 3, n_cols, k);
  const Batch batch(left, right, reduce);
  Tensor out = make_output(values, {batch.results, n_rows, k});
  if (batch.terms == 0) return torch::stable::zero_(out);
  if (out.numel() == 0) return out;
  const Pieces pieces(n_rows, col.numel(), k * batch.terms);
  const Tensor carries = torch::stable::new_empty(values, {batch.results, pieces.count, k});
  dispatch(values, col, [&]<typename T, typename I>(T, I) {
    const Csr<I> a = pattern.view<I>();
    Spmm<T, I> first{a, left.data<T>(), right.data<T>(), k, batch.terms, left.step, right.step};
    T* const out_data = out.mutable_data_ptr<T>();
    T* const carry_data = carries.mutable_data_ptr<T>();
    for_each_piece(a, pieces, batch.results, [&](int64_t result, int64_t piece, Cut from, Cut to) {
      Spmm<T, I> p = first;
      p.values += result * left.step;
      p.x += result * right.step;
      T* const target = out_data + result * n_rows * k;
      T* const carry = carry_data + (result * pieces.count + piece) * k;
      if (k == 1) {
        (perm ? spmv_piece<true, T, I> : spmv_piece<false, T, I>)(p, from, to, target, carry);
      } else {
        (perm ? spmm_piece<true, T, I> : spmm_piece<false, T, I>)(p, from, to, target, carry);
      }
    });
    for (int64_t piece = 1; piece < pieces.count; ++piece) {
      const Cut from = cut_at(a, pieces.begin(piece));
      if (from.row == n_rows || from.entry == a.crow[from.row]) continue;  // nothing was carried
      for (int64_t result = 0; result < batch.results; ++result) {
        const T* carry = carry_data + (result * pieces.count + piece) * k;
        T* const target = out_data + (result * n_rows + from.row) * k;
        for (int64_t j = 0; j < k; ++j) target[j] += carry[j];
      }
    }
  });
  return out;
}

Tensor sddmm(const Tensor& crow, const Tensor& col, const MaybeTensor& perm, const Tensor& u,
             const Tensor& v, int64_t n_cols, bool reduce) {
  const Pattern pattern(crow, col, perm);
  const int64_t k = u.size(2), nnz = col.numel(), n_rows = crow.numel() - 1;
  const Operand left(u, u, 3, n_rows, k), right(v, u, 3, n_cols, k);
  const Batch batch(left, right, reduce);
  Tensor out = make_output(u, {batch.results, nnz});
  if (batch.terms == 0) return torch::stable::zero_(out);
  if (out.numel() == 0) return out;
  const Pieces pieces(n_rows, nnz, k * batch.terms);
  dispatch(u, col, [&]<typename T, typename I>(T, I) {
    const Csr<I> a = pattern.view<I>();
    Sddmm<T, I> first{a, left.data<T>(), right.data<T>(), k, batch.terms, left.step, right.step};
    T* const out_data = out.mutable_data_ptr<T>();
    for_each_piece(a, pieces, batch.results, [&](int64_t result, int64_t, Cut from, Cut to) {
      Sddmm<T, I> p = first;
      p.u += result * left.step;
      p.v += result * right.step;
      (k == 1 ? sddmm_piece<true, T, I> : sddmm_piece<false, T, I>)(
          p, from, to, out_data + result * nnz);
    });
  });
  return out;
}

// b_crow .. b_perm is B, bt_crow .. bt_perm its transpose.
Tensor spgemm(const Tensor& a_crow, const Tensor& a_col, const MaybeTensor& a_perm,
              const Tensor& b_crow, const Tensor& b_col, const MaybeTensor& b_perm,
              const Tensor& bt_crow, const Tensor& bt_col, const MaybeTensor& bt_perm,
              const Tensor& c_crow, const Tensor& c_col, const MaybeTensor& c_perm,
              const Tensor& a_values, const Tensor& b_values, bool reduce) {
  const Pattern a(a_crow, a_col, a_perm), b(b_crow, b_col, b_perm), bt(bt_crow, bt_col, bt_perm),
      c(c_crow, c_col, c_perm);
  for (const Pattern* other : {&b, &bt, &c}) {
    STD_TORCH_CHECK(other->col.scalar_type() == a.col.scalar_type(), "index dtypes differ");
  }
  STD_TORCH_CHECK(a_crow.numel() == c_crow.numel() && b_col.numel() == bt_col.numel(),
                  "the patterns do not fit each other");
  const Operand left(a_values, a_values, 2, a_col.numel());
  const Operand right(b_values, a_values, 2, b_col.numel());
  const Batch batch(left, right, reduce);
  const int64_t n_rows = c_crow.numel() - 1, nnz = c_col.numel();
  const int64_t n_places = std::max(b_crow.numel(), bt_crow.numel()) - 1;
  Tensor out = make_output(a_values, {batch.results, nnz});
  if (out.numel() == 0) return out;
  dispatch(a_values, a_col, [&]<typename T, typename I>(T, I) {
    const Spgemm<T, I> first{a.view<I>(),    b.view<I>(),     bt.view<I>(), c.view<I>(),
                             left.data<T>(), right.data<T>(), batch.terms,  left.step,
                             right.step};
    T* const out_data = out.mutable_data_ptr<T>();
    const RowShares shares(n_rows, batch.results * batch.terms,
                           [&](int64_t row) { return signed_cost(first, row); });
    int64_t longest = 0;
    for (int64_t row = 0; row < n_rows; ++row) {
      longest = std::max<int64_t>(longest, first.c.crow[row + 1] - first.c.crow[row]);
    }
    const Tensor places = torch::stable::new_empty(a_col, {shares.count, n_places});
    const Tensor rows = torch::stable::new_empty(a_values, {shares.count, longest});
    torch::stable::parallel_for(0, shares.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t share = begin; share < end; ++share) {
        const SpgemmScratch<T, I> scratch{places.mutable_data_ptr<I>() + share * n_places,
                                          rows.mutable_data_ptr<T>() + share * longest};
        std::fill_n(scratch.place, n_places, I{-1});
        for (int64_t result = 0; result < batch.results; ++result) {
          Spgemm<T, I> p = first;
          p.a_values += result * left.step;
          p.b_values += result * right.step;
          spgemm_rows(p, shares.begin(share), shares.begin(share + 1), shares.cost(), scratch,
                      out_data + result * nnz);
        }
      }
    });
  });
  return out;
}

// The level sets of a triangle: its rows by level, and where in them each level starts.
std::tuple<Tensor, Tensor> level_sets(const Tensor& crow, const Tensor& col, bool lower) {
  const Pattern pattern(crow, col, std::nullopt);
  const int64_t n_rows = crow.numel() - 1;
  const Tensor level = torch::stable::new_empty(col, {n_rows});
  Tensor rows = torch::stable::new_empty(col, {n_rows}), starts;
  dispatch_index(col, [&]<typename I>(I) {
    const Csr<I> a = pattern.view<I>();
    I* const level_data = level.mutable_data_ptr<I>();
    const int64_t count =
        (lower ? levels_of_rows<true, I> : levels_of_rows<false, I>)(a, level_data);
    starts = torch::stable::empty({count + 1}, ScalarType::Long);
    int64_t* const start = starts.mutable_data_ptr<int64_t>();
    std::fill_n(start, count + 1, int64_t{0});
    for (int64_t row = 0; row < n_rows; ++row) ++start[level_data[row] + 1];
    for (int64_t l = 0; l < count; ++l) start[l + 1] += start[l];
    I* const rows_data = rows.mutable_data_ptr<I>();
    for (int64_t row = 0; row < n_rows; ++row) {
      rows_data[start[level_data[row]]++] = static_cast<I>(row);
    }
    // Every start has moved to the end of its level, which is the start of the next.
    for (int64_t l = count; l > 0; --l) start[l] = start[l - 1];
    start[0] = 0;
  });
  return {rows, starts};
}

// x with T x = b; rows and starts are the level sets of T. Right-hand sides are divided among the
// threads; the rows of a level only where there are too few, and the levels are large enough.
Tensor solve_triangular(const Tensor& crow, const Tensor& col, const MaybeTensor& perm,
                        const Tensor& t_crow, const Tensor& t_col, const MaybeTensor& t_perm,
                        const Tensor& rows, const Tensor& starts, const Tensor& values,
                        const Tensor& b, bool lower, bool unit) {
  const Pattern pattern(crow, col, perm), transposed(t_crow, t_col, t_perm);
  const int64_t k = b.size(2), nnz = col.numel(), n = crow.numel() - 1;
  const Operand left(values, values, 2, nnz), right(b, values, 3, n, k);
  const Batch batch(left, right, false);
  STD_TORCH_CHECK(t_col.scalar_type() == col.scalar_type() && t_col.numel() == nnz &&
                      t_crow.numel() == n + 1,
                  "the transposed pattern does not fit");
  STD_TORCH_CHECK(rows.is_cpu() && rows.scalar_type() == col.scalar_type() && rows.numel() == n &&
                      starts.is_cpu() && starts.scalar_type() == ScalarType::Long &&
                      starts.numel() > 0,
                  "the level sets do not fit the pattern");
  const Tensor order = torch::stable::contiguous(rows), bounds = torch::stable::contiguous(starts);
  Tensor out = make_output(values, {batch.results, n, k});
  if (out.numel() == 0) return out;
  constexpr int64_t kWorthATask = 32768;  // operations
  const int64_t threads = torch::stable::get_num_threads(), levels = bounds.numel() - 1;
  const int64_t work = (n + nnz) * k;
  const int64_t shares = std::clamp<int64_t>(k / 16, 1, threads);  // of the columns
  const bool large_levels = work / levels >= kWorthATask;
  // No choice depends on the number of threads that would change the order of a sum.
  const bool by_columns = k == 1 && perm && !t_perm && !large_levels;
  const bool by_levels = large_levels && batch.results * shares < threads;
  dispatch(values, col, [&]<typename T, typename I>(T, I) {
    const auto solve = [&]<bool kLower, bool kPerm>() {
      const auto system = [&](int64_t result) {
        return Triangular<T, I>{(by_columns ? transposed : pattern).view<I>(),
                                left.data<T>() + result * left.step,
                                right.data<T>() + result * right.step,
                                out.mutable_data_ptr<T>() + result * n * k, k, unit};
      };
      const auto run_shares = [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
          const int64_t result = task / shares, share = task % shares;
          if (by_columns) {
            substitute_by_columns<kLower>(system(result));
          } else {
            substitute<kLower, kPerm>(system(result), k * share / shares, k * (share + 1) / shares);
          }
        }
      };
      if (!by_levels) {
        const int64_t grain = std::max<int64_t>(1, kWorthATask * shares / work);
        return torch::stable::parallel_for(0, batch.results * shares, grain, run_shares);
      }
      const I* const row = order.const_data_ptr<I>();
      const int64_t* const start = bounds.const_data_ptr<int64_t>();
      const int64_t grain = std::max<int64_t>(1, kWorthATask / (1 + work / n));
      for (int64_t result = 0; result < batch.results; ++result) {
        const Triangular<T, I> p = system(result);
        for (int64_t level = 0; level < levels; ++level) {
          const auto run_rows = [&](int64_t begin, int64_t end) {
            substitute_rows<kLower, kPerm>(p, row + begin, row + end);
          };
          torch::stable::parallel_for(start[level], start[level + 1], grain, run_rows);
        }
      }
    };
    if (lower) {
      perm ? solve.template operator()<true, true>() : solve.template operator()<true, false>();
    } else {
      perm ? solve.template operator()<false, true>() : solve.template operator()<false, false>();
    }
  });
  return out;
}

}  // namespace
}  // namespace sparsetorch

STABLE_TORCH_LIBRARY(sparsetorch_native, m) {
  m.def(
      "spmm(Tensor crow, Tensor col, Tensor? perm, Tensor values, Tensor x, int n_cols, "
      "bool reduce) -> Tensor");
  m.def(
      "sddmm(Tensor crow, Tensor col, Tensor? perm, Tensor u, Tensor v, int n_cols, "
      "bool reduce) -> Tensor");
  m.def(
      "spgemm(Tensor a_crow, Tensor a_col, Tensor? a_perm, Tensor b_crow, Tensor b_col, "
      "Tensor? b_perm, Tensor bt_crow, Tensor bt_col, Tensor? bt_perm, Tensor c_crow, "
      "Tensor c_col, Tensor? c_perm, Tensor a_values, Tensor b_values, bool reduce) -> Tensor");
  m.def("level_sets(Tensor crow, Tensor col, bool lower) -> (Tensor, Tensor)");
  m.def(
      "solve_triangular(Tensor crow, Tensor col, Tensor? perm, Tensor t_crow, Tensor t_col, "
      "Tensor? t_perm, Tensor rows, Tensor starts, Tensor values, Tensor b, bool lower, bool unit) "
      "-> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(sparsetorch_native, CPU, m) {
  m.impl("spmm", TORCH_BOX(&sparsetorch::spmm));
  m.impl("sddmm", TORCH_BOX(&sparsetorch::sddmm));
  m.impl("spgemm", TORCH_BOX(&sparsetorch::spgemm));
  m.impl("level_sets", TORCH_BOX(&sparsetorch::level_sets));
  m.impl("solve_triangular", TORCH_BOX(&sparsetorch::solve_triangular));
}
