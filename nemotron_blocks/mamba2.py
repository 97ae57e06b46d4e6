"""The Mamba-2 mixer: a projection, a short convolution, the scan, a gated norm, a projection.

B: sequences, L: tokens, D: d_model, I: inner width, H: heads, P: head_dim, G: groups, N: d_state,
C: channels of the convolution, I + 2 G N
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from nemotron_blocks.cache import MambaState
from nemotron_blocks.norm import GatedRMSNorm
from nemotron_blocks.sequence import Sequence
from sparsetorch_kernels import causal_conv, mamba2_step, ssd_scan


class Mamba2(nn.Module):
    """State-space duality with heads in groups (T. Dao, A. Gu, ICML 2024, arXiv:2405.21060).

    The first projection makes gate, x, B, C and time steps, in this order; x, B and C go through a
    causal convolution and SiLU; the scan's result is gated and normalized in groups.

    Args:
        d_model: D.
        heads, head_dim: H and P; their product is the inner width.
        groups: G, of heads that share B and C.
        d_state: N.
        d_conv: taps of the convolution.
        chunk_size: of the scan.
        dt_limit: time steps are clamped to it.
        norm_eps: of the gated norm.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        head_dim: int,
        groups: int,
        d_state: int,
        d_conv: int = 4,
        chunk_size: int = 128,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        inner = heads * head_dim
        self.sizes = (inner, inner + 2 * groups * d_state, heads)
        self.heads, self.groups, self.d_state = heads, groups, d_state
        self.chunk_size, self.dt_limit = chunk_size, dt_limit
        channels = self.sizes[1]
        self.in_proj = nn.Linear(d_model, sum(self.sizes), bias=False)
        self.conv1d = nn.Conv1d(channels, channels, d_conv, groups=channels)
        self.A_log = nn.Parameter(torch.zeros(heads))
        self.D = nn.Parameter(torch.ones(heads))
        self.dt_bias = nn.Parameter(torch.zeros(heads))
        self.norm = GatedRMSNorm(inner, groups, norm_eps)
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    def forward(self, x_BLD: Tensor, sequence: Sequence, kept: MambaState | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D); `kept` goes on from the tokens before, and keeps these."""
        z_BLI, xBC_BLC, dt_BLH = self.in_proj(x_BLD).split(self.sizes, dim=-1)
        conv, ssm = self._before(kept, sequence)
        past: list[tuple[Tensor, Tensor]] = []
        by_steps = sequence.length == 1 or (sequence.traced and sequence.length > 0)
        if by_steps and conv is not None and ssm is not None:
            y_BLI, past = self._steps_on(xBC_BLC, dt_BLH, conv, ssm, sequence)
            conv, ssm = past[-1]
        else:
            xBC_BLC, conv = self._convolve(xBC_BLC, conv, sequence)
            y_BLI, ssm = self._scan(xBC_BLC, dt_BLH, ssm, sequence)
        if kept is not None and sequence.place is not None:
            kept.conv.copy_(conv)
            kept.ssm.copy_(ssm)
        elif kept is not None:
            kept.conv, kept.ssm = conv.detach(), ssm.detach()
            kept.past = [(c.detach(), s.detach()) for c, s in past] if sequence.traced else []
        return self.out_proj(self.norm(y_BLI, z_BLI))

    def _before(
        self, kept: MambaState | None, sequence: Sequence
    ) -> tuple[Tensor | None, Tensor | None]:
        """What the tokens before have left, zero where a document begins."""
        if kept is None or sequence.start == 0:
            return None, None
        if sequence.fresh is None:
            return kept.conv, kept.ssm
        return _where(~sequence.fresh, kept.conv, kept.ssm)

    def _steps_on(
        self, xBC_BLC: Tensor, dt_BLH: Tensor, conv: Tensor, ssm: Tensor, sequence: Sequence
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The result, (B, L, I), a token at a time, and what each token leaves."""
        found, past = [], []
        for t in range(sequence.length):
            if t > 0 and sequence.seq_idx is not None:
                old = sequence.seq_idx[:, t] == sequence.seq_idx[:, t - 1]
                conv, ssm = _where(old, conv, ssm)
            part = slice(t, t + 1)
            y_B1I, conv, ssm = self._step(xBC_BLC[:, part], dt_BLH[:, part], conv, ssm)
            found.append(y_B1I)
            past.append((conv, ssm))
        return torch.cat(found, dim=1) if len(found) > 1 else found[0], past

    def _step(
        self, xBC_B1C: Tensor, dt_B1H: Tensor, conv: Tensor, ssm: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The result of one token, (B, 1, I), and what the next one will ask for."""
        y_BI, conv, ssm = mamba2_step(
            xBC_B1C[:, 0],
            dt_B1H[:, 0],
            self.conv1d.weight[:, 0],
            self.conv1d.bias,
            conv,
            self.A_log,
            self.D,
            self.dt_bias,
            ssm,
            self.groups,
            self.dt_limit,
        )
        return y_BI[:, None], conv, ssm

    def _convolve(
        self, xBC_BLC: Tensor, conv: Tensor | None, sequence: Sequence
    ) -> tuple[Tensor, Tensor]:
        """The result, (B, L, C), and what the next tokens will ask for."""
        weight, bias = self.conv1d.weight[:, 0], self.conv1d.bias
        return causal_conv(xBC_BLC, weight, bias, initial=conv, seq_idx=sequence.seq_idx)

    def _scan(
        self, xBC_BLC: Tensor, dt_BLH: Tensor, ssm: Tensor | None, sequence: Sequence
    ) -> tuple[Tensor, Tensor]:
        """The result, (B, L, I), and the state behind it."""
        inner, channels, _ = self.sizes
        x_BLI, B_BLGN, C_BLGN = xBC_BLC.split([inner, *2 * [(channels - inner) // 2]], dim=-1)
        x_BLHP = x_BLI.unflatten(-1, (self.heads, -1))
        B_BLGN, C_BLGN = (part.unflatten(-1, (self.groups, -1)) for part in (B_BLGN, C_BLGN))
        dt_BLH, A_H = self._time_steps(dt_BLH)
        D_H = self.D.to(A_H.dtype)
        y_BLHP, ssm = ssd_scan(
            x_BLHP,
            dt_BLH,
            A_H,
            B_BLGN,
            C_BLGN,
            D_H,
            initial_state=ssm,
            seq_idx=sequence.seq_idx,
            chunk_size=self.chunk_size,
        )
        return y_BLHP.flatten(2), ssm

    def _time_steps(self, dt_BLH: Tensor) -> tuple[Tensor, Tensor]:
        """Time steps, (B, L, H), from what the projection makes, and A, (H,)."""
        wide = torch.promote_types(dt_BLH.dtype, torch.float32)
        dt_BLH = softplus(dt_BLH.to(wide) + self.dt_bias.to(wide)).clamp(*self.dt_limit)
        return dt_BLH, -self.A_log.to(wide).exp()


def _where(old: Tensor, conv: Tensor, ssm: Tensor) -> tuple[Tensor, Tensor]:
    """What both keep in the rows (B,) that go on with their document, zero in the others."""
    return conv * old[:, None, None], ssm * old[:, None, None, None]
