// A CSR pattern as raw arrays, and cuts that divide its work evenly.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sparsetorch {

// Entry e of row i, crow[i] <= e < crow[i + 1], is in column col[e] and has the value
// values[perm[e]], or values[e] where perm is null. I counts rows and columns, P entries.
template <typename I, typename P = I>
struct Csr {
  const P* crow;
  const I* col;
  const P* perm;
  int64_t n_rows;
  int64_t nnz;

  int64_t place(int64_t entry) const { return perm ? perm[entry] : entry; }
};

// A position in the sequence "entries of row 0, end of row 0, entries of row 1, ...".
struct Cut {
  int64_t row;    // row ends that lie before
  int64_t entry;  // entries that lie before
};

// Merge path (Merrill and Garland, SC 2016): the cut with `steps` entries and row ends before it.
// Equal steps are equal work whatever the row lengths, empty rows included.
template <typename I, typename P>
Cut cut_at(const Csr<I, P>& a, int64_t steps) {
  int64_t low = std::max<int64_t>(0, steps - a.nnz), high = std::min(steps, a.n_rows);
  while (low < high) {
    const int64_t row = low + (high - low) / 2;
    if (static_cast<int64_t>(a.crow[row + 1]) + row + 1 <= steps) {
      low = row + 1;
    } else {
      high = row;
    }
  }
  return {low, steps - low};
}

// Calls visit(row, first, last) for each part of a row between two cuts, rows without entries
// included. A row that began before `from` is visited with first > crow[row].
template <typename I, typename P, typename Visit>
inline void for_each_row_part(const Csr<I, P>& a, const Cut& from, const Cut& to, Visit&& visit) {
  int64_t entry = from.entry;
  for (int64_t row = from.row; row < to.row; ++row) {
    const int64_t last = a.crow[row + 1];
    visit(row, entry, last);
    entry = last;
  }
  if (entry < to.entry) visit(to.row, entry, to.entry);
}

}  // namespace sparsetorch
