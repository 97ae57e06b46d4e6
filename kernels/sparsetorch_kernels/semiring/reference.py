"""The specification of the semiring products, in plain PyTorch: slow, obvious, any device.

Entry e of row i, in column c, sends the messages m_ej = a_e x_cj, or a_e + x_cj. Operands have
exactly one batch dimension, of size B or 1. All messages are stored, which the kernels do not do.
"""

import torch
from torch import Tensor

from sparsetorch_kernels.csr.reference import read, row_ids, write
from sparsetorch_kernels.layout import Layout

ENTRIES, COLUMNS, ROWS = range(3)  # the arguments p (B, nnz), q (B, n_cols, k), r (B, n_rows, k)


def extremum(
    layout: Layout, values: Tensor, x: Tensor, largest: bool, add: bool, counted: bool = True
) -> tuple[Tensor, Tensor]:
    """The largest or smallest message of each row, and how many messages reach it.

    values (B or 1, nnz), x (B or 1, n_cols, k) -> twice (B, n_rows, k). A row without entries has
    (0, 1); one with a message that is NaN has NaN twice. Unless `counted`, the count is left out.
    """
    sent = _messages(layout, values, x, add)
    best = _row_extremum(layout, sent, largest)
    if not counted:
        return best, best
    row = row_ids(layout.crow)
    reached = (sent == best.index_select(1, row)).to(sent)
    count = torch.zeros_like(best).index_add(1, row, reached)
    count = torch.where(_empty(layout), 1.0, count)
    return best, torch.where(best.isnan(), best, count)


def log_sum_exp(layout: Layout, values: Tensor, x: Tensor, add: bool) -> Tensor:
    """log sum exp of the messages of each row, -inf where there are none.

    values (B or 1, nnz), x (B or 1, n_cols, k) -> (B, n_rows, k).
    """
    sent = _messages(layout, values, x, add)
    largest = _row_extremum(layout, sent, largest=True)
    largest = torch.where(_empty(layout), float("-inf"), largest)
    shift = torch.where(largest.isfinite(), largest, 0.0)
    row = row_ids(layout.crow)
    powers = (sent - shift.index_select(1, row)).exp()
    sums = torch.zeros_like(shift).index_add(1, row, powers)
    return torch.where(largest.isfinite(), sums.log() + shift, largest)


def contract(
    layout: Layout,
    slot: int,
    soft: bool,
    add: bool,
    values: Tensor,
    x: Tensor,
    y: Tensor,
    first: Tensor,
    second: Tensor,
) -> Tensor:
    """The derivative, in one of its arguments, of

        L(p, q, r) = sum over entries e = (i, c) and columns j of w_ej p_e q_cj r_ij.

    w_ej = exp(m_ej - y_ij) if `soft`, else 1 where m_ej = y_ij and 0 elsewhere. p (B or 1, nnz),
    q (B or 1, n_cols, k), r (B or 1, n_rows, k); `slot` says which of them (ENTRIES, COLUMNS, ROWS)
    the result stands for, and first and second are the others, in this order.
    """
    row, col = row_ids(layout.crow), layout.col
    sent, top = _messages(layout, values, x, add), y.index_select(1, row)
    if slot == ENTRIES:
        chosen, factor = first.index_select(1, col), second.index_select(1, row)
    elif slot == COLUMNS:
        chosen, factor = read(first, layout.perm).unsqueeze(-1), second.index_select(1, row)
    else:
        chosen = read(first, layout.perm).unsqueeze(-1) * second.index_select(1, col)
        factor = None
    if soft:
        terms = torch.where(sent == float("-inf"), 0.0, (sent - top).exp() * chosen)
    else:  # what is not chosen must not matter: 0 times infinity would be NaN
        terms = torch.where(sent == top, chosen, 0.0)
    terms = terms if factor is None else terms * factor  # (B, nnz, k)
    if slot == ENTRIES:
        return write(terms.sum(-1), layout.perm)
    size, index = (layout.n_cols, col) if slot == COLUMNS else (layout.n_rows, row)
    return terms.new_zeros(terms.shape[0], size, terms.shape[2]).index_add(1, index, terms)


def _messages(layout: Layout, values: Tensor, x: Tensor, add: bool) -> Tensor:
    weights, sent = read(values, layout.perm).unsqueeze(-1), x.index_select(1, layout.col)
    return weights + sent if add else weights * sent  # (B, nnz, k)


def _row_extremum(layout: Layout, sent: Tensor, largest: bool) -> Tensor:
    """(B, n_rows, k), zero in rows without entries."""
    batch, _, k = sent.shape
    index = row_ids(layout.crow).unsqueeze(-1).expand(sent.shape)
    start = sent.new_zeros(batch, layout.n_rows, k)
    which = "amax" if largest else "amin"
    return start.scatter_reduce(1, index, sent, which, include_self=False)


def _empty(layout: Layout) -> Tensor:
    """Which rows have no entries, (n_rows, 1)."""
    return (layout.crow.diff() == 0).unsqueeze(-1)
