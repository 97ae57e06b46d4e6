"""Context parallel: the tokens of each row in pieces of one length, one piece a rank.

Mamba-2 passes on what its convolution has yet to see, and its state; attention gathers keys and
values. The state before a rank is found from what each rank makes of no state and how much of one
it keeps: they are gathered, in one message, and a rank goes through those before it. What that
state adds to the rank's outputs is one product of matrices, after the scan and not before it.

B: sequences, L: tokens of a piece, R: ranks, S: tokens up to the end of a rank's piece, H: heads,
P: head_dim, G: groups, N: d_state, C: channels of the convolution, K: heads of keys, E: head_dim
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from nemotron_blocks.attention import Attention
from nemotron_blocks.cache import Cache, KeyValues
from nemotron_blocks.loss import IGNORED
from nemotron_blocks.mamba2 import Mamba2
from nemotron_blocks.model import HybridLM
from nemotron_blocks.parallel.collectives import gathered
from nemotron_blocks.parallel.weights import check_mesh, extend
from nemotron_blocks.sequence import Sequence, check_documents


def context_parallel(model: HybridLM, mesh: DeviceMesh) -> HybridLM:
    """Make a model take the r-th piece of each row on rank r, in place, with the same weights.

    `piece` cuts rows, and `seq_idx` likewise: documents keep their numbers over pieces. Pieces are
    of one length, at least d_conv - 1. A loss is the mean over ranks of what `token_mean` makes of
    each rank's, and `mean_gradients` or `shard` give its gradient.

    Args:
        model: of the same weights on each rank.
        mesh: of one dimension.

    Raises:
        ValueError: when called, for a cache, for pieces of several lengths or too short ones, and
            for documents that go back, also from one piece to the next.
    """
    group = check_mesh(mesh)
    kinds = {Mamba2: _MambaOfAPiece, Attention: _AttentionOfAPiece, HybridLM: _ModelOfPieces}
    for module in list(model.modules()):
        for kind, of_a_piece in kinds.items():
            if isinstance(module, kind):
                extend(module, of_a_piece, context_group=group)
    return model


def piece(x_BS: Tensor, mesh: DeviceMesh | None) -> Tensor:
    """This rank's part (B, L, ...) of rows (B, R L, ...); all of them without a mesh.

    Raises:
        ValueError: rows are not of R pieces of one length.
    """
    if mesh is None:
        return x_BS
    check_mesh(mesh)
    if x_BS.shape[1] % mesh.size():
        raise ValueError(
            f"x: expected rows of a multiple of {mesh.size()} tokens, the ranks of context "
            f"parallel, got {x_BS.shape[1]}"
        )
    return x_BS.chunk(mesh.size(), dim=1)[mesh.get_local_rank()]


def whole_row(x_BL: Tensor, mesh: DeviceMesh | None) -> Tensor:
    """The rows (B, R L, ...) of which this rank has a piece (B, L, ...); differentiable.

    For what needs whole documents: the balance loss of routers' scores, targets ahead. Without a
    mesh rows are whole already.
    """
    return x_BL if mesh is None else _row(x_BL, check_mesh(mesh))


def token_mean(loss: Tensor, targets: Tensor, mesh: DeviceMesh | None) -> Tensor:
    """A rank's mean loss, weighted by how many of all targets that count are its own.

    The mean over ranks is the mean over the tokens of all, where that of the losses as they are
    would give tokens of a rank with few targets a larger weight.

    Args:
        loss: 0-d, the mean over this rank's targets that count.
        targets: integers; `IGNORED` does not count.
        mesh: of one dimension; the loss is returned as it is without one.
    """
    if mesh is None:
        return loss
    count = (targets != IGNORED).sum()
    total = count.clone()
    dist.all_reduce(total, group=check_mesh(mesh))
    return loss * count * mesh.size() / total.clamp(min=1)


class _ModelOfPieces(HybridLM):
    """A model that knows the documents and tokens of the whole rows."""

    context_group: dist.ProcessGroup

    def sequence(
        self, tokens_BL: Tensor, seq_idx: Tensor | None = None, cache: Cache | None = None
    ) -> Sequence:
        if cache is not None:
            raise ValueError("cache: context parallel is for training; generate without it")
        check_documents(tokens_BL, seq_idx)
        group, length = self.context_group, tokens_BL.shape[1]
        _check_pieces(tokens_BL, seq_idx, group)
        start = dist.get_rank(group) * length
        if seq_idx is None:
            return Sequence(start, length, None, None, tokens_BL.device)
        seen = _row(seq_idx, group)
        check_documents(seen, seen)
        return Sequence(start, length, seq_idx, seen[:, : start + length], tokens_BL.device)

    def behind(self, tokens_BL: Tensor, k: int) -> Tensor:
        start = dist.get_rank(self.context_group) * tokens_BL.shape[1]
        whole = _row(tokens_BL, self.context_group).roll(-k, dims=1)
        return whole[:, start : start + tokens_BL.shape[1]]


class _AttentionOfAPiece(Attention):
    """Queries of a piece, keys and values of all up to its end."""

    context_group: dist.ProcessGroup

    def _so_far(
        self, k_BKLE: Tensor, v_BKLE: Tensor, sequence: Sequence, kept: KeyValues | None
    ) -> tuple[Tensor, Tensor]:
        both = gathered(torch.stack([k_BKLE, v_BKLE]), self.context_group)  # (R, 2, B, K, L, E)
        both = both.permute(1, 2, 3, 0, 4, 5).flatten(3, 4)
        k_BKSE, v_BKSE = both[:, :, :, : sequence.start + sequence.length]
        return k_BKSE, v_BKSE


class _MambaOfAPiece(Mamba2):
    """The tokens of a piece, with what those before leave."""

    context_group: dist.ProcessGroup

    def _convolve(
        self, xBC_BLC: Tensor, conv: Tensor | None, sequence: Sequence
    ) -> tuple[Tensor, Tensor]:
        taps = self.conv1d.weight.shape[-1] - 1
        if sequence.length < taps:
            raise ValueError(
                f"tokens: expected pieces of at least {taps}, the convolution's reach, got "
                f"{sequence.length}; take fewer ranks"
            )
        ends = gathered(xBC_BLC[:, sequence.length - taps :], self.context_group)
        # Masked and not left out on the first rank, which takes part in the backward pass.
        before = ends[dist.get_rank(self.context_group) - 1]
        known = _same_document(sequence, taps, len(xBC_BLC))
        conv = before.masked_fill(~known[:, :, None], 0)
        return super()._convolve(xBC_BLC, conv, sequence)

    def _scan(
        self, xBC_BLC: Tensor, dt_BLH: Tensor, ssm: Tensor | None, sequence: Sequence
    ) -> tuple[Tensor, Tensor]:
        y_BLI, left_BHPN = super()._scan(xBC_BLC, dt_BLH, None, sequence)
        dt_BLH, A_H = self._time_steps(dt_BLH)
        decay_BLH = (dt_BLH * A_H).cumsum(1).exp()
        before_BHPN = self._state_before(left_BHPN, decay_BLH[:, -1], sequence)
        if sequence.seq_idx is not None and sequence.seen is not None:
            first = sequence.seen[:, max(sequence.start - 1, 0), None]
            decay_BLH = decay_BLH.masked_fill((sequence.seq_idx != first)[:, :, None], 0)
        C_BLGN = xBC_BLC[..., -self.groups * self.d_state :].unflatten(-1, (self.groups, -1))
        C_BGLN = C_BLGN.transpose(1, 2).to(before_BHPN.dtype)
        states = before_BHPN.unflatten(1, (self.groups, -1)).flatten(2, 3)  # (B, G, H / G P, N)
        added_BLI = (C_BGLN @ states.mT).transpose(1, 2).flatten(2)
        added_BLHP = added_BLI.unflatten(-1, (self.heads, -1)) * decay_BLH[..., None]
        return y_BLI + added_BLHP.flatten(2).to(y_BLI.dtype), left_BHPN

    def _state_before(self, left_BHPN: Tensor, decay_BH: Tensor, sequence: Sequence) -> Tensor:
        """What the pieces before this one have left, (B, H, P, N), zero for the first."""
        packed = torch.cat([left_BHPN.flatten(2), decay_BH[..., None]], dim=-1)
        parts = gathered(packed, self.context_group)
        lefts, decays = parts[..., :-1].unflatten(-1, left_BHPN.shape[2:]), parts[..., -1]
        # In the graph on the first rank too, which takes part in the backward pass.
        state = lefts[0].masked_fill(torch.ones_like(lefts[0], dtype=torch.bool), 0)
        for rank in range(dist.get_rank(self.context_group)):
            kept = decays[rank]
            if sequence.seen is not None:
                last = (rank + 1) * sequence.length - 1
                first = max(last - sequence.length, 0)
                goes_on = sequence.seen[:, first] == sequence.seen[:, last]
                kept = kept.masked_fill(~goes_on[:, None], 0)
            state = lefts[rank] + kept[..., None, None] * state
        return state


def _same_document(sequence: Sequence, taps: int, batch: int) -> Tensor:
    """(B, taps) bool: which of the last tokens before a piece are of its first token's document."""
    if sequence.seen is None or sequence.start == 0:
        shape = batch, taps
        return torch.full(shape, sequence.start > 0, dtype=torch.bool, device=sequence.device)
    start = sequence.start
    return sequence.seen[:, start - taps : start] == sequence.seen[:, start, None]


def _row(x_BL: Tensor, group: dist.ProcessGroup) -> Tensor:
    return gathered(x_BL, group).transpose(0, 1).flatten(1, 2)


def _check_pieces(tokens: Tensor, seq_idx: Tensor | None, group: dist.ProcessGroup) -> None:
    if not tokens.is_cpu:  # a GPU would have to be waited for
        return
    own = torch.tensor([*tokens.shape, seq_idx is not None])
    shapes = gathered(own, group).tolist()
    if any(shape != shapes[0] for shape in shapes):
        given = ", ".join(f"{tuple(b)}{'' if d else ' without documents'}" for *b, d in shapes)
        raise ValueError(f"tokens: expected pieces of one shape, got {given}")
