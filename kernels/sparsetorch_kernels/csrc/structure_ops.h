// The operators that find structure: the transpose of a pattern and the pattern of a product.
#pragma once

#include <tuple>
#include <utility>
#include <vector>

#include "pieces.h"
#include "structure.h"
#include "tensors.h"

namespace sparsetorch {

// The transpose of a pattern: its crow and col, and the place in `col` of each of its entries.
inline std::tuple<Tensor, Tensor, Tensor> transpose_structure(const Tensor& crow,
                                                              const Tensor& col, int64_t n_cols) {
  const Pattern pattern(crow, col, std::nullopt);
  const int64_t nnz = col.numel(), n_rows = crow.numel() - 1;
  Tensor t_crow = make_output(crow, {n_cols + 1}), t_col = make_output(col, {nnz}),
         t_perm = make_output(crow, {nnz});
  // Each thread counts its share of the rows in an array over all columns, so that its entries can
  // be placed after those of the threads before: the order is that of the rows, whatever the count.
  const int64_t useful = std::min(1 + nnz / 65536, 1 + nnz / (1 + n_cols));
  const int64_t shares = std::min<int64_t>(torch::stable::get_num_threads(), useful);
  const Tensor counts = torch::stable::new_zeros(crow, {shares, n_cols});
  dispatch_pattern(pattern, [&]<typename I, typename P>(I, P) {
    const Csr<I, P> a = pattern.view<I, P>();
    P* const count = counts.mutable_data_ptr<P>();
    const auto first_row = [&](int64_t share) {
      const int64_t entry = nnz / shares * share;
      return share == shares ? n_rows : std::lower_bound(a.crow, a.crow + n_rows, entry) - a.crow;
    };
    const auto in_parallel = [&](auto&& work) {
      torch::stable::parallel_for(0, shares, 1, [&](int64_t begin, int64_t end) {
        for (int64_t share = begin; share < end; ++share) {
          work(first_row(share), first_row(share + 1), count + share * n_cols);
        }
      });
    };
    in_parallel([&](int64_t begin, int64_t end, P* own) { count_columns(a, begin, end, own); });
    P* const start = t_crow.mutable_data_ptr<P>();
    P total = 0;
    for (int64_t j = 0; j < n_cols; ++j) {
      start[j] = total;
      for (int64_t share = 0; share < shares; ++share) {
        std::swap(count[share * n_cols + j], total);
        total += count[share * n_cols + j];
      }
    }
    start[n_cols] = total;
    in_parallel([&](int64_t begin, int64_t end, P* own) {
      place_entries(a, begin, end, own, t_col.mutable_data_ptr<I>(), t_perm.mutable_data_ptr<P>());
    });
  });
  return {t_crow, t_col, t_perm};
}

// Indices of a number not known before, in tensors of a million or more.
template <typename I>
class Collected {
 public:
  explicit Collected(const Tensor& like) : like_(like) {}

  // Room for `most` more, in one piece; `add` says how many of them came.
  I* reserve(int64_t most) {
    if (parts_.empty() || used_.back() + most > parts_.back().numel()) {
      parts_.push_back(make_output(like_, {std::max<int64_t>(most, int64_t{1} << 20)}));
      used_.push_back(0);
    }
    return parts_.back().mutable_data_ptr<I>() + used_.back();
  }

  void add(int64_t count) { used_.back() += count; }

  void copy_to(I* to) const {
    for (size_t part = 0; part < parts_.size(); ++part) {
      to = std::copy_n(parts_[part].const_data_ptr<I>(), used_[part], to);
    }
  }

 private:
  Tensor like_;
  std::vector<Tensor> parts_;
  std::vector<int64_t> used_;
};

// The pattern of A B, with crow in int64. Each thread collects the rows of its share, and copies
// them to their place when the sizes of all are known.
inline std::tuple<Tensor, Tensor> product_structure(const Tensor& a_crow, const Tensor& a_col,
                                                    const Tensor& b_crow, const Tensor& b_col,
                                                    int64_t n_cols) {
  const Pattern left(a_crow, a_col, std::nullopt), right(b_crow, b_col, std::nullopt);
  STD_TORCH_CHECK(left.col.scalar_type() == right.col.scalar_type() &&
                      left.crow.scalar_type() == right.crow.scalar_type(),
                  "index dtypes differ");
  const int64_t n_rows = a_crow.numel() - 1;
  const Tensor crow = torch::stable::empty({n_rows + 1}, ScalarType::Long);
  Tensor col;
  dispatch_pattern(left, [&]<typename I, typename P>(I, P) {
    const Csr<I, P> a = left.view<I, P>(), b = right.view<I, P>();
    int64_t* const start = crow.mutable_data_ptr<int64_t>();
    const RowShares shares(n_rows, 1, [&](int64_t row) {
      int64_t products = 1;
      for (int64_t e = a.crow[row]; e < a.crow[row + 1]; ++e) {
        products += b.crow[a.col[e] + 1] - b.crow[a.col[e]];
      }
      return products;
    });
    const auto each_share = [&](auto&& work) {
      torch::stable::parallel_for(0, shares.count, 1, [&](int64_t first, int64_t last) {
        for (int64_t share = first; share < last; ++share) {
          work(share, shares.begin(share), shares.begin(share + 1));
        }
      });
    };
    const int64_t n_words = (n_cols + 63) / 64, n_groups = (n_words + 63) / 64;
    const Tensor marks = torch::stable::new_empty(left.col, {shares.count, n_cols});
    const Tensor bits = torch::stable::new_zeros(crow, {shares.count, n_words + n_groups});
    std::vector<Collected<I>> found(shares.count, Collected<I>(left.col));
    each_share([&](int64_t share, int64_t begin, int64_t end) {
      I* const seen = marks.mutable_data_ptr<I>() + share * n_cols;
      std::fill_n(seen, n_cols, I{-1});
      auto* const words = reinterpret_cast<uint64_t*>(bits.mutable_data_ptr<int64_t>()) +
                          share * (n_words + n_groups);
      const ProductScratch<I> scratch{seen, words, words + n_words, n_groups};
      for (int64_t row = begin; row < end; ++row) {
        const int64_t products = shares.cost()[row] - 1;
        I* const to = found[share].reserve(std::min(products, n_cols));
        start[row] = products > kShortRow ? long_row(a, b, row, scratch, to)
                                          : short_row(a, b, row, seen, to);
        found[share].add(start[row]);
      }
    });
    int64_t total = 0;
    for (int64_t row = 0; row < n_rows; ++row) total += std::exchange(start[row], total);
    start[n_rows] = total;
    col = make_output(left.col, {total});
    each_share([&](int64_t share, int64_t begin, int64_t) {
      found[share].copy_to(col.mutable_data_ptr<I>() + start[begin]);
    });
  });
  return {crow, col};
}

}  // namespace sparsetorch
