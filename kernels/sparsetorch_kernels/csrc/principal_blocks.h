// The principal submatrices of a pattern on sets of indices, as one block-diagonal pattern.
#pragma once

#include <atomic>
#include <tuple>

#include "pieces.h"
#include "tensors.h"

namespace sparsetorch {

// first (S + 1,) and index (N,), int64: set k is index[first[k]] .. index[first[k + 1] - 1], each
// once and in increasing order. Returns crow (N + 1,), col and source, int64: local column numbers
// count through all sets, and source has the place of each entry in the pattern.
inline std::tuple<Tensor, Tensor, Tensor> principal_blocks(const Tensor& crow, const Tensor& col,
                                                           const Tensor& first_,
                                                           const Tensor& index_) {
  const Pattern pattern(crow, col, std::nullopt);
  const Tensor first = as_contiguous(first_), index = as_contiguous(index_);
  for (const Tensor* t : {&first, &index}) {
    STD_TORCH_CHECK(t->is_cpu() && t->scalar_type() == ScalarType::Long && t->dim() == 1,
                    "first and index must be int64 vectors on the CPU");
  }
  const int64_t n = crow.numel() - 1, n_sets = first.numel() - 1, size = index.numel();
  const int64_t* const at = first.const_data_ptr<int64_t>();
  const int64_t* const wanted = index.const_data_ptr<int64_t>();
  STD_TORCH_CHECK(n_sets >= 0 && at[0] == 0 && at[n_sets] == size,
                  "first: expected 0 .. ", size, " in order");
  for (int64_t k = 0; k < n_sets; ++k) {
    STD_TORCH_CHECK(at[k] <= at[k + 1], "first: expected 0 .. ", size, " in order");
  }
  std::atomic<bool> outside = false;
  torch::stable::parallel_for(0, size, 65536, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (wanted[i] < 0 || wanted[i] >= n) outside = true;
    }
  });
  STD_TORCH_CHECK(!outside, "index: expected rows 0 .. ", n - 1);

  const Tensor block_crow = make_output(first, {size + 1});
  Tensor block_col, source;
  dispatch_pattern(pattern, [&]<typename I, typename P>(I, P) {
    const Csr<I, P> a = pattern.view<I, P>();
    const RowShares shares(n_sets, 1, [&](int64_t k) {
      int64_t entries = 1;
      for (int64_t i = at[k]; i < at[k + 1]; ++i) entries += a.crow[wanted[i] + 1] - a.crow[wanted[i]];
      return entries;
    });
    const Tensor numbers = torch::stable::new_empty(first, {shares.count, n});
    // Calls visit(i, entry, number) for each entry of local row i whose column is in its set, too.
    const auto each_entry = [&](auto&& visit) {
      torch::stable::parallel_for(0, shares.count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t share = begin; share < end; ++share) {
          int64_t* const number = numbers.mutable_data_ptr<int64_t>() + share * n;
          std::fill_n(number, n, int64_t{-1});
          for (int64_t k = shares.begin(share); k < shares.begin(share + 1); ++k) {
            for (int64_t i = at[k]; i < at[k + 1]; ++i) number[wanted[i]] = i;
            for (int64_t i = at[k]; i < at[k + 1]; ++i) {
              for (int64_t e = a.crow[wanted[i]]; e < a.crow[wanted[i] + 1]; ++e) {
                const int64_t j = a.col[e];
                if (j < 0 || j >= n) {
                  outside = true;
                } else if (number[j] >= 0) {
                  visit(i, e, number[j]);
                }
              }
            }
            for (int64_t i = at[k]; i < at[k + 1]; ++i) number[wanted[i]] = -1;
          }
        }
      });
    };
    int64_t* const start = block_crow.mutable_data_ptr<int64_t>();
    std::fill_n(start, size + 1, int64_t{0});
    each_entry([&](int64_t i, int64_t, int64_t) { ++start[i + 1]; });
    for (int64_t i = 0; i < size; ++i) start[i + 1] += start[i];
    block_col = make_output(first, {start[size]});
    source = make_output(first, {start[size]});
    int64_t* const to_col = block_col.mutable_data_ptr<int64_t>();
    int64_t* const to_source = source.mutable_data_ptr<int64_t>();
    each_entry([&](int64_t i, int64_t e, int64_t j) {
      to_col[start[i]] = j;
      to_source[start[i]++] = e;
    });
    // Each row's start has become its end, which is where the next row starts.
    std::copy_backward(start, start + size, start + size + 1);
    start[0] = 0;
  });
  STD_TORCH_CHECK(!outside, "col: expected a square pattern, with columns 0 .. ", n - 1);
  return {block_crow, block_col, source};
}

}  // namespace sparsetorch
