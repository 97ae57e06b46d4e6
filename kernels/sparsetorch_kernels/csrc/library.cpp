// The operators of the CPU library, on PyTorch's stable ABI only: one build serves torch 2.11 and
// later, and every Python. Python has checked shapes, dtypes and devices before it calls these
// (`csr/checks.py`); what is checked again here is what memory safety rests on.
#include <torch/csrc/stable/library.h>

#include "cholesky.h"
#include "mamba2_step.h"
#include "permute.h"
#include "pieces.h"
#include "principal_blocks.h"
#include "sddmm.h"
#include "semiring_ops.h"
#include "spgemm.h"
#include "spmm.h"
#include "spmv.h"
#include "structure_ops.h"
#include "tensors.h"
#include "triangular_ops.h"

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
  // The first piece carries nothing, and is often the only one.
  const int64_t carried = pieces.count > 1 ? pieces.count : 0;
  const Tensor carries = carried ? torch::stable::new_empty(values, {batch.results, carried, k}) : out;
  dispatch(values, pattern, [&]<typename T, typename I, typename P>(T, I, P) {
    const Csr<I, P> a = pattern.view<I, P>();
    Spmm<T, I, P> first{a, left.data<T>(), right.data<T>(), k, batch.terms, left.step, right.step};
    T* const out_data = out.mutable_data_ptr<T>();
    T* const carry_data = carries.mutable_data_ptr<T>();
    for_each_piece(a, pieces, batch.results, [&](int64_t result, int64_t piece, Cut from, Cut to) {
      Spmm<T, I, P> p = first;
      p.values += result * left.step;
      p.x += result * right.step;
      T* const target = out_data + result * n_rows * k;
      T* const carry = carry_data + (result * pieces.count + piece) * k;
      if (k == 1) {
        (perm ? spmv_piece<true, T, I, P> : spmv_piece<false, T, I, P>)(p, from, to, target, carry);
      } else {
        (perm ? spmm_piece<true, T, I, P> : spmm_piece<false, T, I, P>)(p, from, to, target, carry);
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
  dispatch(u, pattern, [&]<typename T, typename I, typename P>(T, I, P) {
    const Csr<I, P> a = pattern.view<I, P>();
    Sddmm<T, I, P> first{a, left.data<T>(), right.data<T>(), k, batch.terms, left.step, right.step};
    T* const out_data = out.mutable_data_ptr<T>();
    for_each_piece(a, pieces, batch.results, [&](int64_t result, int64_t, Cut from, Cut to) {
      Sddmm<T, I, P> p = first;
      p.u += result * left.step;
      p.v += result * right.step;
      (k == 1 ? sddmm_piece<true, T, I, P> : sddmm_piece<false, T, I, P>)(
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
    STD_TORCH_CHECK(other->col.scalar_type() == a.col.scalar_type() &&
                        other->crow.scalar_type() == a.crow.scalar_type(),
                    "index dtypes differ");
  }
  STD_TORCH_CHECK(a_crow.numel() == c_crow.numel() && b_col.numel() == bt_col.numel(),
                  "the patterns do not fit each other");
  const Operand left(a_values, a_values, 2, a_col.numel());
  const Operand right(b_values, a_values, 2, b_col.numel());
  const Batch batch(left, right, reduce);
  const int64_t n_rows = c_crow.numel() - 1, nnz = c_col.numel();
  Tensor out = make_output(a_values, {batch.results, nnz});
  if (batch.terms == 0) return torch::stable::zero_(out);
  if (out.numel() == 0) return out;
  const int64_t n_sums = bt_crow.numel() - 1, n_marks = b_crow.numel() - 1;
  dispatch(a_values, a, [&]<typename T, typename I, typename P>(T, I, P) {
    const Spgemm<T, I, P> first{a.view<I, P>(),  b.view<I, P>(),  bt.view<I, P>(), c.view<I, P>(),
                                left.data<T>(),  right.data<T>(), batch.terms,     left.step,
                                right.step};
    T* const out_data = out.mutable_data_ptr<T>();
    const RowShares shares(n_rows, batch.results * batch.terms,
                           [&](int64_t row) { return signed_cost(first, row); });
    const Tensor numbers = torch::stable::new_empty(a_values, {shares.count, n_sums + n_marks});
    const Tensor marks = torch::stable::empty({shares.count, n_marks}, ScalarType::Bool);
    torch::stable::parallel_for(0, shares.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t share = begin; share < end; ++share) {
        T* const sums = numbers.mutable_data_ptr<T>() + share * (n_sums + n_marks);
        bool* const marked = marks.mutable_data_ptr<bool>() + share * n_marks;
        std::fill_n(marked, n_marks, false);
        for (int64_t result = 0; result < batch.results; ++result) {
          Spgemm<T, I, P> p = first;
          p.a_values += result * left.step;
          p.b_values += result * right.step;
          spgemm_rows(p, shares.begin(share), shares.begin(share + 1), shares.cost(),
                      SpgemmScratch<T>{sums, sums + n_sums, marked}, out_data + result * nnz);
        }
      }
    });
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
  m.def(
      "extremum(Tensor crow, Tensor col, Tensor? perm, Tensor values, Tensor x, int n_cols, "
      "bool largest, bool add) -> (Tensor, Tensor)");
  m.def(
      "log_sum_exp(Tensor crow, Tensor col, Tensor? perm, Tensor values, Tensor x, int n_cols, "
      "bool add) -> Tensor");
  m.def(
      "contract_rows(Tensor crow, Tensor col, Tensor? perm, Tensor values, Tensor x, Tensor y, "
      "Tensor entries, Tensor dense, int n_cols, bool transposed, bool soft, bool add) -> Tensor");
  m.def(
      "contract_entries(Tensor crow, Tensor col, Tensor? perm, Tensor values, Tensor x, Tensor y, "
      "Tensor q, Tensor r, int n_cols, bool soft, bool add) -> Tensor");
  m.def("transpose_structure(Tensor crow, Tensor col, int n_cols) -> (Tensor, Tensor, Tensor)");
  m.def("mirrored_entries(Tensor crow, Tensor col) -> Tensor");
  m.def("find_entries(Tensor crow, Tensor col, Tensor rows, Tensor cols) -> Tensor");
  m.def(
      "principal_blocks(Tensor crow, Tensor col, Tensor first, Tensor index) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "product_structure(Tensor a_crow, Tensor a_col, Tensor b_crow, Tensor b_col, int n_cols) "
      "-> (Tensor, Tensor)");
  m.def(
      "product(Tensor a_crow, Tensor a_col, Tensor b_crow, Tensor b_col, Tensor a_values, "
      "Tensor b_values, int n_cols) -> (Tensor, Tensor, Tensor)");
  m.def("permute(Tensor values, Tensor perm, bool inverse) -> Tensor");
  m.def("levels_of_rows(Tensor crow, Tensor col) -> Tensor");
  m.def(
      "solve_triangular(Tensor crow, Tensor col, Tensor? perm, Tensor t_crow, Tensor t_col, "
      "Tensor? t_perm, Tensor values, Tensor b, bool lower, bool unit) -> Tensor");
  m.def(
      "mamba2_step(Tensor inputs, Tensor steps, Tensor weight, Tensor? bias, Tensor earlier, "
      "Tensor log_decay, Tensor skip, Tensor step_bias, float low, float high, Tensor before, "
      "int groups) -> (Tensor, Tensor, Tensor)");
  m.def("ilu0(Tensor crow, Tensor col, Tensor values, int n_cols) -> Tensor");
  m.def("ic0(Tensor crow, Tensor col, Tensor values, int n_cols) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(sparsetorch_native, CPU, m) {
  m.impl("spmm", TORCH_BOX(&sparsetorch::spmm));
  m.impl("sddmm", TORCH_BOX(&sparsetorch::sddmm));
  m.impl("spgemm", TORCH_BOX(&sparsetorch::spgemm));
  m.impl("extremum", TORCH_BOX(&sparsetorch::extremum));
  m.impl("log_sum_exp", TORCH_BOX(&sparsetorch::log_sum_exp));
  m.impl("contract_rows", TORCH_BOX(&sparsetorch::contract_rows));
  m.impl("contract_entries", TORCH_BOX(&sparsetorch::contract_entries));
  m.impl("transpose_structure", TORCH_BOX(&sparsetorch::transpose_structure));
  m.impl("mirrored_entries", TORCH_BOX(&sparsetorch::mirrored_entries));
  m.impl("find_entries", TORCH_BOX(&sparsetorch::find_entries));
  m.impl("principal_blocks", TORCH_BOX(&sparsetorch::principal_blocks));
  m.impl("product_structure", TORCH_BOX(&sparsetorch::product_structure));
  m.impl("product", TORCH_BOX(&sparsetorch::product));
  m.impl("permute", TORCH_BOX(&sparsetorch::permute));
  m.impl("levels_of_rows", TORCH_BOX(&sparsetorch::levels_of_rows));
  m.impl("solve_triangular", TORCH_BOX(&sparsetorch::solve_triangular));
  m.impl("mamba2_step", TORCH_BOX(&sparsetorch::mamba2_step));
  m.impl("ilu0", TORCH_BOX(&sparsetorch::ilu0));
  m.impl("ic0", TORCH_BOX(&sparsetorch::ic0));
}
