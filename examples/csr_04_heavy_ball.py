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

from sparsetorch import poisson
from sparsetorch.linalg import eigsh, fixed_point

Product = Callable[[Tensor], Tensor]


def rate(multiply: Product, alpha: Tensor, beta: Tensor, errors: Tensor, steps: int) -> Tensor:
    """How much the error shrinks per step in the second half of the iteration, errors (n, k)."""
    x = before = errors
    sizes = []
    for _ in range(steps):
        x, before = x - alpha * multiply(x) + beta * (x - before), x
        sizes.append(x.norm())
    return (sizes[-1] / sizes[steps // 2]) ** (1 / (steps - 1 - steps // 2))


def learn(
    multiply: Product, n: int, steps: int = 200, epochs: int = 150
) -> tuple[Tensor, Tensor, list[float]]:
    """alpha, beta and the history of the rate, from one gradient-descent step's worth of both."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.tensor([-1.5, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    history = []
    for _ in range(epochs):
        errors = torch.randn(n, 4, generator=generator, dtype=torch.float64)
        alpha, beta = raw[0].exp(), raw[1].sigmoid()
        loss = rate(multiply, alpha, beta, errors, steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    return raw[0].exp().detach(), raw[1].sigmoid().detach(), history


def optimum(mu: float, L: float) -> tuple[float, float]:
    """Polyak's parameters."""
    root = (L / mu) ** 0.5
    return (2 / (L**0.5 + mu**0.5)) ** 2, ((root - 1) / (root + 1)) ** 2
