"""The gradients of the scan as products of matrices: the backward of `gemm.py`, by hand.

Nothing quadratic in the chunk is kept from the forward: the scores are computed again, a piece of
the sequence at a time, from the last piece to the first. What is kept is the state before each
chunk and `decayed`, both linear in the length.

With the names of `gemm.py`, g the gradient of y, G' that of the state H' after the chunk, and
M_qk = exp(s_q - s_k) C_q . B_k for k < q, the gradient of u_k is

    later_k + (C_k . B_k) g_k + to_end_k,    later_k = sum over q > k of M_qk g_q,
                                             to_end_k = exp(s_e - s_k) G' B_k,

and that of a_j = dt_j A, by which everything decays that passes over step j,

    sum over q >= j of (g_q . decayed_q - u_q . later_q)
        + sum over k < j of u_k . to_end_k + exp(s_e) H . G'.

Suffixes as in `gemm.py`.
"""

import torch
from torch import Tensor

from sparsetorch_kernels.ssd.gemm import Arguments, Piece, Span, heads_first, heads_last, spans
from sparsetorch_kernels.ssd.scratch import Scratch


class Gradients:
    """The gradients of all arguments, filled in piece by piece from the end.

    In the arguments' dtypes, but for those of A, D and the state: they are sums over pieces.
    """

    def __init__(self, arguments: Arguments, final_state_BHPN: Tensor, dtype: torch.dtype):
        x, dt, A, B, C, _, _ = arguments
        self.x_BLHP, self.dt_BLH, self.B_BLGN, self.C_BLGN = map(_like, (x, dt, B, C))
        self.A_H, self.D_H = (torch.zeros_like(A, dtype=dtype) for _ in range(2))
        # Of the state after the piece, then of the one before it
        self.state_BHPN = final_state_BHPN.new_empty(final_state_BHPN.shape, dtype=dtype)
        self.state_BHPN.copy_(final_state_BHPN)  # contiguous, whatever the gradient is


def backward(
    arguments: Arguments,
    decayed_BLHP: Tensor,
    states_MBHPN: Tensor,
    grad_y_BLHP: Tensor,
    grad_final_state_BHPN: Tensor,
    chunk_size: int,
) -> Gradients:
    """From what `gemm.forward` kept, and the gradients of y and of the last state."""
    grads = Gradients(arguments, grad_final_state_BHPN, states_MBHPN.dtype)
    scratch = Scratch(states_MBHPN, states_MBHPN.dtype)
    for span in reversed(list(spans(arguments, chunk_size))):
        piece = _BackwardPiece(arguments, span, scratch)
        before = states_MBHPN[span.first : span.first + span.chunks]
        piece.run(before, decayed_BLHP, grad_y_BLHP, grads)
    return grads


class _BackwardPiece(Piece):
    def __init__(self, arguments: Arguments, span: Span, scratch: Scratch):
        super().__init__(arguments, span, scratch)
        # Three and two ways in which they act on the results, added up one by one
        self.grad_B_MBGQN = scratch.empty("grad B", self.B_MBGQN.shape)
        self.grad_C_MBGQN = scratch.empty("grad C", self.C_MBGQN.shape)

    def run(
        self, before_MBHPN: Tensor, decayed_BLHP: Tensor, grad_y_BLHP: Tensor, grads: Gradients
    ) -> None:
        """Fill in the piece's part of the gradients."""
        dot = self.scratch.dot
        g_MBQGRP = self.per_head("g", grad_y_BLHP)
        g_MBGRQP = self.scratch.copy("g heads first", heads_first(g_MBQGRP))
        later_MBGRQP = self._later(g_MBGRQP)
        kept_MBGR, after_MBGCN = self._states(before_MBHPN, g_MBGRQP, grads)
        to_end_MBGRQP = self._to_end(after_MBGCN)
        through_MBGRQ = heads_first(dot(g_MBQGRP, self.per_head("decayed", decayed_BLHP)))
        through_MBGRQ = through_MBGRQ - dot(self.u_MBGRQP, later_MBGRQP)
        crossing_MBGRQ = dot(self.u_MBGRQP, to_end_MBGRQP)
        grad_a_MBGRQ = self._sum_from(through_MBGRQ) + _sum_before(crossing_MBGRQ)
        own_MBG1Q1 = self.own_MBGQ()[:, :, :, None, :, None]
        grad_u_MBGRQP = later_MBGRQP.addcmul_(g_MBGRQP, own_MBG1Q1).add_(to_end_MBGRQP)
        grad_a_MBQGR = heads_last(grad_a_MBGRQ + kept_MBGR[..., None])
        self._arguments(g_MBQGRP, heads_last(grad_u_MBGRQP), grad_a_MBQGR, grads)

    def _sum_from(self, t_MBGRQ: Tensor) -> Tensor:
        """out[j] = the sum of t[q] over q >= j in j's document."""
        size = t_MBGRQ.shape[-1]
        mask_QQ = torch.ones(size, size, dtype=t_MBGRQ.dtype, device=t_MBGRQ.device).tril()
        if self.same is None:
            return t_MBGRQ @ mask_QQ
        # Differences of sums over all documents would leave their rounding in the wrong one.
        mask_MBQQ = mask_QQ * self.same.pairs_MB11QK[:, :, 0, 0]
        return (t_MBGRQ.flatten(2, 3) @ mask_MBQQ).view_as(t_MBGRQ)

    def _later(self, g_MBGRQP: Tensor) -> Tensor:
        """The gradient of u by later steps of the chunk; those of B and C by the chunk's scores."""
        product = self.scratch.product
        decay_MBGRQK = self.decay_MBGRQK()
        grad_scores = product("grad scores", g_MBGRQP, self.u_MBGRQP.mT).mul_(decay_MBGRQK)
        grad_scores_MBGQK = grad_scores.sum(3)
        own_MBGQ = self.scratch.dot(g_MBGRQP, self.u_MBGRQP).sum(3)
        grad_scores_MBGQK.diagonal(dim1=-2, dim2=-1).add_(own_MBGQ)
        product("grad B", grad_scores_MBGQK.mT, self.C_MBGQN)
        product("grad C", grad_scores_MBGQK, self.B_MBGQN)
        scores_MBGRQK = decay_MBGRQK.mul_(self.scores_MBGQK[:, :, :, None])
        return product("later", scores_MBGRQK.mT, g_MBGRQP)

    def _states(
        self, before_MBHPN: Tensor, g_MBGRQP: Tensor, grads: Gradients
    ) -> tuple[Tensor, Tensor]:
        """exp(s_e) H . G' of each chunk, and G'; the part of C's gradient by the states."""
        product = self.scratch.product
        carry_MBGRQ = self.carry_MBGRQ()
        before_MBGCN = before_MBHPN.unflatten(2, self.groups).flatten(3, 4)
        read_MBGQC = self.side_by_side("weighted", g_MBGRQP, carry_MBGRQ)
        self.grad_C_MBGQN += product("term", read_MBGQC, before_MBGCN)
        own = product("grad states", read_MBGQC.mT, self.C_MBGQN)
        own_MBHPN = own.view(before_MBHPN.shape)
        after_MBHPN = self.scratch.empty("after", before_MBHPN.shape)
        kept_MBH11 = carry_MBGRQ[..., -1].flatten(2)[..., None, None]
        after_MBHPN[-1] = grads.state_BHPN
        for i in reversed(range(self.span.chunks)):
            before = after_MBHPN[i - 1] if i > 0 else grads.state_BHPN
            torch.addcmul(own_MBHPN[i], after_MBHPN[i], kept_MBH11[i], out=before)
        inner_MBH = self.scratch.dot(before_MBHPN, after_MBHPN).sum(-1)
        return inner_MBH.unflatten(2, self.groups) * carry_MBGRQ[..., -1], after_MBHPN.view(
            before_MBGCN.shape
        )

    def _to_end(self, after_MBGCN: Tensor) -> Tensor:
        """The gradient of u by the state after the chunk; the part of B's."""
        product = self.scratch.product
        to_end_MBGRQ = self.to_end_MBGRQ()
        weighted_MBGQC = self.side_by_side("weighted", self.u_MBGRQP, to_end_MBGRQ)
        self.grad_B_MBGQN += product("term", weighted_MBGQC, after_MBGCN)
        grad_MBGRQP = self.apart(product("carried", self.B_MBGQN, after_MBGCN.mT))
        return self.scratch.scaled("to end", grad_MBGRQP, to_end_MBGRQ)

    def _arguments(
        self, g_MBQGRP: Tensor, grad_u_MBQGRP: Tensor, grad_a_MBQGR: Tensor, grads: Gradients
    ) -> None:
        """From the gradients of u = dt x and a = dt A to those of the arguments."""
        dot, x_MBQGRP = self.scratch.dot, self.x_MBQGRP
        grad_dt = dot(grad_u_MBQGRP, x_MBQGRP).addcmul_(grad_a_MBQGR, self.A_GR)
        grads.A_H += (grad_a_MBQGR * self.dt_MBQGR).sum((0, 1, 2)).flatten()
        grad_x = self.scratch.scaled("grad x", grad_u_MBQGRP, self.dt_MBQGR)
        if self.D_GR is not None:
            grad_x.addcmul_(g_MBQGRP, self.D_GR[..., None])
            grads.D_H += dot(g_MBQGRP, x_MBQGRP).sum((0, 1, 2)).flatten()
        self.span.cut(grads.x_BLHP).copy_(grad_x.flatten(3, 4))
        self.span.cut(grads.dt_BLH).copy_(grad_dt.flatten(3))
        self.span.cut(grads.B_BLGN).copy_(self.grad_B_MBGQN.transpose(2, 3))
        self.span.cut(grads.C_BLGN).copy_(self.grad_C_MBGQN.transpose(2, 3))


def _like(t: Tensor) -> Tensor:
    """Contiguous memory for a gradient of t, which may be a view or broadcast."""
    return torch.empty_like(t, memory_format=torch.contiguous_format)


def _sum_before(t: Tensor) -> Tensor:
    """out[j] = t[0] + ... + t[j - 1]"""
    return torch.nn.functional.pad(t[..., :-1].cumsum(-1), (1, 0))
