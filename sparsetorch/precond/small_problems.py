"""Many small dense problems out of one sparse matrix, put together by size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparsetorch.structure import expand_ranges


class Problems(NamedTuple):
    """For each of `count` columns (or rows) of an inverse, the submatrix that determines it.

    problem: (n_unknowns,), sorted, the problem of each unknown. result: (n_unknowns,), the entry of
    the inverse that it is. owner, row, source: for each entry of the submatrices the unknown whose
    column it is in, its row in the matrix, and which entry of the matrix it is.
    """

    count: int
    problem: Tensor
    result: Tensor
    owner: Tensor
    row: Tensor
    source: Tensor


class Group(NamedTuple):
    """Some of the small problems, padded to matrices of one size (count, height, width).

    place: (n_entries,), where in the flattened matrices the entries `source` (n_entries,) of A go.
    padding: (n_padded,), where ones go in addition. right: (count,), the row of each problem's
    right-hand side that is 1, or `height` for none. result, unknown: (n_results,), entries of the
    inverse, and which of the count * width unknowns they are. owner: (count,), the column (or row)
    of the inverse that each problem is for.
    """

    size: tuple[int, int, int]
    place: Tensor
    source: Tensor
    padding: Tensor
    right: Tensor
    result: Tensor
    unknown: Tensor
    owner: Tensor

    def matrices(self, values: Tensor) -> Tensor:
        """The small matrices, (count, height, width)."""
        flat = values.new_zeros(self.size[0] * self.size[1] * self.size[2])
        flat = flat.index_fill(0, self.padding, 1.0)
        return flat.index_copy(0, self.place, values[self.source]).view(self.size)

    def right_hand_sides(self, like: Tensor) -> Tensor:
        """Unit vectors, (count, height, 1)."""
        count, height, _ = self.size
        rows = like.new_zeros(count, height + 1).scatter(1, self.right[:, None], 1.0)
        return rows[:, :height, None]


class _Numbering(NamedTuple):
    """Where each entry, unknown and right-hand side is within its own problem.

    height, width: (count,), rows and columns of each submatrix. row: of each entry. column: of each
    unknown. right: (count,), the row of the right-hand side's 1, or -1.
    """

    height: Tensor
    width: Tensor
    row: Tensor
    column: Tensor
    right: Tensor


def grouped(p: Problems) -> list[Group]:
    """Put the problems together by their sizes, rounded up to powers of two.

    The right-hand side of problem i is the unit vector of row i of the matrix.
    """
    own = _numbered(p)
    heights = _power_of_two(torch.maximum(own.height, own.width))
    widths = _power_of_two(own.width)
    # A padded unknown has a one in a row of its own, below the others.
    crowded = heights - own.height < widths - own.width
    heights = torch.where(crowded, 2 * heights, heights)
    sizes = torch.stack([heights, widths], 1)[own.width > 0]
    return [
        _group(p, own, torch.nonzero((heights == h) & (widths == w) & (own.width > 0))[:, 0], h, w)
        for h, w in torch.unique(sizes, dim=0).tolist()
    ]


def _numbered(p: Problems) -> _Numbering:
    n = max(p.count, 1)
    problems = torch.arange(p.count, device=p.problem.device)
    width = torch.bincount(p.problem, minlength=p.count)
    column = torch.arange(len(p.problem), device=p.problem.device)
    column = column - (width.cumsum(0) - width)[p.problem]
    keys, index = torch.unique(p.problem[p.owner] * n + p.row, return_inverse=True)
    height = torch.bincount(keys // n, minlength=p.count)
    first = height.cumsum(0) - height
    wanted = problems * (n + 1)
    place = torch.searchsorted(keys, wanted)
    padded = torch.cat([keys, keys.new_full((1,), -1)])
    right = torch.where(padded[place] == wanted, place - first, -1)
    return _Numbering(height, width, index - first[p.problem[p.owner]], column, right)


def _group(p: Problems, own: _Numbering, members: Tensor, h: int, w: int) -> Group:
    """The problems `members`, padded to (h, w)."""
    slot = torch.full_like(own.width, -1)
    slot[members] = torch.arange(len(members), device=members.device)
    entries = torch.nonzero(slot[p.problem[p.owner]] >= 0)[:, 0]
    unknowns = torch.nonzero(slot[p.problem] >= 0)[:, 0]
    at = p.owner[entries]
    place = (slot[p.problem[at]] * h + own.row[entries]) * w + own.column[at]
    height, width, right = own.height[members], own.width[members], own.right[members]
    spare, column = expand_ranges(width, w - width)
    row = height[spare] + column - width[spare]
    return Group(
        size=(len(members), h, w),
        place=place,
        source=p.source[entries],
        padding=(spare * h + row) * w + column,
        right=torch.where(right < 0, h, right),
        result=p.result[unknowns],
        unknown=slot[p.problem[unknowns]] * w + own.column[unknowns],
        owner=members,
    )


def _power_of_two(size: Tensor) -> Tensor:
    """The next power of two, at least 1."""
    return 2 ** torch.ceil(torch.log2(size.clamp(min=1).double())).long()
