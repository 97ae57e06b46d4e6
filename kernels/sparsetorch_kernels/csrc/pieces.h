// The division of a product's work among threads.
#pragma once

#include <cstdlib>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "csr.h"

namespace sparsetorch {

// Pieces of fixed size: their number depends on the pattern and not on the thread count, so the
// order of every sum, and with it the result to the last bit, is the same on any machine load.
struct Pieces {
  int64_t steps;  // entries and row ends in all
  int64_t size;   // of a piece, in steps
  int64_t count;
  int64_t grain;  // fewer pieces than this are not worth another thread

  // `cost`: operations per entry.
  Pieces(int64_t n_rows, int64_t nnz, int64_t cost)
      : steps(n_rows + nnz),
        size(std::max<int64_t>(512, 32768 / std::max<int64_t>(cost, 1))),
        count(std::max<int64_t>(1, (steps + size - 1) / size)),
        grain(std::max<int64_t>(1, 16384 / (1 + std::min(size, steps) * cost))) {}

  int64_t begin(int64_t piece) const { return std::min(piece * size, steps); }
};

// Calls visit(result, piece, from, to) for every piece of every result of a batch, in parallel.
template <typename I, typename P, typename Visit>
void for_each_piece(const Csr<I, P>& a, const Pieces& pieces, int64_t results, const Visit& visit) {
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t result = task / pieces.count, piece = task % pieces.count;
      const Cut from = cut_at(a, pieces.begin(piece)), to = cut_at(a, pieces.begin(piece + 1));
      visit(result, piece, from, to);
    }
  };
  torch::stable::parallel_for(0, results * pieces.count, pieces.grain, run);
}

// Whole rows divided into shares of equal cost, one for each thread that is worth its start.
// The sign of a row's cost is the caller's to use.
class RowShares {
 public:
  int64_t count;

  template <typename Cost>
  RowShares(int64_t n_rows, int64_t repeats, const Cost& cost)
      : n_rows_(n_rows), costs_(make(n_rows)), before_(make(n_rows + 1)) {
    int64_t* costs = costs_.mutable_data_ptr<int64_t>();
    int64_t* before = before_.mutable_data_ptr<int64_t>();
    torch::stable::parallel_for(0, n_rows, 4096, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) costs[row] = cost(row);
    });
    before[0] = 0;
    for (int64_t row = 0; row < n_rows; ++row) before[row + 1] = before[row] + std::abs(costs[row]);
    const int64_t useful = 1 + before[n_rows] * repeats / 65536;
    count = std::min<int64_t>(torch::stable::get_num_threads(), useful);
  }

  const int64_t* cost() const { return costs_.const_data_ptr<int64_t>(); }

  // Of all rows of a share.
  int64_t cost(int64_t share) const {
    const int64_t* before = before_.const_data_ptr<int64_t>();
    return before[begin(share + 1)] - before[begin(share)];
  }

  int64_t begin(int64_t share) const {
    if (share == count) return n_rows_;
    const int64_t* before = before_.const_data_ptr<int64_t>();
    return std::lower_bound(before, before + n_rows_, before[n_rows_] / count * share) - before;
  }

 private:
  static torch::stable::Tensor make(int64_t size) {
    return torch::stable::empty({size}, torch::headeronly::ScalarType::Long);
  }

  int64_t n_rows_;
  torch::stable::Tensor costs_, before_;
};

}  // namespace sparsetorch
