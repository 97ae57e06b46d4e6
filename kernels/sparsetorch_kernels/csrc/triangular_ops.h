// The operators on triangles: levels, substitution, and factorizations without fill.
#pragma once

#include "incomplete.h"
#include "pieces.h"
#include "tensors.h"
#include "triangular.h"

namespace sparsetorch {
namespace {

Tensor levels_of_rows(const Tensor& crow, const Tensor& col) {
  const Pattern pattern(crow, col, std::nullopt);
  Tensor level = torch::stable::new_empty(col, {crow.numel() - 1});
  dispatch_index(col, [&]<typename I>(I) {
    find_levels(pattern.view<I>(), level.mutable_data_ptr<I>());
  });
  return level;
}

// x with T x = b; an error names the first row without a diagonal. Threads share the right-hand
// sides. They could share the unknowns of a level set too, but would have to meet after each: on two
// cores that other programs use as well, this lost more than it gained even with two levels only.
Tensor solve_triangular(const Tensor& crow, const Tensor& col, const MaybeTensor& perm,
                        const Tensor& t_crow, const Tensor& t_col, const MaybeTensor& t_perm,
                        const Tensor& values, const Tensor& b, bool lower, bool unit) {
  const Pattern pattern(crow, col, perm), transposed(t_crow, t_col, t_perm);
  const int64_t k = b.size(2), nnz = col.numel(), n = crow.numel() - 1;
  const Operand left(values, values, 2, nnz), right(b, values, 3, n, k);
  const Batch batch(left, right, false);
  STD_TORCH_CHECK(t_col.scalar_type() == col.scalar_type() && t_col.numel() == nnz &&
                      t_crow.numel() == n + 1,
                  "the transposed pattern does not fit");
  Tensor out = make_output(values, {batch.results, n, k});
  if (out.numel() == 0) return out;
  constexpr int64_t kWorthATask = 32768;  // operations
  const int64_t shares = std::clamp<int64_t>(k / 16, 1, torch::stable::get_num_threads());
  const int64_t grain = std::max<int64_t>(1, kWorthATask * shares / ((n + nnz) * k));
  const bool by_columns = k == 1 && perm && !t_perm;
  FirstRow singular;
  const auto solve_all = [&]<typename T, typename I>(T, I) {
    const auto solve = [&]<bool kLower, bool kPerm>(int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t result = task / shares, share = task % shares;
        const Triangular<T, I> system{(by_columns ? transposed : pattern).view<I>(),
                                      left.data<T>() + result * left.step,
                                      right.data<T>() + result * right.step,
                                      out.mutable_data_ptr<T>() + result * n * k,
                                      k,
                                      unit,
                                      &singular};
        if (by_columns) {
          substitute_by_columns<kLower>(system);
        } else {
          substitute<kLower, kPerm>(system, k * share / shares, k * (share + 1) / shares);
        }
      }
    };
    const auto run = [&](int64_t begin, int64_t end) {
      if (lower) {
        perm ? solve.template operator()<true, true>(begin, end)
             : solve.template operator()<true, false>(begin, end);
      } else {
        perm ? solve.template operator()<false, true>(begin, end)
             : solve.template operator()<false, false>(begin, end);
      }
    };
    torch::stable::parallel_for(0, batch.results * shares, grain, run);
  };
  dispatch_field(values, [&](auto t) { dispatch_index(col, [&](auto i) { solve_all(t, i); }); });
  STD_TORCH_CHECK(singular.found() < 0, "no diagonal in row ", singular.found());
  return out;
}

// Factorizes each matrix of a batch, values (batch, nnz), by
// Factorize(pattern)(values, which become factors) -> the first row without a pivot, or -1. An error
// names the first such row of all matrices. Real matrices, and complex ones if kComplex.
template <template <typename, typename> typename Factorize, bool kComplex>
Tensor factorize(const Tensor& crow, const Tensor& col, const Tensor& values, int64_t n_cols) {
  const Pattern pattern(crow, col, std::nullopt);
  const int64_t n = crow.numel() - 1, nnz = col.numel();
  STD_TORCH_CHECK(n == n_cols, "the pattern must be square");
  const Operand given(values, values, 2, nnz);
  Tensor out = make_output(values, {given.batch, nnz});
  FirstRow broken;
  const auto factorize_all = [&]<typename T, typename I>(T, I) {
    const Csr<I> a = pattern.view<I>();
    T* const out_data = out.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, given.batch, 1, [&](int64_t begin, int64_t end) {
      Factorize<T, I> run(a);
      for (int64_t matrix = begin; matrix < end; ++matrix) {
        T* const factors = out_data + matrix * nnz;
        std::copy_n(given.data<T>() + matrix * given.step, nnz, factors);
        const int64_t row = run(factors);
        if (row >= 0) broken.report(row);
      }
    });
  };
  const auto with_index = [&](auto t) {
    dispatch_index(col, [&](auto i) { factorize_all(t, i); });
  };
  if constexpr (kComplex) {
    dispatch_field(values, with_index);
  } else {
    dispatch_real(values, with_index);
  }
  STD_TORCH_CHECK(broken.found() < 0, "no pivot in row ", broken.found());
  return out;
}

Tensor ilu0(const Tensor& crow, const Tensor& col, const Tensor& values, int64_t n_cols) {
  return factorize<Ilu0, true>(crow, col, values, n_cols);
}

Tensor ic0(const Tensor& crow, const Tensor& col, const Tensor& values, int64_t n_cols) {
  return factorize<Ic0, false>(crow, col, values, n_cols);
}

}  // namespace
}  // namespace sparsetorch
