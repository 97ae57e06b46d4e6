"""Learn the transmission values of a Schwarz method, by gradients through its local solves.

    T = I - sum_i Rt_i^T (R_i A R_i^T + L_i)^-1 R_i A,    loss = max_j log |T^K u_j| / K

The L_i are learned; they have the entries of A between the nodes that a subdomain has at its inner
boundary and does not own: L = 0 is restricted additive Schwarz (RAS, Dirichlet conditions). The u_j
are random unit vectors, new ones in each step: the loss of A. Taghibakhshi, N. Nytko, T. U. Zaman,
S. MacLachlan, L. Olson, M. West, "Learning interface conditions in domain decomposition solvers",
NeurIPS 2022 (arXiv:2205.09833). N. Nytko et al. (arXiv:2212.05159) differentiate it through sparse
solves, as is done here, without a network: each value is a parameter.

Known values are those of M. J. Gander, "Optimized Schwarz methods", SIAM J. Numer. Anal. 44 (2006),
for (eta - Laplace) u = f, two subdomains and an overlap of width h, in the algebraic form of A.
St-Cyr, M. J. Gander, S. J. Thomas, SIAM J. Sci. Comput. 29 (2007): with T the block of A on a line
of the boundary, T + L = T / 2 + p h I + q / h tridiag(-1, 2, -1), with s = pi^2 + eta and

    OO0: p = 2^(-1/3) s^(1/3) h^(-1/3), q = 0
    OO2: p = 2^(-3/5) s^(2/5) h^(-1/5), q = 2^(-1/5) s^(-1/5) h^(3/5)

The best single weight is that of a scan on the very errors of the test.

    python examples/csr_06_optimized_schwarz.py [--size 24] [--out schwarz.png]
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from csr_02_jacobi_weights import diffusion
from torch import Tensor

from ddm.partition import decompose
from ddm.schwarz import robin
from sparsetorch import CSRTensor, Pattern, poisson
from sparsetorch.linalg import factorized, gmres, solve

Operator = Callable[[Tensor], Tensor]
ETA, STEPS, LIMIT = 1.0, 10, 300  # STEPS is K
WEIGHTS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8)


class Schwarz:
    """The local matrices of a decomposition as one block-diagonal sparse matrix.

    owner: (n,), the subdomain of each unknown, which is then extended by one layer.
    """

    def __init__(self, A: CSRTensor, owner: np.ndarray):
        self.A, self.parts = A, decompose(A.to_scipy(), owner)
        d = self.parts
        crow, col, node = (torch.from_numpy(x) for x in (d.block_crow, d.block_col, d.node))
        self.pattern = Pattern(crow, col, (len(node), len(node)))
        self.local = A.values[torch.from_numpy(d.block_source)]
        self.node, self.places = node, torch.from_numpy(d.interface)
        self.row, self.column = self.pattern.row[self.places], self.pattern.col[self.places]
        self.owned = torch.empty(d.n, dtype=torch.int64)
        self.owned[node[d.own]] = torch.from_numpy(np.flatnonzero(d.own))

    @property
    def zero(self) -> Tensor:
        """The interface values of RAS, (m,)."""
        return self.local.new_zeros(len(self.places))

    def matrix(self, L: Tensor) -> CSRTensor:
        """The local matrices with interface values L (m,)."""
        return CSRTensor(self.pattern, self.local.index_add(0, self.places, L))

    def preconditioner(self, inverse: Operator) -> Operator:
        """r -> sum_i Rt_i^T (R_i A R_i^T + L_i)^-1 R_i r from solves with the local matrices."""
        return lambda r: inverse(r[self.node])[self.owned]

    def fixed(self, L: Tensor) -> Operator:
        """The preconditioner with values that do not change: factorized once."""
        return self.preconditioner(factorized(self.matrix(L), "lu").solve)

    def centred(self, p_h: float, q_over_h: float = 0.0) -> Tensor:
        """L of the formulas above; for other matrices p h counts in couplings to the outside."""
        on_diagonal = self.row == self.column
        outside = torch.from_numpy(self.parts.outside)[self.row]
        robin_part = torch.where(on_diagonal, p_h * outside, 0)
        tangential = torch.where(on_diagonal, 2.0, -1.0) * q_over_h
        return robin_part + tangential - self.local[self.places] / 2


def contraction(A: CSRTensor, M: Operator, e: Tensor) -> Tensor:
    """max_j log |T^K e_j| / K, K = `STEPS`, T = I - M A, for unit columns e (n, m) -> ()."""
    for _ in range(STEPS):
        e = e - M(A @ e)
    return e.norm(dim=0).amax().log() / STEPS


def errors(n: int, count: int, generator: torch.Generator) -> Tensor:
    """Random unit vectors, (n, count)."""
    e = torch.randn(n, count, generator=generator, dtype=torch.float64)
    return e / e.norm(dim=0)


def learn(method: Schwarz, start: Tensor, seed: int, epochs: int = 150, count: int = 16) -> Tensor:
    """Interface values (m,) by Adam, from `start`; changes are relative to the diagonal of A."""
    A, generator = method.A, torch.Generator().manual_seed(seed)
    scale = A.diagonal()[method.node[method.row]]
    change = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=0.005)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        optimizer.zero_grad()
        matrix = method.matrix(start + scale * change)
        M = method.preconditioner(lambda r, matrix=matrix: solve(matrix, r))
        contraction(A, M, errors(A.shape[0], count, generator)).backward()
        torch.nn.utils.clip_grad_norm_([change], 0.1)  # near a singular matrix it is huge
        optimizer.step()
        schedule.step()
    return (start + scale * change).detach()


def history(method: Schwarz, L: Tensor, limit: int = LIMIT) -> Tensor:
    """|T^k e| / |e| for five e that nothing was trained on, (k + 1, 5), to 1e-8 or the limit."""
    M, e = method.fixed(L), errors(method.A.shape[0], 5, torch.Generator().manual_seed(10_000))
    sizes = [e.norm(dim=0)]
    while len(sizes) <= limit and 1e-8 < sizes[-1].max() < 1e8:
        e = e - M(method.A @ e)
        sizes.append(e.norm(dim=0))
    return torch.stack(sizes)


def iterations(method: Schwarz, L: Tensor, limit: int = LIMIT) -> float:
    """Mean number of iterations that reduce an error by 1e-8; infinite beyond the limit."""
    sizes = history(method, L, limit)
    return math.inf if sizes[-1].max() > 1e-8 else (sizes > 1e-8).sum(0).double().mean().item()


def factor(method: Schwarz, L: Tensor) -> float:
    """Spectral radius of T, from the last half of 60 iterations that are normalized each time."""
    M, e = method.fixed(L), errors(method.A.shape[0], 1, torch.Generator().manual_seed(10_001))
    logs = []
    for _ in range(60):
        e = e - M(method.A @ e)
        logs.append(e.norm().log())
        e = e / e.norm()
    return torch.stack(logs[30:]).mean().exp().item()


def gmres_iterations(method: Schwarz, L: Tensor) -> float:
    """Mean number of steps of GMRES to 1e-8 for five right-hand sides."""
    M, b = method.fixed(L), errors(method.A.shape[0], 5, torch.Generator().manual_seed(10_002)).mT
    runs = [gmres(method.A, one, preconditioner=M, rtol=1e-8).checked() for one in b]
    return float(np.mean([run.iterations for run in runs]))


def best_single_weight(method: Schwarz) -> Tensor:
    """Of Robin conditions with one weight, in one-sided and centred form, the fastest; or RAS."""
    candidates = [method.zero]
    for weight in WEIGHTS:
        candidates += [robin(method.parts, weight), method.centred(weight)]
    best, fewest = method.zero, math.inf
    for L in candidates:
        count = iterations(method, L, limit=int(min(fewest, LIMIT)) + 1)
        if count < fewest:
            best, fewest = L, count
    return best


def gander(size: int) -> dict[str, tuple[float, float]]:
    """(p, q) of OO0 and OO2 for (ETA - Laplace) on the unit square, `size` inner points a side."""
    h, s = 1 / (size + 1), math.pi**2 + ETA
    return {
        "OO0": (2 ** (-1 / 3) * s ** (1 / 3) * h ** (-1 / 3), 0.0),
        "OO2": (2**-0.6 * s**0.4 * h**-0.2, 2**-0.2 * s**-0.2 * h**0.6),
    }


def published(method: Schwarz, size: int) -> dict[str, Tensor]:
    """The interface values of OO0 and OO2 for the matrix of `laplace`."""
    h = 1 / (size + 1)
    return {
        f"{name}, Gander 2006": method.centred(p * h, q / h)
        for name, (p, q) in gander(size).items()
    }


def laplace(size: int) -> CSRTensor:
    """h^2 (ETA - Laplace) on the unit square."""
    A = poisson(size, size, dtype=torch.float64)
    return A.add_diagonal(torch.full((size**2,), ETA / (size + 1) ** 2, dtype=torch.float64))


def strips(size: int) -> np.ndarray:
    """Two subdomains: the left and the right half."""
    return np.repeat(np.arange(size) >= size // 2, size).astype(np.int64)


def squares(size: int) -> np.ndarray:
    """Four subdomains, which meet in the centre."""
    half = np.arange(size) >= size // 2
    return (2 * half[:, None] + half).astype(np.int64).ravel()


def compare(method: Schwarz, seeds: int, known: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """The interface values of each method; the learned ones for each seed."""
    best = best_single_weight(method)
    classical = {"RAS": method.zero} | known | {"best single weight": best}
    learned = [learn(method, best, seed) for seed in range(seeds)]
    return {name: [L] for name, L in classical.items()} | {"learned": learned}


def gradient_cost(size: int) -> dict[str, float]:
    """Milliseconds (the least of two) of a gradient for 16 vectors, and megabytes of matrices."""
    method = Schwarz(laplace(size), strips(size))
    A, L = method.A, robin(method.parts, 0.2).requires_grad_()
    e, D = errors(A.shape[0], 16, torch.Generator().manual_seed(0)), A.to_dense()

    def sparse() -> Tensor:
        matrix = method.matrix(L)
        return contraction(A, method.preconditioner(lambda r: solve(matrix, r)), e)

    def dense() -> Tensor:
        inverse = torch.linalg.inv(method.matrix(L).to_dense())
        M = method.preconditioner(lambda r: inverse @ r)
        return contraction(D, M, e)  # pyright: ignore[reportArgumentType]  asks for `@` alone

    def milliseconds(loss: Callable[[], Tensor]) -> float:
        times = []
        for _ in range(2):
            begin = time.perf_counter()
            loss().backward()
            times.append(time.perf_counter() - begin)
        return 1e3 * min(times)

    B = method.matrix(L)
    return {
        "step_ms": milliseconds(sparse),
        "dense_step_ms": milliseconds(dense),
        "megabytes": sum(12 * C.nnz + 4 * C.shape[0] for C in (A, B)) / 1e6,
        "dense_megabytes": sum(8 * C.shape[0] ** 2 for C in (A, B)) / 1e6,
    }


def draw(cases: dict[str, tuple[Schwarz, dict[str, list[Tensor]]]], path: Path) -> None:
    """Errors against iterations for each case; for the last one, what was learned too."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = {"RAS": "C0", "best single weight": "C1", "learned": "black"}
    colours |= {"OO0, Gander 2006": "C2", "OO2, Gander 2006": "C3"}
    width = len(cases) + 1
    figure, panels = pyplot.subplots(1, width, figsize=(4 * width, 3.6))
    for ax, (title, (method, found)) in zip(panels, cases.items()):
        for name, (L, *_) in found.items():
            thickness = 2.2 if name == "learned" else 1.5
            worst = history(method, L).amax(1)
            ax.semilogy(worst, label=name, color=colours.get(name), linewidth=thickness)
        ax.set(title=title, xlabel="iterations", ylim=(3e-9, 10), xlim=(0, 60))
    panels[0].set_ylabel("largest |T^k e| of five e, not trained on")
    panels[0].legend(fontsize=8)
    method, found = list(cases.values())[-1]
    change = found["learned"][0] - found["best single weight"][0]
    change = change / method.A.diagonal()[method.node[method.row]]
    for name, offset in (("on the diagonal", 0), ("to the next node", 1)):
        chosen = (method.column - method.row == offset) & (method.row < method.parts.sizes[0])
        panels[-1].plot(change[chosen], label=name)
    panels[-1].set(title="last case: learned change of L", xlabel="along the left interface")
    panels[-1].set_ylabel("relative to the diagonal of A")
    panels[-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Compare the methods in three cases, then sparse with dense."""
    parser = argparse.ArgumentParser(description="Learn the transmission values of Schwarz.")
    parser.add_argument("--size", type=int, default=24, help="points along a side of the grids")
    parser.add_argument("--seeds", type=int, default=3, help="how often to learn")
    parser.add_argument("--out", type=Path, help="where to save the picture")
    chosen = parser.parse_args()
    torch.set_num_threads(1)  # the operations are small: threads would wait for each other
    size = chosen.size
    two = Schwarz(laplace(size), strips(size))
    problems = {
        "1 - Laplace, 2 strips": (two, published(two, size)),
        "1 - Laplace, 4 squares": (Schwarz(laplace(size), squares(size)), {}),
        "jumps by 100, 2 strips": (Schwarz(diffusion(size), strips(size)), {}),
    }
    cases = {}
    for title, (method, known) in problems.items():
        begin = time.perf_counter()
        found = compare(method, chosen.seeds, known)
        print(f"{title}: {size**2} unknowns, {len(method.places)} values", end=" ")
        print(f"({time.perf_counter() - begin:.0f} s)\n{'':20s}iterations  factor  GMRES")
        for name, values in found.items():
            for L in values:
                print(f"  {name:20s}{iterations(method, L):8.1f}{factor(method, L):8.3f}", end="")
                print(f"{gmres_iterations(method, L):7.1f}")
        cases[title] = (method, found)
    got = gradient_cost(2 * size)
    print(
        f"a gradient: {got['step_ms']:.0f} ms sparse, {got['dense_step_ms']:.0f} ms dense,", end=" "
    )
    print(f"{4 * size**2} unknowns; matrices:", end=" ")
    print(f"{got['megabytes']:.2f} MB sparse, {got['dense_megabytes']:.0f} MB dense")
    if chosen.out:
        draw(cases, chosen.out)


if __name__ == "__main__":
    main()
