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
        self.state_BHPN = final_state_BHPN.to(dtype, copy=True)


def backward(
    arguments: Arguments,
    decayed_BLHP: Tensor,
    states_SHPN: Tensor,
    grad_y_BLHP: Tensor,
    grad_final_state_BHPN: Tensor,
    chunk_size: int,
) -> Gradients:
    """From what `gemm.forward` kept, and the gradients of y and of the last state."""
    grads = Gradients(arguments, grad_final_state_BHPN, states_SHPN.dtype)
    scratch = Scratch(states_SHPN, states_SHPN.dtype)
    for span in reversed(list(spans(arguments, chunk_size))):
        piece = _BackwardPiece(arguments, span, scratch)
        piece.run(piece.states(states_SHPN), decayed_BLHP, grad_y_BLHP, grads)
    return grads


class _BackwardPiece(Piece):
    def __init__(self, arguments: Arguments, span: Span, scratch: Scratch):
        super().__init__(arguments, span, scratch)
        # Three and two ways in which they act on the results, added up one by one
        self.grad_B_BMGQN = scratch.empty("grad B", self.B_BMGQN.shape)
        self.grad_C_BMGQN = scratch.empty("grad C", self.C_BMGQN.shape)

    def run(
        self, before_BMHPN: Tensor, decayed_BLHP: Tensor, grad_y_BLHP: Tensor, grads: Gradients
    ) -> None:
        """Fill in the piece's part of the gradients."""
        dot = self.scratch.dot
        g_BMQGRP = self.per_head("g", grad_y_BLHP)
        g_BMGRQP = self.scratch.copy("g heads first", heads_first(g_BMQGRP))
        later_BMGRQP = self._later(g_BMGRQP)
        kept_BMGR, after_BMGCN = self._states(before_BMHPN, g_BMGRQP, grads)
        to_end_BMGRQP = self._to_end(after_BMGCN)
        through_BMGRQ = heads_first(dot(g_BMQGRP, self.per_head("decayed", decayed_BLHP)))
        through_BMGRQ = through_BMGRQ - dot(self.u_BMGRQP, later_BMGRQP)
        crossing_BMGRQ = dot(self.u_BMGRQP, to_end_BMGRQP)
        grad_a_BMGRQ = self._sum_from(through_BMGRQ) + _sum_before(crossing_BMGRQ)
        own_BMG1Q1 = self.own_BMGQ()[:, :, :, None, :, None]
        grad_u_BMGRQP = later_BMGRQP.addcmul_(g_BMGRQP, own_BMG1Q1).add_(to_end_BMGRQP)
        grad_a_BMQGR = heads_last(grad_a_BMGRQ + kept_BMGR[..., None])
        self._arguments(g_BMQGRP, heads_last(grad_u_BMGRQP), grad_a_BMQGR, grads)

    def _sum_from(self, t_BMGRQ: Tensor) -> Tensor:
        """out[j] = the sum of t[q] over q >= j in j's document."""
        size = t_BMGRQ.shape[-1]
        mask_QQ = torch.ones(size, size, dtype=t_BMGRQ.dtype, device=t_BMGRQ.device).tril()
        if self.same is None:
            return t_BMGRQ @ mask_QQ
        # Differences of sums over all documents would leave their rounding in the wrong one.
        mask_BMQQ = mask_QQ * self.same.pairs_BM11QK[:, :, 0, 0]
        return (t_BMGRQ.flatten(2, 3) @ mask_BMQQ).view_as(t_BMGRQ)

    def _later(self, g_BMGRQP: Tensor) -> Tensor:
        """The gradient of u by later steps of the chunk; those of B and C by the chunk's scores."""
        product = self.scratch.product
        decay_BMGRQK = self.decay_BMGRQK()
        grad_scores = product("grad scores", g_BMGRQP, self.u_BMGRQP.mT).mul_(decay_BMGRQK)
        grad_scores_BMGQK = grad_scores.sum(3)
        own_BMGQ = self.scratch.dot(g_BMGRQP, self.u_BMGRQP).sum(3)
        grad_scores_BMGQK.diagonal(dim1=-2, dim2=-1).add_(own_BMGQ)
        product("grad B", grad_scores_BMGQK.mT, self.C_BMGQN)
        product("grad C", grad_scores_BMGQK, self.B_BMGQN)
        scores_BMGRQK = decay_BMGRQK.mul_(self.scores_BMGQK[:, :, :, None])
        return product("later", scores_BMGRQK.mT, g_BMGRQP)

    def _states(
        self, before_BMHPN: Tensor, g_BMGRQP: Tensor, grads: Gradients
    ) -> tuple[Tensor, Tensor]:
        """exp(s_e) H . G' of each chunk, and G'; the part of C's gradient by the states."""
        product = self.scratch.product
        carry_BMGRQ = self.carry_BMGRQ()
        before_BMGCN = before_BMHPN.unflatten(2, self.groups).flatten(3, 4)
        read_BMGQC = self.side_by_side("weighted", g_BMGRQP, carry_BMGRQ)
        self.grad_C_BMGQN += product("term", read_BMGQC, before_BMGCN)
        own = product("grad states", read_BMGQC.mT, self.C_BMGQN)
        own_BMHPN = own.view(before_BMHPN.shape)
        after_BMHPN = self.scratch.empty("after", before_BMHPN.shape)
        kept_BMH11 = carry_BMGRQ[..., -1].flatten(2)[..., None, None]
        after_BMHPN[:, -1] = grads.state_BHPN
        for i in reversed(range(self.span.chunks)):
            before = after_BMHPN[:, i - 1] if i > 0 else grads.state_BHPN
            torch.addcmul(own_BMHPN[:, i], after_BMHPN[:, i], kept_BMH11[:, i], out=before)
        inner_BMH = self.scratch.dot(before_BMHPN, after_BMHPN).sum(-1)
        return inner_BMH.unflatten(2, self.groups) * carry_BMGRQ[..., -1], after_BMHPN.view(
            before_BMGCN.shape
        )

    def _to_end(self, after_BMGCN: Tensor) -> Tensor:
        """The gradient of u by the state after the chunk; the part of B's."""
        product = self.scratch.product
        to_end_BMGRQ = self.to_end_BMGRQ()
        weighted_BMGQC = self.side_by_side("weighted", self.u_BMGRQP, to_end_BMGRQ)
        self.grad_B_BMGQN += product("term", weighted_BMGQC, after_BMGCN)
        grad_BMGRQP = self.apart(product("carried", self.B_BMGQN, after_BMGCN.mT))
        return self.scratch.scaled("to end", grad_BMGRQP, to_end_BMGRQ)

    def _arguments(
        self, g_BMQGRP: Tensor, grad_u_BMQGRP: Tensor, grad_a_BMQGR: Tensor, grads: Gradients
    ) -> None:
        """From the gradients of u = dt x and a = dt A to those of the arguments."""
        dot, x_BMQGRP = self.scratch.dot, self.x_BMQGRP
        grad_dt = dot(grad_u_BMQGRP, x_BMQGRP).addcmul_(grad_a_BMQGR, self.A_GR)
        grads.A_H += (grad_a_BMQGR * self.dt_BMQGR).sum((0, 1, 2)).flatten()
        grad_x = self.scratch.scaled("grad x", grad_u_BMQGRP, self.dt_BMQGR)
        if self.D_GR is not None:
            grad_x.addcmul_(g_BMQGRP, self.D_GR[..., None])
            grads.D_H += dot(g_BMQGRP, x_BMQGRP).sum((0, 1, 2)).flatten()
        self.cut(grads.x_BLHP).copy_(grad_x.flatten(3, 4))
        self.cut(grads.dt_BLH).copy_(grad_dt.flatten(3))
        self.cut(grads.B_BLGN).copy_(self.grad_B_BMGQN.transpose(2, 3))
        self.cut(grads.C_BLGN).copy_(self.grad_C_BMGQN.transpose(2, 3))


def _like(t: Tensor) -> Tensor:
    """Contiguous memory for a gradient of t, which may be a view or broadcast."""
    return torch.empty_like(t, memory_format=torch.contiguous_format)


def _sum_before(t: Tensor) -> Tensor:
    """out[j] = t[0] + ... + t[j - 1]"""
    return torch.nn.functional.pad(t[..., :-1].cumsum(-1), (1, 0))
