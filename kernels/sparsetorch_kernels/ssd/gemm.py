"""The scan as products of matrices, in plain PyTorch on any device: what runs on the CPU.

The chunked form of Dao & Gu (arXiv:2405.21060, section 6), arranged for few and large products:

- scores C B^T once per group, not per head; the states of a group's heads by one product, with
  their channels side by side;
- the diagonal of the scores apart, as a factor of x beside D: a step's own input has no decay.
  What is left decays by every gradient of a decay, so that the latter need no cancellation;
- a piece of the sequence at a time, so that what is quadratic in the chunk stays in the cache.

With sums s of a = dt A within a chunk, u = dt x, H the state before the chunk and e the last
position of the chunk, for q > k of one document:

    decayed_q = sum over k < q of exp(s_q - s_k) (C_q . B_k) u_k + exp(s_q) H C_q
    y_q = decayed_q + (D + dt_q C_q . B_q) x_q
    H' = exp(s_e) H + sum over k of exp(s_e - s_k) u_k B_k^T

Suffixes: B batch, L length, M chunks, Q positions in a chunk (K the earlier one), G groups, R heads
in a group, H = G R heads, P head dim, C = R P the channels of a group, N state.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sparsetorch_kernels.ssd.checks import sum_dtype
from sparsetorch_kernels.ssd.scratch import Scratch

# Elements of what is quadratic in the chunk, at a time: fits into a core's cache.
PIECE = 1 << 18
ACCELERATOR_PIECE = 1 << 26


class Arguments(NamedTuple):
    """The tensors of a scan, but for its first state."""

    x_BLHP: Tensor
    dt_BLH: Tensor
    A_H: Tensor
    B_BLGN: Tensor
    C_BLGN: Tensor
    D_H: Tensor | None
    seq_idx_BL: Tensor | None


class Span(NamedTuple):
    """Positions [start, stop) of the sequence, in `chunks` chunks from number `first` on."""

    start: int
    stop: int
    first: int
    chunks: int

    def cut(self, t_BL: Tensor) -> Tensor:
        """The span's part of t (B, L, ...), as (M, B, Q, ...)."""
        part = t_BL[:, self.start : self.stop].unflatten(1, (self.chunks, -1))
        return part.transpose(0, 1)


def spans(arguments: Arguments, chunk_size: int) -> Iterator[Span]:
    """Pieces of equal chunks, and the shorter rest of the sequence as a piece of its own."""
    batch, length, heads, _ = arguments.x_BLHP.shape
    on_cpu = arguments.x_BLHP.is_cpu
    limit = PIECE * torch.get_num_threads() if on_cpu else ACCELERATOR_PIECE
    at_once = max(1, limit // max(1, batch * heads * chunk_size**2))
    whole = length // chunk_size
    for first in range(0, whole, at_once):
        stop = min(first + at_once, whole)
        yield Span(first * chunk_size, stop * chunk_size, first, stop - first)
    if whole * chunk_size < length:
        yield Span(whole * chunk_size, length, whole, 1)


class Piece:
    """What forward and backward of a piece of the sequence share, in the precision of sums."""

    def __init__(self, arguments: Arguments, span: Span, scratch: Scratch):
        x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, D_H, seq_idx_BL = arguments
        self.span, self.scratch, dtype = span, scratch, scratch.dtype
        self.groups = (B_BLGN.shape[2], x_BLHP.shape[2] // B_BLGN.shape[2])
        self.x_MBQGRP = self.per_head("x", x_BLHP)
        self.dt_MBQGR = self.per_head("dt", dt_BLH)
        self.A_GR = A_H.to(dtype).unflatten(0, self.groups)
        self.D_GR = None if D_H is None else D_H.to(dtype).unflatten(0, self.groups)
        self.B_MBGQN = scratch.copy("B", span.cut(B_BLGN).transpose(2, 3))
        self.C_MBGQN = scratch.copy("C", span.cut(C_BLGN).transpose(2, 3))
        self.scores_MBGQK = scratch.product("C B", self.C_MBGQN, self.B_MBGQN.mT)
        self.u_MBGRQP = scratch.scaled(
            "u", heads_first(self.x_MBQGRP), heads_first(self.dt_MBQGR)
        )  # fmt: skip
        # In float64: differences of float32 sums lose what the sums have grown by.
        self.sums_MBGRQ = heads_first(self.dt_MBQGR * self.A_GR).double().cumsum(-1)
        self.same = None if seq_idx_BL is None else _Documents(seq_idx_BL, span)

    def per_head(self, name: str, t_BLH: Tensor) -> Tensor:
        """The piece's part of t (B, L, H, ...) as (M, B, Q, G, R, ...), in the sums' dtype."""
        t = self.span.cut(t_BLH).unflatten(3, self.groups)
        return t if t.dtype == self.scratch.dtype else self.scratch.copy(name, t)

    def own_MBGQ(self) -> Tensor:
        """C_q . B_q, by which a step's own input counts beside D."""
        return self.scores_MBGQK.diagonal(dim1=-2, dim2=-1)

    def decay_MBGRQK(self) -> Tensor:
        """exp(s_q - s_k) for k < q in one document, else 0."""
        size = self.sums_MBGRQ.shape[-1]
        s = self.sums_MBGRQ - self.sums_MBGRQ[..., size // 2, None]  # small, so rounded finely
        s = s.to(self.scratch.dtype)
        # The mask is added before exp: what is above the diagonal would overflow.
        mask = torch.full((size, size), float("-inf"), dtype=s.dtype, device=s.device).triu()
        if self.same is not None:
            mask = mask.masked_fill(~self.same.pairs_MB11QK, float("-inf"))
        out = self.scratch.empty("decay", (*s.shape, size))
        return torch.sub(s[..., :, None], s[..., None, :], out=out).add_(mask).exp_()

    def carry_MBGRQ(self) -> Tensor:
        """exp(s_q) where the document of q began before the chunk: what is left of the state."""
        carry = self.sums_MBGRQ.exp().to(self.scratch.dtype)
        return carry if self.same is None else carry.mul_(self.same.carried_MB11Q)

    def to_end_MBGRQ(self) -> Tensor:
        """exp(s_e - s_q) where q is in the document of the last position e of the chunk."""
        to_end = torch.exp(self.sums_MBGRQ[..., -1:] - self.sums_MBGRQ).to(self.scratch.dtype)
        return to_end if self.same is None else to_end.mul_(self.same.at_end_MB11Q)

    def side_by_side(self, name: str, t_MBGRQP: Tensor, factor_MBGRQ: Tensor) -> Tensor:
        """t times factor, a group's channels in one row: (M, B, G, Q, C)."""
        t, factor = t_MBGRQP.transpose(3, 4), factor_MBGRQ.transpose(3, 4)
        return self.scratch.scaled(name, t, factor).flatten(4)

    def apart(self, t_MBGQC: Tensor) -> Tensor:
        """A group's channels by head: (M, B, G, R, Q, P)."""
        return t_MBGQC.unflatten(4, (self.groups[1], -1)).transpose(3, 4)


class _Documents:
    """Which positions of a piece are in one document."""

    def __init__(self, seq_BL: Tensor, span: Span):
        seq_MBQ = span.cut(seq_BL)
        end_MB1 = seq_MBQ[:, :, -1:]
        before = max(span.start - 1, 0)  # the first state is of the first position's document
        earlier_MB1 = torch.cat([seq_BL[None, :, before, None], end_MB1[:-1]])
        self.pairs_MB11QK = (seq_MBQ[..., :, None] == seq_MBQ[..., None, :])[:, :, None, None]
        self.carried_MB11Q = (seq_MBQ == earlier_MB1)[:, :, None, None]
        self.at_end_MB11Q = (seq_MBQ == end_MB1)[:, :, None, None]


def heads_first(t_MBQGR: Tensor) -> Tensor:
    """t (M, B, Q, G, R, ...) as (M, B, G, R, Q, ...)."""
    return t_MBQGR.movedim(2, 4)


def heads_last(t_MBGRQ: Tensor) -> Tensor:
    """The inverse of `heads_first`."""
    return t_MBGRQ.movedim(4, 2)


def forward(
    arguments: Arguments, initial_state_BHPN: Tensor | None, chunk_size: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y (B, L, H, P), the last state (B, H, P, N), and with `keep` what the backward needs.

    That is `decayed` (B, L, H, P) and the state before each chunk (M, B, H, P, N); both are
    empty without `keep`. Both are in float32 at least: the gradient of A is a sum of differences of
    what `decayed` makes, in which its rounding to bfloat16 would be percents.
    """
    x_BLHP, dtype = arguments.x_BLHP, sum_dtype(arguments.x_BLHP.dtype)
    batch, length, heads, head_dim = x_BLHP.shape
    state_shape = batch, heads, head_dim, arguments.B_BLGN.shape[-1]
    state_BHPN = x_BLHP.new_zeros(state_shape, dtype=dtype)
    if initial_state_BHPN is not None:
        state_BHPN.copy_(initial_state_BHPN)
    chunks = -(-length // chunk_size) if keep else 0
    states_MBHPN = state_BHPN.new_empty(chunks, *state_shape)
    decayed_BLHP = state_BHPN.new_empty(x_BLHP.shape if keep else (0,))
    y_BLHP, scratch = x_BLHP.new_empty(x_BLHP.shape), Scratch(x_BLHP, dtype)
    for span in spans(arguments, chunk_size):
        piece = Piece(arguments, span, scratch)
        if keep:
            before = states_MBHPN[span.first : span.first + span.chunks]
        else:
            before = scratch.empty("states", (span.chunks, *state_shape))
        _pass_on(piece, state_BHPN, before)
        decayed = _decayed(piece, before)
        if keep:
            span.cut(decayed_BLHP).copy_(decayed.flatten(3, 4))
        span.cut(y_BLHP).copy_(_outputs(piece, decayed).flatten(3, 4))
    return y_BLHP, state_BHPN, decayed_BLHP, states_MBHPN


def _pass_on(piece: Piece, state_BHPN: Tensor, before_MBHPN: Tensor) -> None:
    """Write the state before each chunk, and update the one before the piece to that after it."""
    weighted_MBGQC = piece.side_by_side("weighted", piece.u_MBGRQP, piece.to_end_MBGRQ())
    added = piece.scratch.product("added", weighted_MBGQC.mT, piece.B_MBGQN)
    added_MBHPN = added.view(before_MBHPN.shape)
    kept_MBH11 = piece.carry_MBGRQ()[..., -1].flatten(2)[..., None, None]
    before_MBHPN[0] = state_BHPN
    for i in range(piece.span.chunks):
        after = before_MBHPN[i + 1] if i + 1 < piece.span.chunks else state_BHPN
        torch.addcmul(added_MBHPN[i], before_MBHPN[i], kept_MBH11[i], out=after)


def _decayed(piece: Piece, before_MBHPN: Tensor) -> Tensor:
    """What the outputs have of earlier steps (M, B, Q, G, R, P)."""
    product = piece.scratch.product
    before_MBGCN = before_MBHPN.unflatten(2, piece.groups).flatten(3, 4)
    carried_MBGRQP = piece.apart(product("carried", piece.C_MBGQN, before_MBGCN.mT))
    scores_MBGRQK = piece.decay_MBGRQK().mul_(piece.scores_MBGQK[:, :, :, None])
    within_MBGRQP = product("within", scores_MBGRQK, piece.u_MBGRQP)
    terms = (within_MBGRQP, carried_MBGRQP, piece.carry_MBGRQ()[..., None])
    out = piece.scratch.empty("decayed", piece.x_MBQGRP.shape)
    return torch.addcmul(*map(heads_last, terms), out=out)


def _outputs(piece: Piece, decayed_MBQGRP: Tensor) -> Tensor:
    """y = decayed + (D + dt_q C_q . B_q) x_q."""
    skip_MBQGR = piece.dt_MBQGR * heads_last(piece.own_MBGQ()[:, :, :, None])
    skip_MBQGR = skip_MBQGR if piece.D_GR is None else skip_MBQGR.add_(piece.D_GR)
    out = piece.scratch.empty("y", decayed_MBQGRP.shape)
    return torch.addcmul(decayed_MBQGRP, piece.x_MBQGRP, skip_MBQGR[..., None], out=out)
