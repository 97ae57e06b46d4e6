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


def spans(arguments: Arguments, chunk_size: int) -> Iterator[Span]:
    """Pieces of equal chunks, and the shorter rest of the sequence as a piece of its own."""
    batch, length, heads, _ = arguments.x_BLHP.shape
    limit = PIECE if arguments.x_BLHP.is_cpu else ACCELERATOR_PIECE
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
        self.x_BMQGRP = self.per_head("x", x_BLHP)
        self.dt_BMQGR = self.per_head("dt", dt_BLH)
        self.A_GR = A_H.to(dtype).unflatten(0, self.groups)
        self.D_GR = None if D_H is None else D_H.to(dtype).unflatten(0, self.groups)
        self.B_BMGQN = scratch.copy("B", self.cut(B_BLGN).transpose(2, 3))
        self.C_BMGQN = scratch.copy("C", self.cut(C_BLGN).transpose(2, 3))
        self.scores_BMGQK = scratch.product("C B", self.C_BMGQN, self.B_BMGQN.mT)
        self.u_BMGRQP = scratch.scaled(
            "u", heads_first(self.x_BMQGRP), heads_first(self.dt_BMQGR)
        )  # fmt: skip
        # In float64: differences of float32 sums lose what the sums have grown by.
        self.sums_BMGRQ = heads_first(self.dt_BMQGR * self.A_GR).double().cumsum(-1)
        self.same = None if seq_idx_BL is None else _Documents(seq_idx_BL, span)

    def cut(self, t_BL: Tensor) -> Tensor:
        """The piece's part of t (B, L, ...), as (B, M, Q, ...)."""
        return t_BL[:, self.span.start : self.span.stop].unflatten(1, (self.span.chunks, -1))

    def per_head(self, name: str, t_BLH: Tensor) -> Tensor:
        """The piece's part of t (B, L, H, ...) as (B, M, Q, G, R, ...), in the sums' dtype."""
        t = self.cut(t_BLH).unflatten(3, self.groups)
        return t if t.dtype == self.scratch.dtype else self.scratch.copy(name, t)

    def states(self, t_SHPN: Tensor) -> Tensor:
        """The piece's states (B, M, H, P, N), of those of all pieces one after another."""
        batch, (_, _, first, chunks) = self.x_BMQGRP.shape[0], self.span
        return t_SHPN[batch * first : batch * (first + chunks)].unflatten(0, (batch, chunks))

    def own_BMGQ(self) -> Tensor:
        """C_q . B_q, by which a step's own input counts beside D."""
        return self.scores_BMGQK.diagonal(dim1=-2, dim2=-1)

    def decay_BMGRQK(self) -> Tensor:
        """exp(s_q - s_k) for k < q in one document, else 0."""
        size = self.sums_BMGRQ.shape[-1]
        s = self.sums_BMGRQ - self.sums_BMGRQ[..., size // 2, None]  # small, so rounded finely
        s = s.to(self.scratch.dtype)
        # The mask is added before exp: what is above the diagonal would overflow.
        mask = torch.full((size, size), float("-inf"), dtype=s.dtype, device=s.device).triu()
        if self.same is not None:
            mask = mask.masked_fill(~self.same.pairs_BM11QK, float("-inf"))
        out = self.scratch.empty("decay", (*s.shape, size))
        return torch.sub(s[..., :, None], s[..., None, :], out=out).add_(mask).exp_()

    def carry_BMGRQ(self) -> Tensor:
        """exp(s_q) where the document of q began before the chunk: what is left of the state."""
        carry = self.sums_BMGRQ.exp().to(self.scratch.dtype)
        return carry if self.same is None else carry.mul_(self.same.carried_BM11Q)

    def to_end_BMGRQ(self) -> Tensor:
        """exp(s_e - s_q) where q is in the document of the last position e of the chunk."""
        to_end = torch.exp(self.sums_BMGRQ[..., -1:] - self.sums_BMGRQ).to(self.scratch.dtype)
        return to_end if self.same is None else to_end.mul_(self.same.at_end_BM11Q)

    def side_by_side(self, name: str, t_BMGRQP: Tensor, factor_BMGRQ: Tensor) -> Tensor:
        """t times factor, a group's channels in one row: (B, M, G, Q, C)."""
        t, factor = t_BMGRQP.transpose(3, 4), factor_BMGRQ.transpose(3, 4)
        return self.scratch.scaled(name, t, factor).flatten(4)

    def apart(self, t_BMGQC: Tensor) -> Tensor:
        """A group's channels by head: (B, M, G, R, Q, P)."""
        return t_BMGQC.unflatten(4, (self.groups[1], -1)).transpose(3, 4)


class _Documents:
    """Which positions of a piece are in one document."""

    def __init__(self, seq_BL: Tensor, span: Span):
        seq_BMQ = seq_BL[:, span.start : span.stop].unflatten(1, (span.chunks, -1))
        end_BM1 = seq_BMQ[:, :, -1:]
        before = max(span.start - 1, 0)  # the first state is of the first position's document
        earlier_BM1 = torch.cat([seq_BL[:, before : before + 1, None], end_BM1[:, :-1]], 1)
        self.pairs_BM11QK = (seq_BMQ[..., :, None] == seq_BMQ[..., None, :])[:, :, None, None]
        self.carried_BM11Q = (seq_BMQ == earlier_BM1)[:, :, None, None]
        self.at_end_BM11Q = (seq_BMQ == end_BM1)[:, :, None, None]


def heads_first(t_BMQGR: Tensor) -> Tensor:
    """t (B, M, Q, G, R, ...) as (B, M, G, R, Q, ...)."""
    return t_BMQGR.movedim(2, 4)


def heads_last(t_BMGRQ: Tensor) -> Tensor:
    """The inverse of `heads_first`."""
    return t_BMGRQ.movedim(4, 2)


def forward(
    arguments: Arguments, initial_state_BHPN: Tensor | None, chunk_size: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y (B, L, H, P), the last state (B, H, P, N), and with `keep` what the backward needs.

    That is `decayed` (B, L, H, P) and the states before all chunks (B M, H, P, N), as
    `Piece.states` finds them; both are empty without `keep`.
    """
    x_BLHP, dtype = arguments.x_BLHP, sum_dtype(arguments.x_BLHP.dtype)
    batch, length, heads, head_dim = x_BLHP.shape
    state_BHPN = x_BLHP.new_zeros(
        (batch, heads, head_dim, arguments.B_BLGN.shape[-1]), dtype=dtype
    )  # fmt: skip
    if initial_state_BHPN is not None:
        state_BHPN.copy_(initial_state_BHPN)
    kept = batch * -(-length // chunk_size) if keep else 0
    states_SHPN = state_BHPN.new_empty(kept, *state_BHPN.shape[1:])
    decayed_BLHP = x_BLHP.new_empty(x_BLHP.shape if keep else (0,), dtype=dtype)
    y_BLHP, scratch = x_BLHP.new_empty(x_BLHP.shape), Scratch(x_BLHP, dtype)
    for span in spans(arguments, chunk_size):
        piece = Piece(arguments, span, scratch)
        if keep:
            before, decayed = piece.states(states_SHPN), piece.per_head("", decayed_BLHP)
        else:
            before = scratch.empty("states", (batch, span.chunks, *state_BHPN.shape[1:]))
            decayed = scratch.empty("decayed", piece.x_BMQGRP.shape)
        _pass_on(piece, state_BHPN, before)
        _outputs(piece, before, decayed)
        own = heads_last(piece.own_BMGQ()[:, :, :, None])
        skip = piece.dt_BMQGR * own if piece.D_GR is None else piece.D_GR + piece.dt_BMQGR * own
        y = scratch.empty("y", decayed.shape)
        torch.addcmul(decayed, piece.x_BMQGRP, skip[..., None], out=y)
        piece.cut(y_BLHP).copy_(y.flatten(3, 4))
    return y_BLHP, state_BHPN, decayed_BLHP, states_SHPN


def _pass_on(piece: Piece, state_BHPN: Tensor, before_BMHPN: Tensor) -> None:
    """Write the state before each chunk, and update the one before the piece to that after it."""
    weighted_BMGQC = piece.side_by_side("weighted", piece.u_BMGRQP, piece.to_end_BMGRQ())
    added = piece.scratch.product("added", weighted_BMGQC.mT, piece.B_BMGQN)
    added_BMHPN = added.view(before_BMHPN.shape)
    kept_BMH11 = piece.carry_BMGRQ()[..., -1].flatten(2)[..., None, None]
    before_BMHPN[:, 0] = state_BHPN
    for i in range(piece.span.chunks):
        after = before_BMHPN[:, i + 1] if i + 1 < piece.span.chunks else state_BHPN
        torch.addcmul(added_BMHPN[:, i], before_BMHPN[:, i], kept_BMH11[:, i], out=after)


def _outputs(piece: Piece, before_BMHPN: Tensor, decayed_BMQGRP: Tensor) -> None:
    """Write `decayed`."""
    product = piece.scratch.product
    before_BMGCN = before_BMHPN.unflatten(2, piece.groups).flatten(3, 4)
    carried_BMGRQP = piece.apart(product("carried", piece.C_BMGQN, before_BMGCN.mT))
    scores_BMGRQK = piece.decay_BMGRQK().mul_(piece.scores_BMGQK[:, :, :, None])
    within_BMGRQP = product("within", scores_BMGRQK, piece.u_BMGRQP)
    terms = (within_BMGRQP, carried_BMGRQP, piece.carry_BMGRQ()[..., None])
    torch.addcmul(*map(heads_last, terms), out=decayed_BMQGRP)
