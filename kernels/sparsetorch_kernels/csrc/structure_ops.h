// The operators that find structure: the transpose of a pattern, and the pattern of a product, with
// its values where they are wanted as well.
#pragma once

#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "pieces.h"
#include "structure.h"
#include "tensors.h"

namespace sparsetorch {

// Rows and columns divided among threads, for a pattern of which each thread keeps one number per
// column.
template <typename I, typename P>
struct TransposeShares {
  const Csr<I, P>& a;
  int64_t n_cols;
  int64_t count;

  TransposeShares(const Csr<I, P>& pattern, int64_t columns)
      : a(pattern),
        n_cols(columns),
        count(std::min<int64_t>(
            torch::stable::get_num_threads(),
            std::min(1 + pattern.nnz / 65536, 1 + pattern.nnz / (1 + columns)))) {}

  int64_t row(int64_t share) const {
    if (share == count) return a.n_rows;
    return std::lower_bound(a.crow, a.crow + a.n_rows, a.nnz / count * share) - a.crow;
  }

  int64_t col(int64_t share) const { return n_cols * share / count; }

  template <typename Work>
  void in_parallel(Work&& work) const {
    torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t share = begin; share < end; ++share) work(share);
    });
  }
};

// The transpose of a pattern: its crow and col, and the place in `col` of each of its entries.
inline std::tuple<Tensor, Tensor, Tensor> transpose_structure(const Tensor& crow,
                                                              const Tensor& col, int64_t n_cols) {
  const Pattern pattern(crow, col, std::nullopt);
  const int64_t nnz = col.numel();
  Tensor t_crow = make_output(crow, {n_cols + 1}), t_col = make_output(col, {nnz}),
         t_perm = make_output(crow, {nnz});
  dispatch_pattern(pattern, [&]<typename I, typename P>(I, P) {
    const Csr<I, P> a = pattern.view<I, P>();
    // Each thread counts its share of the rows in an array over all columns, so that its entries
    // can be placed after those of the threads before: the order is that of the rows, whatever the
    // number of threads.
    const TransposeShares<I, P> shares(a, n_cols);
    const Tensor counts = torch::stable::new_empty(crow, {shares.count, n_cols});
    P* const count = counts.mutable_data_ptr<P>();
    shares.in_parallel([&](int64_t share) {
      P* const own = count + share * n_cols;
      std::fill_n(own, n_cols, P{0});
      count_columns(a, shares.row(share), shares.row(share + 1), own);
    });
    std::vector<P> total(shares.count);  // entries in each thread's share of the columns
    shares.in_parallel([&](int64_t share) {
      P sum = 0;
      for (int64_t s = 0; s < shares.count; ++s) {
        const P* const of_share = count + s * n_cols;
        sum = std::accumulate(of_share + shares.col(share), of_share + shares.col(share + 1), sum);
      }
      total[share] = sum;
    });
    P* const start = t_crow.mutable_data_ptr<P>();
    shares.in_parallel([&](int64_t share) {
      P next = std::accumulate(total.begin(), total.begin() + share, P{0});
      for (int64_t j = shares.col(share); j < shares.col(share + 1); ++j) {
        start[j] = next;
        for (int64_t s = 0; s < shares.count; ++s) {
          next += std::exchange(count[s * n_cols + j], next);
        }
      }
    });
    start[n_cols] = static_cast<P>(nnz);
    I* const to_col = t_col.mutable_data_ptr<I>();
    P* const to_perm = t_perm.mutable_data_ptr<P>();
    shares.in_parallel([&](int64_t share) {
      place_entries(a, shares.row(share), shares.row(share + 1), count + share * n_cols, to_col,
                    to_perm);
    });
  });
  return {t_crow, t_col, t_perm};
}

// Where the entry (rows[k], cols[k]) of a pattern with increasing columns is; -1 where there is none.
inline Tensor find_entries(const Tensor& crow, const Tensor& col, const Tensor& rows_,
                           const Tensor& cols_) {
  const Pattern pattern(crow, col, std::nullopt);
  const Tensor rows = as_contiguous(rows_), cols = as_contiguous(cols_);
  for (const Tensor* t : {&rows, &cols}) {
    STD_TORCH_CHECK(t->is_cpu() && t->scalar_type() == ScalarType::Long && t->dim() == 1 &&
                        t->numel() == rows.numel(),
                    "rows and cols must be int64 vectors of one length on the CPU");
  }
  Tensor place = make_output(rows, {rows.numel()});
  const int64_t* const row = rows.const_data_ptr<int64_t>();
  const int64_t* const column = cols.const_data_ptr<int64_t>();
  int64_t* const out = place.mutable_data_ptr<int64_t>();
  std::atomic<bool> outside = false;
  dispatch_pattern(pattern, [&]<typename I, typename P>(I, P) {
    const Csr<I, P> a = pattern.view<I, P>();
    torch::stable::parallel_for(0, rows.numel(), 4096, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        if (row[k] < 0 || row[k] >= a.n_rows) {
          outside = true;
          continue;
        }
        const I* const last = a.col + a.crow[row[k] + 1];
        const I* const found = std::lower_bound(a.col + a.crow[row[k]], last, column[k]);
        out[k] = found != last && *found == column[k] ? found - a.col : -1;
      }
    });
  });
  STD_TORCH_CHECK(!outside, "rows: an index out of range");
  return place;
}

// For a square pattern that is symmetric, and so its own transpose: the place of (j, i) for each
// entry (i, j). Nothing, an empty tensor, for any other, mostly after a few rows, and for one whose
// entries are all over the matrix, which `transpose_structure` turns faster.
inline Tensor mirrored_entries(const Tensor& crow, const Tensor& col) {
  const Pattern pattern(crow, col, std::nullopt);
  Tensor perm = make_output(crow, {col.numel()});
  std::atomic<bool> failed = false;
  std::atomic<int64_t> surplus = 0;
  dispatch_pattern(pattern, [&]<typename I, typename P>(I, P) {
    const Csr<I, P> a = pattern.view<I, P>();
    failed = !is_banded(a);
    if (failed) return;
    const TransposeShares<I, P> shares(a, a.n_rows);
    const Tensor places = torch::stable::new_empty(crow, {shares.count, a.n_rows});
    shares.in_parallel([&](int64_t share) {
      P* const next = places.mutable_data_ptr<P>() + share * a.n_rows;
      const std::optional<int64_t> own = pair_entries(
          a, shares.row(share), shares.row(share + 1), next, perm.mutable_data_ptr<P>(), failed);
      own ? void(surplus += *own) : void(failed = true);
    });
  });
  return failed || surplus != 0 ? torch::stable::new_empty(crow, {0}) : perm;
}

// Indices or values of a number not known before, but at most `bound`, in tensors of at most four
// million (of which the operating system makes huge pages) unless more are asked for at once.
template <typename I>
class Collected {
 public:
  Collected(const Tensor& like, int64_t bound)
      : like_(like), part_size_(std::min(bound, int64_t{1} << 22)) {}

  // Room for `most` more, in one piece; `add` says how many of them came.
  I* reserve(int64_t most) {
    if (most > end_ - next_) {
      close();
      const Tensor part = make_output(like_, {std::max(most, part_size_)});
      parts_.push_back(part);
      begin_ = next_ = part.mutable_data_ptr<I>();
      end_ = begin_ + part.numel();
    }
    return next_;
  }

  void add(int64_t count) { next_ += count; }

  void copy_to(I* to) {
    close();
    for (size_t part = 0; part < parts_.size(); ++part) {
      to = std::copy_n(parts_[part].const_data_ptr<I>(), used_[part], to);
    }
  }

 private:
  void close() {
    if (used_.size() < parts_.size()) used_.push_back(next_ - begin_);
  }

  Tensor like_;
  int64_t part_size_;
  std::vector<Tensor> parts_;
  std::vector<int64_t> used_;
  I *begin_ = nullptr, *next_ = nullptr, *end_ = nullptr;  // of the last part
};

// What becomes of the products of a row: nothing, where the pattern alone is wanted.
struct NoSums {
  void add(int64_t, int64_t, int64_t, bool) {}
  template <typename I>
  void end_row(const I*, int64_t) {}
};

// Their sums, at each of the row's columns. `sums` has a place for every column of the product.
template <typename T>
struct RowSums {
  const T* a_values;
  const T* b_values;
  T* sums;
  Collected<T> values;

  void add(int64_t e, int64_t f, int64_t j, bool is_new) {
    sums[j] = (is_new ? T{0} : sums[j]) + a_values[e] * b_values[f];
  }

  template <typename I>
  void end_row(const I* row, int64_t count) {
    T* const to = values.reserve(count);
    for (int64_t k = 0; k < count; ++k) to[k] = sums[row[k]];
    values.add(count);
  }
};

// The patterns of A and B, for their product.
struct Factors {
  Pattern left, right;
  int64_t n_rows, n_cols;

  Factors(const Tensor& a_crow, const Tensor& a_col, const Tensor& b_crow, const Tensor& b_col,
          int64_t columns)
      : left(a_crow, a_col, std::nullopt),
        right(b_crow, b_col, std::nullopt),
        n_rows(a_crow.numel() - 1),
        n_cols(columns) {
    STD_TORCH_CHECK(left.col.scalar_type() == right.col.scalar_type() &&
                        left.crow.scalar_type() == right.crow.scalar_type(),
                    "index dtypes differ");
  }
};

// Rows shared among threads by the number of their products, and one more.
template <typename I, typename P>
RowShares product_shares(const Csr<I, P>& a, const Csr<I, P>& b) {
  return RowShares(a.n_rows, 1, [&](int64_t row) {
    int64_t products = 1;
    for (int64_t e = a.crow[row]; e < a.crow[row + 1]; ++e) {
      products += b.crow[a.col[e] + 1] - b.crow[a.col[e]];
    }
    return products;
  });
}

// Calls work(share) for each share, in parallel.
template <typename Work>
void for_each_share(const RowShares& shares, const Work& work) {
  torch::stable::parallel_for(0, shares.count, 1, [&](int64_t first, int64_t last) {
    for (int64_t share = first; share < last; ++share) work(share);
  });
}

// The pattern of A B: its row pointers, put into `start`, and its columns. Each thread collects the
// rows of its share, tells that share's `sums` of each product and of the end of each row, and
// copies its columns to their place when the sizes of all rows are known.
template <typename I, typename P, typename Sums>
Tensor find_product(const Factors& factors, const RowShares& shares, std::vector<Sums>& sums,
                    int64_t* start) {
  const Csr<I, P> a = factors.left.view<I, P>(), b = factors.right.view<I, P>();
  const Tensor& like = factors.left.col;
  const int64_t n_cols = factors.n_cols;
  const int64_t n_words = (n_cols + 63) / 64, n_groups = (n_words + 63) / 64;
  const Tensor marks = torch::stable::new_empty(like, {shares.count, n_cols});
  Tensor bits = torch::stable::empty({shares.count, n_words + n_groups}, ScalarType::Long);
  torch::stable::zero_(bits);
  std::vector<Collected<I>> found;
  for (int64_t share = 0; share < shares.count; ++share) {
    found.emplace_back(like, shares.cost(share));
  }
  for_each_share(shares, [&](int64_t share) {
    I* const seen = marks.mutable_data_ptr<I>() + share * n_cols;
    std::fill_n(seen, n_cols, I{-1});
    auto* const words = reinterpret_cast<uint64_t*>(bits.mutable_data_ptr<int64_t>()) +
                        share * (n_words + n_groups);
    const ProductScratch<I> scratch{seen, words, words + n_words, n_groups};
    const int64_t* const cost = shares.cost();
    Collected<I>& own = found[share];
    Sums& own_sums = sums[share];
    for (int64_t row = shares.begin(share); row < shares.begin(share + 1); ++row) {
      const int64_t products = cost[row] - 1;
      I* const to = own.reserve(std::min(products, n_cols));
      start[row] = products > kShortRow ? long_row(a, b, row, scratch, to, own_sums)
                                        : short_row(a, b, row, seen, to, own_sums);
      own_sums.end_row(to, start[row]);
      own.add(start[row]);
    }
  });
  int64_t total = 0;
  for (int64_t row = 0; row < factors.n_rows; ++row) total += std::exchange(start[row], total);
  start[factors.n_rows] = total;
  Tensor col = make_output(like, {total});
  for_each_share(shares, [&](int64_t share) {
    found[share].copy_to(col.mutable_data_ptr<I>() + start[shares.begin(share)]);
  });
  return col;
}

// The pattern of A B, with crow in int64.
inline std::tuple<Tensor, Tensor> product_structure(const Tensor& a_crow, const Tensor& a_col,
                                                    const Tensor& b_crow, const Tensor& b_col,
                                                    int64_t n_cols) {
  const Factors factors(a_crow, a_col, b_crow, b_col, n_cols);
  const Tensor crow = torch::stable::empty({factors.n_rows + 1}, ScalarType::Long);
  Tensor col;
  dispatch_pattern(factors.left, [&]<typename I, typename P>(I, P) {
    const auto shares = product_shares(factors.left.view<I, P>(), factors.right.view<I, P>());
    std::vector<NoSums> sums(shares.count);
    col = find_product<I, P>(factors, shares, sums, crow.mutable_data_ptr<int64_t>());
  });
  return {crow, col};
}

// A B: its pattern, with crow in int64, and its values, with one look at each product.
inline std::tuple<Tensor, Tensor, Tensor> product(const Tensor& a_crow, const Tensor& a_col,
                                                  const Tensor& b_crow, const Tensor& b_col,
                                                  const Tensor& a_values, const Tensor& b_values,
                                                  int64_t n_cols) {
  const Factors factors(a_crow, a_col, b_crow, b_col, n_cols);
  for (const auto& [values, col] : {std::pair{&a_values, &a_col}, std::pair{&b_values, &b_col}}) {
    STD_TORCH_CHECK(values->is_cpu() && values->scalar_type() == a_values.scalar_type() &&
                        values->dim() == 1 && values->numel() == col->numel(),
                    "values must be vectors of one dtype, one for each entry, on the CPU");
  }
  const Tensor left = as_contiguous(a_values), right = as_contiguous(b_values);
  const Tensor crow = torch::stable::empty({factors.n_rows + 1}, ScalarType::Long);
  Tensor col, out;
  dispatch(left, factors.left, [&]<typename T, typename I, typename P>(T, I, P) {
    const auto shares = product_shares(factors.left.view<I, P>(), factors.right.view<I, P>());
    const Tensor places = torch::stable::new_empty(left, {shares.count, n_cols});
    std::vector<RowSums<T>> sums;
    for (int64_t share = 0; share < shares.count; ++share) {
      sums.push_back({left.const_data_ptr<T>(), right.const_data_ptr<T>(),
                      places.mutable_data_ptr<T>() + share * n_cols,
                      Collected<T>(left, shares.cost(share))});
    }
    int64_t* const start = crow.mutable_data_ptr<int64_t>();
    col = find_product<I, P>(factors, shares, sums, start);
    out = make_output(left, {col.numel()});
    for_each_share(shares, [&](int64_t share) {
      sums[share].values.copy_to(out.mutable_data_ptr<T>() + start[shares.begin(share)]);
    });
  });
  return {crow, col, out};
}

}  // namespace sparsetorch
