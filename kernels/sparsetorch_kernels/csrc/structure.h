// Structure without values: the transpose of a pattern, and the pattern of a product.
#pragma once

#include <atomic>
#include <bit>
#include <cstdlib>
#include <optional>

#include "csr.h"
#include "vector.h"

namespace sparsetorch {

// Entries of rows begin .. end in each column, added to count (n_cols,).
template <typename I, typename P>
void count_columns(const Csr<I, P>& a, int64_t begin, int64_t end, P* count) {
  for (int64_t e = a.crow[begin]; e < a.crow[end]; ++e) ++count[a.col[e]];
}

// Puts the entries of rows begin .. end where the transpose has them: next[j] is the place of the
// next entry of column j.
template <typename I, typename P>
void place_entries(const Csr<I, P>& a, int64_t begin, int64_t end, P* next, I* t_col, P* t_perm) {
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t e = a.crow[row]; e < a.crow[row + 1]; ++e) {
      const int64_t place = next[a.col[e]]++;
      t_col[place] = static_cast<I>(row);
      t_perm[place] = static_cast<P>(e);
    }
  }
}

// Whether entries lie near the diagonal on the whole, judged by a sample: what `pair_entries` reads
// of other rows is then in a cache. Elsewhere it waits for memory, where writes alone would not.
template <typename I, typename P>
bool is_banded(const Csr<I, P>& a) {
  constexpr int64_t kSamples = 1024, kNear = 16384;
  const int64_t step = std::max<int64_t>(1, a.n_rows / kSamples);
  int64_t distance = 0, entries = 0;
  for (int64_t row = 0; row < a.n_rows; row += step) {
    for (int64_t e = a.crow[row]; e < a.crow[row + 1]; ++e, ++entries) {
      distance += std::abs(row - static_cast<int64_t>(a.col[e]));
    }
  }
  return distance <= kNear * entries;
}

// Pairs the entries (i, j), j < i, of rows begin .. end of a square pattern with (j, i): perm has the
// place of each at that of the other. next[j] (n_rows,) is scratch: the place of the next entry of
// row j to be paired. Returns how many more entries these rows have above the diagonal than below;
// none where an entry has no partner, or another thread found one that has none.
template <typename I, typename P>
std::optional<int64_t> pair_entries(const Csr<I, P>& a, int64_t begin, int64_t end, P* next,
                                    P* perm, const std::atomic<bool>& failed) {
  int64_t surplus = 0;
  std::fill_n(next, begin, P{-1});  // rows of other threads: searched when first needed
  for (int64_t row = begin; row < end; ++row) {
    if (failed.load(std::memory_order_relaxed)) return std::nullopt;
    int64_t e = a.crow[row];
    const int64_t last = a.crow[row + 1];
    for (; e < last && a.col[e] < row; ++e, --surplus) {
      const int64_t j = a.col[e];
      int64_t place = next[j];
      if (place < 0) {
        place = std::lower_bound(a.col + a.crow[j], a.col + a.crow[j + 1], begin) - a.col;
      }
      if (place >= a.crow[j + 1] || a.col[place] != row) return std::nullopt;
      next[j] = static_cast<P>(place + 1);
      perm[place] = static_cast<P>(e);
      perm[e] = static_cast<P>(place);
    }
    if (e < last && a.col[e] == row) {
      perm[e] = static_cast<P>(e);
      ++e;
    }
    next[row] = static_cast<P>(e);
    surplus += last - e;
  }
  return surplus;
}

// Scratch of one thread for the rows of a product. `seen` (columns) holds the last row that had
// each column; `words` has a bit for each column and `groups` one for each word, all zero between
// rows.
template <typename I>
struct ProductScratch {
  I* seen;
  uint64_t* words;
  uint64_t* groups;
  int64_t n_groups;
};

constexpr int64_t kShortRow = 32;

// The distinct columns of a row of at most kShortRow products, each of which `sums` adds up. Up to
// 16 are sorted by their ranks: the rank of each is the number of smaller ones, and 16 comparisons
// are one instruction or two.
template <typename I, typename P, typename Sums>
int64_t short_row(const Csr<I, P>& a, const Csr<I, P>& b, int64_t i, I* seen, I* row, Sums& sums) {
  const I mark = static_cast<I>(i);
  I found[kShortRow + 1] = {};
  int64_t count = 0;
  for (int64_t e = a.crow[i]; e < a.crow[i + 1]; ++e) {
    const int64_t k = a.col[e];
    for (int64_t f = b.crow[k]; f < b.crow[k + 1]; ++f) {
      const I j = b.col[f];
      const bool is_new = seen[j] != mark;
      sums.add(e, f, j, is_new);
      found[count] = j;
      count += is_new;
      seen[j] = mark;
    }
  }
  if (count > 16) {
    std::sort(found, found + count);
    std::copy_n(found, count, row);
    return count;
  }
  const auto all = load<I, 16>(found);
  Vec<I, 16> rank = {};
  for (int64_t j = 0; j < count; ++j) rank -= found[j] < all;  // a true lane is -1
  for (int64_t j = 0; j < count; ++j) row[rank[j]] = found[j];
  return count;
}

// The distinct columns of a row of any length: set bits, which are then read in order.
template <typename I, typename P, typename Sums>
int64_t long_row(const Csr<I, P>& a, const Csr<I, P>& b, int64_t i,
                 const ProductScratch<I>& scratch, I* row, Sums& sums) {
  for (int64_t e = a.crow[i]; e < a.crow[i + 1]; ++e) {
    const int64_t k = a.col[e];
    for (int64_t f = b.crow[k]; f < b.crow[k + 1]; ++f) {
      const uint64_t j = static_cast<uint64_t>(b.col[f]), bit = uint64_t{1} << (j % 64);
      uint64_t& word = scratch.words[j / 64];
      if (word == 0) scratch.groups[j / 4096] |= uint64_t{1} << (j / 64 % 64);
      sums.add(e, f, j, (word & bit) == 0);
      word |= bit;
    }
  }
  int64_t count = 0;
  for (int64_t group = 0; group < scratch.n_groups; ++group) {
    for (uint64_t& full = scratch.groups[group]; full != 0; full &= full - 1) {
      const int64_t place = group * 64 + std::countr_zero(full);
      for (uint64_t& word = scratch.words[place]; word != 0; word &= word - 1) {
        row[count++] = static_cast<I>(place * 64 + std::countr_zero(word));
      }
    }
  }
  return count;
}

}  // namespace sparsetorch
