"""Learn the two parameters of the heavy-ball method by differentiating through its iterations.

    x_(k+1) = x_k - alpha (A x_k - b) + beta (x_k - x_(k-1)),    A symmetric positive definite

For eigenvalues from mu to L and kappa = L / mu, the fastest parameters are (B. T. Polyak, Some
methods of speeding up the convergence of iteration methods, 1964)

    alpha = (2 / (sqrt(L) + sqrt(mu)))^2,    beta = ((sqrt(kappa) - 1) / (sqrt(kappa) + 1))^2,

with the rate sqrt(beta). Here the loss is the rate that `steps` iterations show on random errors;
nothing is known of the spectrum. The method then runs as a fixed-point map, whose gradient with
respect to b is another fixed point, found at the same rate.

    python examples/csr_04_heavy_ball.py
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from sparsetorch import CSRTensor, poisson
from sparsetorch.linalg import eigsh, fixed_point

Product = Callable[[Tensor], Tensor]


def rate(multiply: Product, alpha: Tensor, beta: Tensor, errors: Tensor, steps: int) -> Tensor:
    """How much the error shrinks per step: from the last quarter against the one before, (n, k).

    Quarters, for the error of single steps swings.
    """
    x = before = errors
    sizes = []
    for _ in range(steps):
        x, before = x - alpha * multiply(x) + beta * (x - before), x
        sizes.append(x.norm())
    logs, quarter = torch.stack(sizes).log(), steps // 4
    return ((logs[-quarter:].mean() - logs[-2 * quarter : -quarter].mean()) / quarter).exp()


def learn(multiply: Product, n: int, steps: int = 100, epochs: int = 200) -> tuple[float, float]:
    """alpha and beta by Adam, from a slow start."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.tensor([-1.5, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(epochs):
        errors = torch.randn(n, 4, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        rate(multiply, raw[0].exp(), raw[1].sigmoid(), errors, steps).backward()
        optimizer.step()
    return float(raw[0].detach().exp()), float(raw[1].detach().sigmoid())


def optimum(mu: float, L: float) -> tuple[float, float]:
    """Polyak's parameters."""
    root = (L / mu) ** 0.5
    return (2 / (L**0.5 + mu**0.5)) ** 2, ((root - 1) / (root + 1)) ** 2


def iterations(A: CSRTensor, alpha: float, beta: float) -> int:
    """Steps to a relative change of 1e-8 for A x = b; b gets its gradient at the same rate."""
    b = torch.ones(A.shape[0], dtype=A.dtype, requires_grad=True)

    def step(state: Tensor, b: Tensor) -> Tensor:
        x, before = state
        return torch.stack([x - alpha * (A @ x - b) + beta * (x - before), x])

    start = torch.zeros(2, *b.shape, dtype=A.dtype)
    found = fixed_point(
        step, start, b, solver="picard", rtol=1e-8, maxiter=100_000, full_output=True
    )
    found.checked().x[0].sum().backward()
    assert b.grad is not None
    torch.testing.assert_close(b.grad, found.x[0].detach(), rtol=1e-4, atol=0)  # A is symmetric
    return found.iterations


def cost(multiply: Product, n: int) -> float:
    """Seconds for one gradient of the rate, the least of three."""
    alpha, beta = torch.tensor([0.1, 0.5], dtype=torch.float64, requires_grad=True)
    errors = torch.ones(n, 4, dtype=torch.float64)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        rate(multiply, alpha, beta, errors, steps=20).backward()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Learn on a small problem, compare with the optimum, then sparse with dense."""
    A = poisson(30, dtype=torch.float64)
    mu, L = (float(eigsh(A, 1, which=end)[0]) for end in ("SA", "LA"))
    learned, best = learn(A.matmul, A.shape[0]), optimum(mu, L)
    for name, pair in (("learned", learned), ("optimal", best), ("gradient", (2 / (mu + L), 0.0))):
        print(f"{name:9s} alpha {pair[0]:.3f}  beta {pair[1]:.3f}  {iterations(A, *pair)} steps")
    large = poisson(50, 50, dtype=torch.float64)
    dense = large.to_dense()
    for name, M, size in (
        ("sparse", large.matmul, large.values.nbytes + large.pattern.col.nbytes),
        ("dense", dense.matmul, dense.nbytes),
    ):
        print(f"{name:7s}{1e3 * cost(M, large.shape[0]):8.1f} ms a gradient {size / 1e6:7.2f} MB")


if __name__ == "__main__":
    main()
