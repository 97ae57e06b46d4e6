"""The specification of the scan, in plain PyTorch: any float dtype, any device, differentiable.

`ssd_scan` is the definition, a loop over time. `ssd_chunked` is the chunked form of Dao & Gu,
"Transformers are SSMs" (arXiv:2405.21060), section 6 and listing 1, with documents kept apart and
without the division of the length into equal chunks; second derivatives are taken through it.

`causal_conv` is the convolution before the scan, all of it at once. `gradients` differentiates any
of them so that the result can be differentiated again.

Suffixes: B batch, L length, H heads, P head dim, G groups, N state; Q and K positions in a chunk.
For the convolution: C channels, K taps, W = K - 1 earlier inputs.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def ssd_scan(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    D_H: Tensor | None = None,
    initial_state_BHPN: Tensor | None = None,
    seq_idx_BL: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t^T, y_t = h_t C_t + D x_t; h is 0 before a document.

    Returns y (B, L, H, P) and the last h (B, H, P, N). Sums are made in the dtype of the arguments.
    """
    batch, length = x_BLHP.shape[:2]
    state = _first_state(x_BLHP, B_BLGN, initial_state_BHPN)
    outputs = []
    for t in range(length):
        if seq_idx_BL is not None and t > 0:
            goes_on = seq_idx_BL[:, t] == seq_idx_BL[:, t - 1]
            state = state * goes_on.view(batch, 1, 1, 1)
        y, state = ssd_step(
            x_BLHP[:, t], dt_BLH[:, t], A_H, B_BLGN[:, t], C_BLGN[:, t], D_H, state
        )  # fmt: skip
        outputs.append(y)
    return torch.stack(outputs, 1) if outputs else torch.zeros_like(x_BLHP), state


def ssd_step(
    x_BHP: Tensor,
    dt_BH: Tensor,
    A_H: Tensor,
    B_BGN: Tensor,
    C_BGN: Tensor,
    D_H: Tensor | None,
    state_BHPN: Tensor,
) -> tuple[Tensor, Tensor]:
    """One step of the definition: y (B, H, P) and the new state."""
    repeats = x_BHP.shape[1] // B_BGN.shape[1]
    B_BHN, C_BHN = (t.repeat_interleave(repeats, 1) for t in (B_BGN, C_BGN))
    decay_BH = torch.exp(dt_BH * A_H)
    added = torch.einsum("bh,bhp,bhn->bhpn", dt_BH, x_BHP, B_BHN)
    state_BHPN = decay_BH[..., None, None] * state_BHPN + added
    y_BHP = torch.einsum("bhpn,bhn->bhp", state_BHPN, C_BHN)
    return y_BHP if D_H is None else y_BHP + D_H[:, None] * x_BHP, state_BHPN


def ssd_chunked(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    D_H: Tensor | None = None,
    initial_state_BHPN: Tensor | None = None,
    seq_idx_BL: Tensor | None = None,
    chunk_size: int = 128,
) -> tuple[Tensor, Tensor]:
    """What `ssd_scan` returns, from products of matrices in each chunk."""
    repeats = x_BLHP.shape[2] // B_BLGN.shape[2]
    B_BLHN, C_BLHN = (t.repeat_interleave(repeats, 2) for t in (B_BLGN, C_BLGN))
    u_BLHP = dt_BLH[..., None] * x_BLHP
    state = _first_state(x_BLHP, B_BLGN, initial_state_BHPN)
    last = None if seq_idx_BL is None else seq_idx_BL[:, :1]
    outputs = []
    for start in range(0, x_BLHP.shape[1], chunk_size):
        chunk = slice(start, start + chunk_size)
        a_BHQ = (dt_BLH[:, chunk] * A_H).transpose(1, 2)
        seq_BQ = None if seq_idx_BL is None else seq_idx_BL[:, chunk]
        y, state = _chunk(
            u_BLHP[:, chunk], a_BHQ, B_BLHN[:, chunk], C_BLHN[:, chunk], state, seq_BQ, last
        )
        outputs.append(y)
        last = None if seq_BQ is None else seq_BQ[:, -1:]
    y_BLHP = torch.cat(outputs, 1) if outputs else torch.zeros_like(x_BLHP)
    return y_BLHP if D_H is None else y_BLHP + D_H[:, None] * x_BLHP, state


def _chunk(u_BQHP, a_BHQ, B_BQHN, C_BQHN, state_BHPN, seq_BQ, last_B1):
    """One chunk: y without D x, and the state after it."""
    decay_BHQK = torch.exp(_segment_sums(a_BHQ))
    sums_BHQ = a_BHQ.cumsum(-1)
    carried_BHQ = sums_BHQ.exp()
    to_end_BHQ = torch.exp(sums_BHQ[..., -1:] - sums_BHQ)
    if seq_BQ is not None:
        decay_BHQK = decay_BHQK * (seq_BQ[:, None, :, None] == seq_BQ[:, None, None, :])
        carried_BHQ = carried_BHQ * (seq_BQ == last_B1)[:, None]
        to_end_BHQ = to_end_BHQ * (seq_BQ == seq_BQ[:, -1:])[:, None]
    scores_BHQK = torch.einsum("bqhn,bkhn->bhqk", C_BQHN, B_BQHN) * decay_BHQK
    y_BQHP = torch.einsum("bhqk,bkhp->bqhp", scores_BHQK, u_BQHP)
    read_BQHP = torch.einsum("bqhn,bhpn->bqhp", C_BQHN, state_BHPN)
    y_BQHP = y_BQHP + read_BQHP * carried_BHQ.transpose(1, 2)[..., None]
    kept_BHPN = state_BHPN * carried_BHQ[..., -1, None, None]
    weighted_BQHP = u_BQHP * to_end_BHQ.transpose(1, 2)[..., None]
    return y_BQHP, kept_BHPN + torch.einsum("bqhp,bqhn->bhpn", weighted_BQHP, B_BQHN)


def _segment_sums(a_BHQ: Tensor) -> Tensor:
    """s[q, k] = a[k + 1] + ... + a[q] for k <= q, and -inf above: sums, not their differences."""
    size = a_BHQ.shape[-1]
    below = torch.ones(size, size, dtype=torch.bool, device=a_BHQ.device).tril(-1)
    terms = a_BHQ[..., None].expand(*a_BHQ.shape, size).masked_fill(~below, 0)
    upper = torch.ones_like(below).triu(1)
    return terms.cumsum(-2).masked_fill(upper, float("-inf"))


def _first_state(x_BLHP: Tensor, B_BLGN: Tensor, initial_state_BHPN: Tensor | None) -> Tensor:
    if initial_state_BHPN is not None:
        return initial_state_BHPN
    batch, _, heads, head_dim = x_BLHP.shape
    return x_BLHP.new_zeros(batch, heads, head_dim, B_BLGN.shape[-1])


def causal_conv(
    x_BLC: Tensor,
    weight_CK: Tensor,
    bias_C: Tensor | None = None,
    initial_BWC: Tensor | None = None,
    seq_idx_BL: Tensor | None = None,
    silu: bool = True,
) -> Tensor:
    """y_t = act(bias + sum over k of w_k x_(t - K + 1 + k)), over the inputs of t's document."""
    length, taps = x_BLC.shape[1], weight_CK.shape[1]
    dtype = torch.float64 if x_BLC.dtype == torch.float64 else torch.float32
    inputs = with_earlier(x_BLC, taps, initial_BWC).to(dtype)
    seq = None
    if seq_idx_BL is not None and length > 0:
        seq = seq_with_earlier(seq_idx_BL, taps)
    y = torch.zeros_like(x_BLC, dtype=dtype) if bias_C is None else bias_C.to(dtype)
    for k in range(taps):
        term = inputs[:, k : k + length] * weight_CK[:, k].to(dtype)
        if seq is not None:
            term = term * (seq[:, k : k + length] == seq_idx_BL)[..., None]
        y = y + term
    return (F.silu(y) if silu else y).to(x_BLC.dtype)


def with_earlier(x_BLC: Tensor, taps: int, initial_BWC: Tensor | None) -> Tensor:
    """The K - 1 inputs before x, zero if None, and x."""
    if initial_BWC is None:
        return F.pad(x_BLC, (0, 0, taps - 1, 0))
    return torch.cat([initial_BWC, x_BLC], 1)


def seq_with_earlier(seq_idx_BL: Tensor, taps: int) -> Tensor:
    """The documents of `with_earlier`: what is before x belongs to the first position's."""
    return torch.cat([seq_idx_BL[:, :1].expand(-1, taps - 1), seq_idx_BL], 1)


def gradients(
    call: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients of call(*inputs) for those of its results, differentiable themselves.

    call gets views: no gradient may pass from one input through another one that depends on it.
    """
    views = [None if t is None else t.view_as(t) for t in inputs]
    results = call(*views)
    results = results if isinstance(results, tuple) else (results,)
    known = [(r, g.to(r.dtype)) for r, g in zip(results, grads) if g is not None]
    wanted = [t for t in views if t is not None and t.requires_grad]
    found = torch.autograd.grad(
        [r for r, _ in known], wanted, [g for _, g in known], create_graph=True, allow_unused=True
    )
    by_view = {id(t): g for t, g in zip(wanted, found)}
    return [by_view.get(id(t)) for t in views]
