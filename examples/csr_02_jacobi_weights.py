"""Learn one Jacobi weight for each unknown, by gradients through the sweeps.

    x <- x + diag(w) (b - A x),    loss = mean over b of |b - A x_k|^2 / |b|^2

N. Nytko, A. Taghibakhshi, T. U. Zaman, S. MacLachlan, L. N. Olson, M. West, "Optimized sparse
matrix operations for reverse mode automatic differentiation" (arXiv:2212.05159), learns such
weights. The classical choice is w = omega / diag(A) with one omega, here the best of a scan. The
problem is -div(c grad u) = b, where c jumps by a factor of 100 at random places.

    python examples/csr_02_jacobi_weights.py
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from sparsetorch import CSRTensor, diags, eye, kron

SWEEPS = 10


def diffusion(size: int, seed: int = 0, jump: float = 100.0) -> CSRTensor:
    """Five-point stencil on a size x size grid; each edge takes the mean of its cells' c."""
    generator = torch.Generator().manual_seed(seed)
    c = jump ** torch.randint(2, (size, size), generator=generator).double()
    one = torch.ones(size - 1, dtype=torch.float64)
    step = eye(size, dtype=torch.float64) - diags([one], [-1])
    here = eye(size, dtype=torch.float64)
    total = None
    for difference, cells in ((kron(step, here), c), (kron(here, step), c.T.contiguous())):
        along = (cells + torch.cat([cells[:1], cells[:-1]])) / 2
        weights = (along if cells is c else along.T).flatten()
        part = difference.T @ difference.scale_rows(weights)
        total = part if total is None else total + part
    assert total is not None
    return total


def residuals(A: CSRTensor, w: Tensor, b: Tensor) -> Tensor:
    """|b - A x_k|^2 / |b|^2 after `SWEEPS` sweeps from zero: w (n,), b (n, m) -> (m,)."""
    r = b
    for _ in range(SWEEPS):
        r = r - A @ (w[:, None] * r)
    return (r**2).sum(0) / (b**2).sum(0)


def right_hand_sides(n: int, seed: int, count: int = 32) -> Tensor:
    """Random ones, (n, count)."""
    return torch.randn(n, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def best_constant(loss: Callable[[Tensor], Tensor], inverse: Tensor) -> tuple[float, Tensor]:
    """The omega of a scan, and its weights."""
    with torch.no_grad():
        scan = [(loss(omega * inverse).item(), omega) for omega in torch.linspace(0.5, 1.2, 71)]
    omega = min(scan)[1]
    return float(omega), omega * inverse


def run(size: int = 40, steps: int = 200) -> dict[str, float]:
    """Reduction of the residual by constant and by learned weights, on unseen right-hand sides."""
    A = diffusion(size)
    inverse = 1 / A.diagonal()
    b, unseen = right_hand_sides(size**2, seed=1), right_hand_sides(size**2, seed=2)
    omega, constant = best_constant(lambda w: residuals(A, w, b).mean(), inverse)
    scale = torch.full_like(inverse, omega).requires_grad_()
    optimizer = torch.optim.Adam([scale], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    start = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad()
        residuals(A, scale * inverse, b).mean().log().backward()
        optimizer.step()
        schedule.step()
    learned = (scale * inverse).detach()
    return {
        "omega": omega,
        "constant": residuals(A, constant, unseen).mean().sqrt().item(),
        "learned": residuals(A, learned, unseen).mean().sqrt().item(),
        "step_ms": 1e3 * (time.perf_counter() - start) / steps,
        "dense_step_ms": 1e3 * dense_step(A, constant, b),
        "megabytes": (12 * A.nnz + 4 * A.shape[0]) / 1e6,
        "dense_megabytes": 8 * A.shape[0] ** 2 / 1e6,
    }


def dense_step(A: CSRTensor, w: Tensor, b: Tensor) -> float:
    """Seconds of one gradient with a dense matrix."""
    D: object = A.to_dense()  # `residuals` asks for `@` alone
    w = w.clone().requires_grad_()
    start = time.perf_counter()
    residuals(D, w, b).mean().backward()  # pyright: ignore[reportArgumentType]
    return time.perf_counter() - start


def main() -> None:
    """Print what `run` returns."""
    got = run()
    print(f"residual after {SWEEPS} sweeps, right-hand sides not trained on:")
    print(f"  {got['constant']:.4f} with the best constant weight, omega = {got['omega']:.2f}")
    print(f"  {got['learned']:.4f} with learned weights")
    print(f"a gradient: {got['step_ms']:.1f} ms sparse, {got['dense_step_ms']:.1f} ms dense")
    print(f"the matrix: {got['megabytes']:.2f} MB sparse, {got['dense_megabytes']:.1f} MB dense")


if __name__ == "__main__":
    main()
