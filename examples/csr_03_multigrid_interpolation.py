"""Learn how to smooth the interpolation of a two-grid method, through its coarse solves.

    P = (I - diag(w) A) P_0,    e <- S (I - P (P^T A P)^-1 P^T A) S e

P_0 is constant on aggregates, S = I - 2/3 diag(A)^-1 A. Classical smoothed aggregation takes
w = omega / diag(A), omega = 4/3 / lambda_max(diag(A)^-1 A): P. Vanek, J. Mandel, M. Brezina,
Computing 56 (1996). N. Nytko et al. (arXiv:2212.05159) learn one weight per unknown: the loss is
the reduction of random errors, and gradients pass through `galerkin` and `linalg.solve`.

    python examples/csr_03_multigrid_interpolation.py
"""

import time

import torch
from csr_02_jacobi_weights import diffusion
from torch import Tensor

from sparsetorch import CSRTensor, galerkin
from sparsetorch.linalg import solve

CYCLES = 5


def aggregates(size: int, width: int = 3) -> CSRTensor:
    """P_0 of a size x size grid whose aggregates are width x width squares."""
    place = torch.arange(size) // width
    per_line = int(place[-1]) + 1
    aggregate = (place[:, None] * per_line + place[None]).flatten()
    ones = torch.ones(size**2, dtype=torch.float64)
    return CSRTensor.from_coo(torch.arange(size**2), aggregate, ones, (size**2, per_line**2))


def energy(A: CSRTensor, e: Tensor) -> Tensor:
    """Squared A-norm of each column."""
    return (e * (A @ e)).sum(0)


def reduction(A: CSRTensor, P0: CSRTensor, w: Tensor, e: Tensor) -> Tensor:
    """Mean factor in A-norm of each of the last cycles: w (n,), errors e (n, m) -> ().

    The first cycles remove what any method does and are not counted.
    """
    P = P0 - (A @ P0).scale_rows(w)
    R = P.T
    coarse = galerkin(R, A, P)
    smoother = 2 / 3 / A.diagonal()[:, None]
    before = energy(A, e)
    for cycle in range(2 * CYCLES):
        if cycle == CYCLES:
            before = energy(A, e)
        e = e - smoother * (A @ e)
        e = e - P @ solve(coarse, R @ (A @ e))
        e = e - smoother * (A @ e)
    return (energy(A, e) / before).pow(0.5 / CYCLES).mean()


def dense_reduction(A: CSRTensor, P0: CSRTensor, w: Tensor, e: Tensor) -> Tensor:
    """The same on dense matrices."""
    D, P = A.to_dense(), P0.to_dense()
    P = P - w[:, None] * (D @ P)
    coarse = P.T @ D @ P
    smoother = 2 / 3 / D.diagonal()[:, None]
    before = energy(A, e)
    for cycle in range(2 * CYCLES):
        if cycle == CYCLES:
            before = energy(A, e)
        e = e - smoother * (D @ e)
        e = e - P @ torch.linalg.solve(coarse, P.T @ (D @ e))
        e = e - smoother * (D @ e)
    return (energy(A, e) / before).pow(0.5 / CYCLES).mean()


def errors(n: int, seed: int, count: int = 8) -> Tensor:
    """Random ones, (n, count)."""
    return torch.randn(n, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classical(A: CSRTensor) -> float:
    """4/3 / lambda_max(diag(A)^-1 A), by power iterations."""
    x, inverse = torch.ones(A.shape[0], dtype=torch.float64), 1 / A.diagonal()
    x[::2] = -1
    for _ in range(100):
        x = inverse * (A @ (x / x.norm()))
    return (4 / 3 / x.norm()).item()


def run(size: int = 36, steps: int = 60) -> dict[str, float]:
    """Convergence factors on errors that no weight was fitted to, and the cost of a gradient."""
    A, P0 = diffusion(size), aggregates(size)
    inverse = 1 / A.diagonal()
    seen, unseen = errors(size**2, seed=1), errors(size**2, seed=2)
    with torch.no_grad():
        scan = [(reduction(A, P0, o * inverse, seen).item(), o) for o in torch.linspace(0, 1, 21)]
    best = min(scan)[1]
    scale = torch.full_like(inverse, float(best)).requires_grad_()
    optimizer = torch.optim.Adam([scale], lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    start = time.perf_counter()
    for step in range(steps):
        optimizer.zero_grad()
        # New errors in each step, so that the weights fit the method and not the errors.
        reduction(A, P0, scale * inverse, errors(size**2, seed=100 + step)).backward()
        optimizer.step()
        schedule.step()
    seconds = (time.perf_counter() - start) / steps
    start = time.perf_counter()
    dense_reduction(A, P0, scale * inverse, seen).backward()
    dense_seconds = time.perf_counter() - start
    with torch.no_grad():
        return {
            "classical": reduction(A, P0, classical(A) * inverse, unseen).item(),
            "omega": float(best),
            "constant": reduction(A, P0, best * inverse, unseen).item(),
            "learned": reduction(A, P0, scale * inverse, unseen).item(),
            "step_ms": 1e3 * seconds,
            "dense_step_ms": 1e3 * dense_seconds,
            "megabytes": (12 * A.nnz + 4 * A.shape[0]) / 1e6,
            "dense_megabytes": 8 * A.shape[0] ** 2 / 1e6,
        }


def main() -> None:
    """Print what `run` returns."""
    got = run()
    print("convergence factor in the A-norm, errors not trained on:")
    print(
        f"  {got['classical']:.3f} classical, {got['constant']:.3f} with the best constant weight"
    )
    print(f"  {got['learned']:.3f} with learned weights")
    print(f"a gradient: {got['step_ms']:.1f} ms sparse, {got['dense_step_ms']:.1f} ms dense")
    print(f"the matrix: {got['megabytes']:.2f} MB sparse, {got['dense_megabytes']:.1f} MB dense")


if __name__ == "__main__":
    main()
