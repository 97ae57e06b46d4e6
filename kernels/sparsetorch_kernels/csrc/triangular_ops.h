// The operators on triangles: levels, substitution, and factorizations without fill.
#pragma once

#include "incomplete.h"
#include "pieces.h"
#include "tensors.h"
#include "triangular.h"

namespace sparsetorch {
namespace {

// Calls f(T{}, I{}) with the C++ types of real values and their indices.
template <typename F>
void dispatch_real(const Tensor& values, const Tensor& index, F&& f) {
  const ScalarType type = values.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double,
                  "values must be float32 or float64");
  dispatch_index(index, [&](auto i) { type == ScalarType::Double ? f(double{}, i) : f(float{}, i); });
}

Tensor levels_of_rows(const Tensor& crow, const Tensor& col) {
  const Pattern pattern(crow, col, std::nullopt);
  Tensor level = torch::stable::new_empty(col, {crow.numel() - 1});
  dispatch_index(col, [&]<typename I>(I) {
    find_levels(pattern.view<I>(), level.mutable_data_ptr<I>());
  });
  return level;
}

// How the work of a batch of solves is divided. What changes the order of a sum, `by_columns`,
// does not depend on the number of threads.
struct SolvePlan {
  static constexpr int64_t kWorthATask = 32768;  // operations
  int64_t shares;                                // of the columns of b
  bool by_columns, by_levels;
  int64_t grain;

  SolvePlan(int64_t n, int64_t nnz, int64_t k, int64_t results, int64_t levels, bool turned) {
    const int64_t threads = torch::stable::get_num_threads(), work = (n + nnz) * k;
    const bool large_levels = work / levels >= kWorthATask;
    shares = std::clamp<int64_t>(k / 16, 1, threads);
    by_columns = k == 1 && turned && !large_levels;
    by_levels = large_levels && results * shares < threads;
    grain = std::max<int64_t>(1, by_levels ? kWorthATask / (1 + work / n)
                                           : kWorthATask * shares / work);
  }
};

// x with T x = b; an error names the first row without a diagonal. starts and rows are level sets:
// of T, if it is lower, and of its transpose otherwise, where they serve from the last to the
// first. Right-hand sides are divided among the threads; the rows of a level only where there are
// too few of those, and the levels are large enough.
Tensor solve_triangular(const Tensor& crow, const Tensor& col, const MaybeTensor& perm,
                        const Tensor& t_crow, const Tensor& t_col, const MaybeTensor& t_perm,
                        const Tensor& starts, const Tensor& rows, const Tensor& values,
                        const Tensor& b, bool lower, bool unit) {
  const Pattern pattern(crow, col, perm), transposed(t_crow, t_col, t_perm),
      levels(starts, rows, std::nullopt);
  const int64_t k = b.size(2), nnz = col.numel(), n = crow.numel() - 1;
  const Operand left(values, values, 2, nnz), right(b, values, 3, n, k);
  const Batch batch(left, right, false);
  STD_TORCH_CHECK(t_col.scalar_type() == col.scalar_type() && t_col.numel() == nnz &&
                      t_crow.numel() == n + 1,
                  "the transposed pattern does not fit");
  STD_TORCH_CHECK(rows.scalar_type() == col.scalar_type() && rows.numel() == n,
                  "the level sets do not fit the pattern");
  Tensor out = make_output(values, {batch.results, n, k});
  if (out.numel() == 0) return out;
  const int64_t n_levels = starts.numel() - 1;
  STD_TORCH_CHECK(n_levels > 0, "the level sets do not fit the pattern");
  const SolvePlan plan(n, nnz, k, batch.results, n_levels, perm && !t_perm);
  FirstRow singular;
  dispatch_real(values, col, [&]<typename T, typename I>(T, I) {
    const auto solve = [&]<bool kLower, bool kPerm>() {
      const auto system = [&](int64_t result) {
        return Triangular<T, I>{(plan.by_columns ? transposed : pattern).view<I>(),
                                left.data<T>() + result * left.step,
                                right.data<T>() + result * right.step,
                                out.mutable_data_ptr<T>() + result * n * k, k, unit, &singular};
      };
      const auto run_shares = [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
          const int64_t result = task / plan.shares, share = task % plan.shares;
          if (plan.by_columns) {
            substitute_by_columns<kLower>(system(result));
          } else {
            substitute<kLower, kPerm>(system(result), k * share / plan.shares,
                                      k * (share + 1) / plan.shares);
          }
        }
      };
      if (!plan.by_levels) {
        return torch::stable::parallel_for(0, batch.results * plan.shares, plan.grain, run_shares);
      }
      const Csr<I> sets = levels.view<I>();
      for (int64_t result = 0; result < batch.results; ++result) {
        const Triangular<T, I> p = system(result);
        for (int64_t step = 0; step < n_levels; ++step) {
          const int64_t level = kLower ? step : n_levels - 1 - step;
          const auto run_rows = [&](int64_t begin, int64_t end) {
            substitute_rows<kLower, kPerm>(p, sets.col + begin, sets.col + end);
          };
          torch::stable::parallel_for(sets.crow[level], sets.crow[level + 1], plan.grain, run_rows);
        }
      }
    };
    if (lower) {
      perm ? solve.template operator()<true, true>() : solve.template operator()<true, false>();
    } else {
      perm ? solve.template operator()<false, true>() : solve.template operator()<false, false>();
    }
  });
  STD_TORCH_CHECK(singular.found() < 0, "no diagonal in row ", singular.found());
  return out;
}

// Factorizes each matrix of a batch, values (batch, nnz), by
// Factorize(pattern)(values, which become factors) -> the first row without a pivot, or -1. An error
// names the first such row of all matrices.
template <template <typename, typename> typename Factorize>
Tensor factorize(const Tensor& crow, const Tensor& col, const Tensor& values, int64_t n_cols) {
  const Pattern pattern(crow, col, std::nullopt);
  const int64_t n = crow.numel() - 1, nnz = col.numel();
  STD_TORCH_CHECK(n == n_cols, "the pattern must be square");
  const Operand given(values, values, 2, nnz);
  Tensor out = make_output(values, {given.batch, nnz});
  FirstRow broken;
  dispatch_real(values, col, [&]<typename T, typename I>(T, I) {
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
  });
  STD_TORCH_CHECK(broken.found() < 0, "no pivot in row ", broken.found());
  return out;
}

Tensor ilu0(const Tensor& crow, const Tensor& col, const Tensor& values, int64_t n_cols) {
  return factorize<Ilu0>(crow, col, values, n_cols);
}

Tensor ic0(const Tensor& crow, const Tensor& col, const Tensor& values, int64_t n_cols) {
  return factorize<Ic0>(crow, col, values, n_cols);
}

}  // namespace
}  // namespace sparsetorch
