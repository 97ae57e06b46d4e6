"""A recurrent network over the neighbours of each node, in their order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphnets.ragged import Ragged
from sparsetorch import CSRTensor


class OrderedGRUConv(nn.Module):
    """The last state of a GRU that reads the features of a node's neighbours, one after another.

        h_i = GRU(x_j1, ..., x_jk[, x_i]),   j1, ..., jk the neighbours of i in their order

    The first tier of A. Taghibakhshi, M. Ma, A. Aithal, O. Yilmaz, H. Maron, M. West,
    "Hierarchical Graph Neural Network with Cross-Attention for Cross-Device User Matching", DaWaK
    2023 (arXiv:2304.03215), where `with_self` reads the node itself last; without it, the
    order-preserving layer of TGCE (Huang et al., CIKM 2021).

    A node's result does not depend on the other nodes of a batch, and a node with many neighbours
    costs its own steps alone: step t runs on the nodes that have more than t neighbours, without
    padding. Equivalent to a loop over nodes with `torch.nn.GRU`, and differentiable as often.

    Args:
        width_in: of the features.
        width_out: of the state.
        with_self: whether the node itself is read after its neighbours.
    """

    def __init__(self, width_in: int, width_out: int, *, with_self: bool = False) -> None:
        super().__init__()
        self.with_self = with_self
        self.cell = nn.GRUCell(width_in, width_out)

    def forward(self, neighbours: Ragged | CSRTensor | Tensor, x: Tensor) -> Tensor:
        """The states, (n, width_out); a node without neighbours, or itself, to read gets zeros.

        Args:
            neighbours: for each of the n nodes the rows of x that it reads, in order, with
                repetitions; or a CSRTensor (n, m), whose row i has the neighbours of i in the order
                of its values (the time of an edge, for one); or an edge_index (2, edges) int64,
                sources above targets, in the order of the edges.
            x: (m, width_in); with edge_index or `with_self` m is n.

        Raises:
            ValueError: x is not of this width, or a neighbour does not exist.
        """
        width = self.cell.input_size
        if x.ndim != 2 or x.shape[1] != width:
            raise ValueError(f"x: expected (m, {width}), got {tuple(x.shape)}")
        sequences = ordered_neighbours(neighbours, len(x))
        if self.with_self:
            if len(sequences) != len(x):
                raise ValueError(
                    f"neighbours: expected those of {len(x)} nodes, as x has rows, for a layer "
                    f"that reads a node after them, got {len(sequences)}"
                )
            sequences = with_last(sequences, torch.arange(len(x), device=x.device))
        if not len(sequences.values):
            return x.new_zeros(len(sequences), self.cell.hidden_size)
        return self._read(sequences, x)

    def _read(self, sequences: Ragged, x: Tensor) -> Tensor:
        order, steps = by_length(sequences)
        cell = self.cell
        # Products with the features are taken once a node, not once each time that it is read.
        read = nn.functional.linear(x, cell.weight_ih, cell.bias_ih).index_select(0, steps.values)
        counts: list[int] = steps.lengths.tolist()
        state = read.new_zeros(len(order), cell.hidden_size)  # of autocast's dtype, if it is on
        ended = []
        for step, n in zip(read.split(counts), counts):
            # Split, not sliced: the derivative of a slice is as large as what it was cut from.
            state, last = state.split([n, len(state) - n])
            ended.append(last)
            state = self._step(step, state)
        states = torch.cat([state, *reversed(ended)])
        return states.index_select(0, order.argsort())

    def _step(self, read: Tensor, state: Tensor) -> Tensor:
        """One step of a GRU, (k, 3 width_out) read and (k, width_out) -> (k, width_out)."""
        r, z, n = read.chunk(3, 1)
        hr, hz, hn = nn.functional.linear(state, self.cell.weight_hh, self.cell.bias_hh).chunk(3, 1)
        n = torch.addcmul(n, torch.sigmoid(r + hr), hn).tanh()
        return torch.lerp(n, state, torch.sigmoid(z + hz))


def by_length(sequences: Ragged) -> tuple[Tensor, Ragged]:
    """The rows from the longest to the shortest, and their first values, their second ones, ...

    Returns:
        The order (n,) of the rows, and a Ragged whose row t has value t of each row that is longer
        than t, in that order.
    """
    order = sequences.lengths.argsort(descending=True, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    row = sequences.row
    step = torch.arange(len(row), device=row.device) - sequences.ptr[row]
    counts = torch.bincount(step)
    starts = counts.cumsum(0) - counts
    values = torch.empty_like(sequences.values)
    values[starts[step] + place[row]] = sequences.values
    return order, Ragged.from_lengths(counts, values)


def with_last(sequences: Ragged, last: Tensor) -> Ragged:
    """Each row with one more value (n,) at its end."""
    row = sequences.row
    positions = torch.arange(len(row), device=row.device) + row
    values = sequences.values.new_empty(len(row) + len(last))
    values[positions] = sequences.values
    values[sequences.ptr[1:] + torch.arange(len(last), device=row.device)] = last
    return Ragged.from_lengths(sequences.lengths + 1, values)


def ordered_neighbours(neighbours: Ragged | CSRTensor | Tensor, m: int) -> Ragged:
    """The neighbours of each node in order, from any form that `OrderedGRUConv` takes.

    Raises:
        ValueError: a neighbour is not one of the m rows, or the shape does not fit.
        TypeError: it is none of these forms.
    """
    if isinstance(neighbours, CSRTensor):
        found = _by_value(neighbours)
    elif isinstance(neighbours, Ragged):
        found = neighbours
    elif isinstance(neighbours, Tensor):
        found = _by_edge(neighbours, m)
    else:
        raise TypeError(
            "neighbours: expected a Ragged, a CSRTensor or an edge_index tensor, got "
            f"{type(neighbours).__name__}"
        )
    values = found.values
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < m:
        raise ValueError(
            f"neighbours: expected rows of x from 0 to {m - 1}, got {int(values.min())} to "
            f"{int(values.max())}"
        )
    return found


def _by_value(A: CSRTensor) -> Ragged:
    if A.values.ndim != 1:
        raise ValueError(f"neighbours: expected one matrix, got a batch {tuple(A.shape)}")
    times = A.values.detach()
    # On a GPU the CPU would have to wait for each.
    if times.device.type == "cpu" and len(times):
        low, high = (float(bound) for bound in times.aminmax())
        if not low <= high:  # NaN
            raise ValueError("neighbours: expected a time or rank of each edge, got NaN")
        if times.dtype != torch.float64 and max(-low, high) > 2 / torch.finfo(times.dtype).eps:
            raise ValueError(
                f"neighbours: {times.dtype} does not tell apart times as large as {high:g}; take "
                "float64, or the rank of each edge"
            )
    by_time = times.argsort(stable=True)
    row = A.pattern.row.long()
    order = by_time[row[by_time].argsort(stable=True)]
    return Ragged(A.pattern.crow.long(), A.pattern.col.long()[order])


def _by_edge(edge_index: Tensor, n: int) -> Ragged:
    if edge_index.ndim != 2 or edge_index.shape[0] != 2 or edge_index.dtype != torch.int64:
        raise ValueError(
            f"neighbours: expected an edge_index, int64 of shape (2, edges), got "
            f"{edge_index.dtype} of shape {tuple(edge_index.shape)}"
        )
    source, target = edge_index
    order = target.argsort(stable=True)
    return Ragged.from_rows(target[order], source[order], n)
