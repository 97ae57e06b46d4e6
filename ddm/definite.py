"""Whether a matrix is positive definite, as far as conjugate gradients can tell."""

from __future__ import annotations

import torch

from ddm.problems.problem import Kind
from sparsetorch import CSRTensor
from sparsetorch.linalg import Status, cg

STEPS = 50


@torch.no_grad()
def is_definite(A: CSRTensor, kind: Kind) -> bool:
    """Whether conjugate gradients may be used for A: "spd", or symmetric with no sign against it.

    For a real symmetric matrix that nobody called definite, some steps of conjugate gradients look
    for a direction of negative curvature. Finding one proves that A is indefinite; finding none
    proves nothing, but then CG finds none either, until it says so itself.

    Args:
        A: (n, n).
        kind: of the problem, see `ddm.Problem`.
    """
    if kind == "spd":
        return True
    if kind == "general" or A.dtype.is_complex or not bool((A.diagonal() > 0).all()):
        return False
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = torch.randn(A.shape[0], generator=generator, dtype=A.dtype, device="cpu")
    b = A @ drawn.to(A.device)  # in the range of A
    return cg(A, b, rtol=1e-8, maxiter=STEPS).status is not Status.INDEFINITE
