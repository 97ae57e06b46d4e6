// The operators on `semiring.h`: tensors checked, work divided.
#pragma once

#include <initializer_list>
#include <tuple>

#include "pieces.h"
#include "semiring.h"
#include "tensors.h"

namespace sparsetorch {

// Calls f(std::true_type{}) or f(std::false_type{}).
template <typename F>
void dispatch_bool(bool flag, F&& f) {
  flag ? f(std::true_type{}) : f(std::false_type{});
}

// Calls f(T{}, I{}) with the C++ types of real values and of all indices.
template <typename F>
void dispatch_real_uniform(const Tensor& values, const Pattern& pattern, F&& f) {
  dispatch_real(values, [&](auto t) { dispatch_uniform(pattern, [&](auto i) { f(t, i); }); });
}

// The batch size that operands of that size or 1 have together.
inline int64_t common_batch(std::initializer_list<const Operand*> operands) {
  int64_t batch = 1;
  for (const Operand* operand : operands) {
    if (operand->batch == 1) continue;
    STD_TORCH_CHECK(batch == 1 || batch == operand->batch, "the batch sizes do not broadcast");
    batch = operand->batch;
  }
  return batch;
}

// Reduces every row of every result in `width` numbers for each of `slots` outputs: reduce(result,
// row, first, last, slot) for a part of a row, whose numbers belong in that slot, and join(slot of
// the row, slot of a part) for each part of a row that began in an earlier piece. Slots below
// results * n_rows are the rows', those above are for such parts.
template <typename I, typename Reduce, typename Join>
void reduce_rows(const Csr<I>& a, const Pieces& pieces, int64_t results, const Reduce& reduce,
                 const Join& join) {
  const int64_t rows = results * a.n_rows;
  for_each_piece(a, pieces, results, [&](int64_t result, int64_t piece, Cut from, Cut to) {
    for_each_row_part(a, from, to, [&](int64_t row, int64_t first, int64_t last) {
      const bool begins = first == static_cast<int64_t>(a.crow[row]);
      const int64_t carry = rows + result * pieces.count + piece;
      reduce(result, row, first, last, begins ? result * a.n_rows + row : carry);
    });
  });
  for (int64_t piece = 1; piece < pieces.count; ++piece) {
    const Cut from = cut_at(a, pieces.begin(piece));
    if (from.row == a.n_rows || from.entry == static_cast<int64_t>(a.crow[from.row])) continue;
    for (int64_t result = 0; result < results; ++result) {
      join(result * a.n_rows + from.row, rows + result * pieces.count + piece);
    }
  }
}

// An output (batch, n_rows, k) and the numbers of the parts of rows that `reduce_rows` carries.
struct Slots {
  Tensor out, carried;
  int64_t rows, k;

  Slots(const Tensor& like, int64_t batch, int64_t n_rows, int64_t k_, int64_t pieces)
      : out(make_output(like, {batch, n_rows, k_})),
        carried(torch::stable::new_empty(like, {batch * pieces, k_})),
        rows(batch * n_rows),
        k(k_) {}

  template <typename T>
  auto view() const {
    return [own = out.mutable_data_ptr<T>(), parts = carried.mutable_data_ptr<T>(), n = rows,
            width = k](int64_t slot) {
      return slot < n ? own + slot * width : parts + (slot - n) * width;
    };
  }
};

// (y, count): the largest or smallest message of each row, and how many messages reach it; (0, 1)
// in a row without entries, and y and count NaN where a message is.
inline std::tuple<Tensor, Tensor> extremum(const Tensor& crow, const Tensor& col,
                                           const MaybeTensor& perm, const Tensor& values,
                                           const Tensor& x, int64_t n_cols, bool largest,
                                           bool add) {
  const Pattern pattern(crow, col, perm);
  const int64_t k = x.size(2), n_rows = crow.numel() - 1;
  const Operand left(values, values, 2, col.numel()), right(x, values, 3, n_cols, k);
  const int64_t batch = common_batch({&left, &right});
  const Pieces pieces(n_rows, col.numel(), k);
  const Slots best(values, batch, n_rows, k, pieces.count);
  const Slots count(values, batch, n_rows, k, pieces.count);
  if (best.out.numel() == 0) return {best.out, count.out};
  dispatch_real_uniform(values, pattern, [&]<typename T, typename I>(T, I) {
    const Csr<I> a = pattern.view<I>();
    const T *const numbers = left.data<T>(), *const x_data = right.data<T>();
    const auto best_at = best.view<T>(), count_at = count.view<T>();
    dispatch_bool(largest, [&](auto kMax) {
      dispatch_bool(add, [&](auto kAdd) {
        const auto reduce = [&](int64_t result, int64_t row, int64_t first, int64_t last,
                                int64_t slot) {
          T* const to = best_at(slot);
          T* const many = count_at(slot);
          if (a.crow[row] == a.crow[row + 1]) {
            std::fill_n(to, k, T(0));
            std::fill_n(many, k, T(1));
            return;
          }
          const Messages<T, I> p{a, numbers + result * left.step, x_data + result * right.step, k};
          for_each_tile(k, [&]<int N>(int64_t j) {
            extremum_tile<kMax, kAdd, N>(p, first, last, j, to, many);
          });
        };
        reduce_rows(a, pieces, batch, reduce, [&](int64_t row, int64_t part) {
          for (int64_t j = 0; j < k; ++j) {
            join_extremum<kMax>(best_at(row)[j], count_at(row)[j], best_at(part)[j],
                                count_at(part)[j]);
          }
        });
      });
    });
  });
  return {best.out, count.out};
}

// log sum exp of the messages of each row, -inf in a row without entries.
inline Tensor log_sum_exp(const Tensor& crow, const Tensor& col, const MaybeTensor& perm,
                          const Tensor& values, const Tensor& x, int64_t n_cols, bool add) {
  const Pattern pattern(crow, col, perm);
  const int64_t k = x.size(2), n_rows = crow.numel() - 1;
  const Operand left(values, values, 2, col.numel()), right(x, values, 3, n_cols, k);
  const int64_t batch = common_batch({&left, &right});
  const Pieces pieces(n_rows, col.numel(), 4 * k);
  const Slots slots(values, batch, n_rows, k, pieces.count);
  if (slots.out.numel() == 0) return slots.out;
  dispatch_real_uniform(values, pattern, [&]<typename T, typename I>(T, I) {
    const Csr<I> a = pattern.view<I>();
    const T *const numbers = left.data<T>(), *const x_data = right.data<T>();
    const auto at = slots.view<T>();
    dispatch_bool(add, [&](auto kAdd) {
      const auto reduce = [&](int64_t result, int64_t, int64_t first, int64_t last, int64_t slot) {
        const Messages<T, I> p{a, numbers + result * left.step, x_data + result * right.step, k};
        for_each_tile(k, [&]<int N>(int64_t j) {
          log_sum_exp_tile<kAdd, N>(p, first, last, j, at(slot));
        });
      };
      reduce_rows(a, pieces, batch, reduce, [&](int64_t row, int64_t part) {
        for (int64_t j = 0; j < k; ++j) at(row)[j] = log_add_exp(at(row)[j], at(part)[j]);
      });
    });
  });
  return slots.out;
}

// dL/dr (batch, n_rows, k) from p and dense = q (batch, n_cols, k), L as in `semiring.h`; with
// `transposed`, where the pattern is the transposed one and has n_rows columns of the matrix,
// dL/dq (batch, n_rows, k) from p and dense = r (batch, n_cols, k).
inline Tensor contract_rows(const Tensor& crow, const Tensor& col, const MaybeTensor& perm,
                            const Tensor& values, const Tensor& x, const Tensor& y,
                            const Tensor& entries, const Tensor& dense, int64_t n_cols,
                            bool transposed, bool soft, bool add) {
  const Pattern pattern(crow, col, perm);
  const int64_t k = x.size(2), nnz = col.numel(), n_rows = crow.numel() - 1;
  const Operand v(values, values, 2, nnz), sent(x, values, 3, transposed ? n_rows : n_cols, k);
  const Operand top(y, values, 3, transposed ? n_cols : n_rows, k), p(entries, values, 2, nnz);
  const Operand d(dense, values, 3, n_cols, k);
  const int64_t batch = common_batch({&v, &sent, &top, &p, &d});
  const Pieces pieces(n_rows, nnz, (soft ? 4 : 2) * k);
  const Slots slots(values, batch, n_rows, k, pieces.count);
  if (slots.out.numel() == 0) return slots.out;
  dispatch_real_uniform(values, pattern, [&]<typename T, typename I>(T, I) {
    const Csr<I> a = pattern.view<I>();
    const Contraction<T, I> first_form{a,           v.data<T>(), sent.data<T>(), top.data<T>(),
                                       p.data<T>(), d.data<T>(), nullptr,        k};
    const auto at = slots.view<T>();
    const auto run = [&](auto kTransposed, auto kSoft, auto kAdd) {
      const auto reduce = [&](int64_t result, int64_t row, int64_t first, int64_t last,
                              int64_t slot) {
        Contraction<T, I> form = first_form;
        form.values += result * v.step;
        form.x += result * sent.step;
        form.y += result * top.step;
        form.entries += result * p.step;
        form.dense += result * d.step;
        for_each_tile(k, [&]<int N>(int64_t j) {
          contract_tile<kTransposed, kSoft, kAdd, N>(form, row, first, last, j, at(slot));
        });
      };
      reduce_rows(a, pieces, batch, reduce, [&](int64_t row, int64_t part) {
        for (int64_t j = 0; j < k; ++j) at(row)[j] += at(part)[j];
      });
    };
    dispatch_bool(transposed, [&](auto kTransposed) {
      dispatch_bool(soft, [&](auto kSoft) {
        dispatch_bool(add, [&](auto kAdd) { run(kTransposed, kSoft, kAdd); });
      });
    });
  });
  return slots.out;
}

// dL/dp (batch, nnz) from q (batch, n_cols, k) and r (batch, n_rows, k), L as in `semiring.h`.
inline Tensor contract_entries(const Tensor& crow, const Tensor& col, const MaybeTensor& perm,
                               const Tensor& values, const Tensor& x, const Tensor& y,
                               const Tensor& q, const Tensor& r, int64_t n_cols, bool soft,
                               bool add) {
  const Pattern pattern(crow, col, perm);
  const int64_t k = x.size(2), nnz = col.numel(), n_rows = crow.numel() - 1;
  const Operand v(values, values, 2, nnz), sent(x, values, 3, n_cols, k);
  const Operand top(y, values, 3, n_rows, k), left(q, values, 3, n_cols, k);
  const Operand right(r, values, 3, n_rows, k);
  const int64_t batch = common_batch({&v, &sent, &top, &left, &right});
  Tensor out = make_output(values, {batch, nnz});
  if (out.numel() == 0) return out;
  const Pieces pieces(n_rows, nnz, (soft ? 4 : 2) * k);
  dispatch_real_uniform(values, pattern, [&]<typename T, typename I>(T, I) {
    const Csr<I> a = pattern.view<I>();
    T* const to = out.mutable_data_ptr<T>();
    const auto run = [&](auto kSoft, auto kAdd) {
      for_each_piece(a, pieces, batch, [&](int64_t result, int64_t, Cut from, Cut until) {
        const Contraction<T, I> form{a,
                                        v.data<T>() + result * v.step,
                                        sent.data<T>() + result * sent.step,
                                        top.data<T>() + result * top.step,
                                        nullptr,
                                        left.data<T>() + result * left.step,
                                        right.data<T>() + result * right.step,
                                        k};
        for_each_row_part(a, from, until, [&](int64_t row, int64_t first, int64_t last) {
          for (int64_t e = first; e < last; ++e) {
            const int64_t place = a.place(e);
            to[result * nnz + place] =
                contract_entry<kSoft, kAdd>(form, row, a.col[e], form.values[place]);
          }
        });
      });
    };
    dispatch_bool(soft, [&](auto kSoft) {
      dispatch_bool(add, [&](auto kAdd) { run(kSoft, kAdd); });
    });
  });
  return out;
}

}  // namespace sparsetorch
