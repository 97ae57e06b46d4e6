"""Learn a sparse preconditioner for conjugate gradients, by gradients through its iterations.

    M = (L L^T)^-1,    loss = mean over x of  log(|x - x_k|_A / |x|_A) / k

x_k is the k-th iterate of CG with M for the right-hand side A x; L has the pattern of A's lower
triangle and starts as IC(0)'s, the classical choice. N. Nytko, A. Taghibakhshi, T. U. Zaman, S.
MacLachlan, L. N. Olson, M. West, "Optimized sparse matrix operations for reverse mode automatic
differentiation" (arXiv:2212.05159), learns sparse preconditioners for CG; the loss here is our
choice. The x of training are solutions for 32 random right-hand sides, the tests have others.

The rivals: FSAI, M = G^T G, which is applied by products alone and has the smallest Kaporin number
that a pattern allows (I. E. Kaporin, Numer. Linear Algebra Appl. 1, 1994); and modified IC(0),
which puts omega times what IC(0) drops on the diagonal (I. Gustafsson, BIT 18, 1978; O. Axelsson,
G. Lindskog, Numer. Math. 48, 1986), with the best omega of a scan on the very right-hand sides of
the test.

    python examples/csr_05_sparse_preconditioner.py [--matrix FILE.mtx] [--out preconditioner.png]
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from csr_02_jacobi_weights import diffusion
from torch import Tensor

import sparsetorch
from sparsetorch import CSRTensor, eye, kron, poisson
from sparsetorch.linalg import cg, solve
from sparsetorch.precond import IC0, Jacobi, fsai, ic0, ssor

Operator = Callable[[Tensor], Tensor]
OMEGAS = (0.9, 0.95, 0.98, 0.99, 1.0)
STEPS = 5  # k


def anisotropic(size: int, epsilon: float = 0.05) -> CSRTensor:
    """-epsilon u_xx - u_yy on a size x size grid."""
    line, here = poisson(size, dtype=torch.float64), eye(size, dtype=torch.float64)
    return kron(line, here) * epsilon + kron(here, line)


def airfoil() -> CSRTensor:
    """P1 elements for -div grad u on PyAMG's airfoil mesh, every triangle split into four."""
    from pyamg.gallery import load_example

    from ddm.mesh import build_mesh
    from ddm.problems import poisson as assemble

    example = load_example("airfoil")
    mesh = build_mesh(np.asarray(example["vertices"]), np.asarray(example["elements"], np.int64))
    return CSRTensor.from_scipy(assemble(mesh.refined(1)).A)


def vectors(n: int, count: int, seed: int) -> Tensor:
    """Random ones, (count, n)."""
    return torch.randn(count, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reduction(multiply: Operator, M: Operator, x: Tensor) -> Tensor:
    """log(|x - x_k|_A / |x|_A) / k after k = `STEPS` of CG from zero, mean over x (m, n) -> ()."""
    e, r = x, multiply(x)
    before = (e * r).sum(-1)
    p = z = M(r)
    rz = (r * z).sum(-1, keepdim=True)
    for _ in range(STEPS):
        q = multiply(p)
        step = rz / (p * q).sum(-1, keepdim=True)
        e, r = e - step * p, r - step * q
        z = M(r)
        rz, rz_before = (r * z).sum(-1, keepdim=True), rz
        p = z + rz / rz_before * p
    return ((e * r).sum(-1) / before).log().mean() / (2 * STEPS)


def learn(A: CSRTensor, start: CSRTensor, seed: int, epochs: int = 150, systems: int = 32) -> IC0:
    """The preconditioner whose L (n, n), `start` at first, is learned.

    Any L without a zero on its diagonal gives a positive definite preconditioner.
    """
    scale = start.diagonal()[start.pattern.row.long()]
    change = torch.zeros_like(start.values, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    solutions = solve(A, vectors(A.shape[0], systems, seed).mT).mT
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        optimizer.zero_grad()
        M = IC0(start.with_values(start.values + scale * change))
        some = torch.randperm(systems, generator=generator)[: systems // 4]
        reduction(A.matvec, M, solutions[some]).backward()
        optimizer.step()
        schedule.step()
    return IC0(start.with_values((start.values + scale * change).detach()))


def modified(A: CSRTensor, omega: float) -> IC0:
    """Modified IC(0), row by row; with omega = 1, L L^T has the row sums of A.

    Raises:
        ValueError: a pivot is not positive.
    """
    S = A.to_scipy()
    ranges = [range(*S.indptr[i : i + 2]) for i in range(S.shape[0])]
    rows = [{int(S.indices[k]): float(S.data[k]) for k in places} for places in ranges]
    triplets = []
    for k, row in enumerate(rows):
        if row[k] <= 0:
            raise ValueError(f"A: row {k} has a pivot that is not positive")
        behind = [i for i in row if i >= k]
        triplets += [(i, k, row[i] / row[k] ** 0.5) for i in behind]
        for i in behind[1:]:
            for j in behind[1:]:
                place, share = (j, 1.0) if j in rows[i] else (i, omega)
                rows[i][place] -= share * row[i] * row[j] / row[k]
    i, j, v = zip(*triplets)
    values = torch.tensor(v, dtype=A.dtype)
    return IC0(CSRTensor.from_coo(torch.tensor(i), torch.tensor(j), values, A.pattern.shape))


def iterations(A: CSRTensor, M: Operator, count: int = 5) -> float:
    """Mean number of steps of CG to 1e-8, for right-hand sides that nothing was trained on."""
    unseen = vectors(A.shape[0], count, seed=10_000)
    runs = [cg(A, b, preconditioner=M, rtol=1e-8).checked() for b in unseen]
    return float(np.mean([run.iterations for run in runs]))


def best_modified(A: CSRTensor) -> Operator | None:
    """Modified IC(0) with the omega that takes the fewest iterations; None if all break down."""
    found = []
    for omega in OMEGAS:
        try:
            M = modified(A, omega)
        except ValueError:
            continue
        found.append((iterations(A, M), omega, M))
    return min(found, key=lambda one: one[:2])[2] if found else None


def classical(A: CSRTensor) -> dict[str, Operator]:
    """The rivals, by name."""
    methods: dict[str, Operator] = {
        "Jacobi": Jacobi(A),
        "FSAI on tril(A)": fsai(A),
        "SSOR": ssor(A),
        "FSAI on tril(A^2)": fsai(A, (A @ A).pattern),
        "IC(0)": ic0(A),
    }
    tuned = best_modified(A)
    return methods if tuned is None else methods | {"best modified IC(0)": tuned}


def seconds(function: Callable[[], object], repeat: int = 3) -> float:
    """The least time of a few calls."""
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


def gradient_cost(A: CSRTensor) -> dict[str, float]:
    """Milliseconds of a gradient for 8 vectors, and megabytes of A and L."""
    factor, x = ic0(A).L, vectors(A.shape[0], 8, seed=0)
    values = factor.values.clone().requires_grad_()
    D, dense = A.to_dense(), factor.to_dense().requires_grad_()

    def by_dense(r: Tensor) -> Tensor:
        y = torch.linalg.solve_triangular(dense, r.mT, upper=False)
        return torch.linalg.solve_triangular(dense.mT, y, upper=True).mT

    def sparse_gradient() -> None:
        reduction(A.matvec, IC0(factor.with_values(values)), x).backward()

    return {
        "step_ms": 1e3 * seconds(sparse_gradient),
        "dense_step_ms": 1e3 * seconds(lambda: reduction(lambda x: x @ D, by_dense, x).backward()),
        "megabytes": sum(12 * B.nnz + 4 * B.shape[0] for B in (A, factor)) / 1e6,
        "dense_megabytes": 2 * D.nbytes / 1e6,
    }


def report(problem: str, A: CSRTensor, seeds: int) -> dict[str, list[float]]:
    """Print the iterations of each method; return the residuals of one solve by each."""
    print(f"{problem}: {A.shape[0]} unknowns, {A.nnz} entries")
    methods = classical(A)
    for name, M in methods.items():
        print(f"  {name:20s}{iterations(A, M):7.1f} iterations")
    begin = time.perf_counter()
    learned = [learn(A, ic0(A).L, seed) for seed in range(seeds)]
    learning = (time.perf_counter() - begin) / seeds
    counts = [iterations(A, M) for M in learned]
    print(f"  learned L           {np.mean(counts):7.1f} ({min(counts):.1f} to {max(counts):.1f})")
    b = vectors(A.shape[0], 1, seed=20_000)[0]

    def solved(M: Operator) -> list[float]:
        return cg(A, b, preconditioner=M, rtol=1e-8).residuals

    by_ic0, by_learned = (1e3 * seconds(partial(solved, M)) for M in (ic0(A), learned[0]))
    print(
        f"  learning took {learning:.1f} s; a solve {by_learned:.1f} ms, by IC(0) {by_ic0:.1f} ms"
    )
    methods["learned L"] = learned[0]
    return {name: solved(M) for name, M in methods.items()}


def draw(histories: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Residual norms of each method against iterations, a panel for each problem."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    width = 4 * len(histories)
    figure, panels = pyplot.subplots(1, len(histories), figsize=(width, 3.6), squeeze=False)
    for ax, (problem, methods) in zip(panels[0], histories.items()):
        for name, residuals in methods.items():
            style = {"color": "black", "linewidth": 2.2} if "learned" in name else {}
            ax.semilogy(np.array(residuals) / residuals[0], label=name, **style)
        ax.set(title=problem, xlabel="iterations of CG", ylim=(3e-9, 30))
    panels[0][0].set_ylabel("|b - A x| / |b|, b not trained on")
    panels[0][-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Compare the methods on four problems or on a matrix of yours."""
    parser = argparse.ArgumentParser(description="Learn a sparse preconditioner for CG.")
    parser.add_argument("--matrix", type=Path, help="a symmetric positive definite .mtx or .npz")
    parser.add_argument("--size", type=int, default=40, help="points along a side of the grids")
    parser.add_argument("--seeds", type=int, default=3, help="how often to learn")
    parser.add_argument("--out", type=Path, help="where to save the picture")
    chosen = parser.parse_args()
    torch.set_num_threads(1)  # the operations are small: threads would wait for each other
    if chosen.matrix:
        problems = {chosen.matrix.name: sparsetorch.load(chosen.matrix).to(torch.float64)}
    else:
        problems = {
            "Poisson": poisson(chosen.size, chosen.size, dtype=torch.float64),
            "jumps by 100": diffusion(chosen.size),
            "anisotropic": anisotropic(chosen.size),
            "airfoil": airfoil(),
        }
    histories = {name: report(name, A, chosen.seeds) for name, A in problems.items()}
    got = gradient_cost(next(iter(problems.values())))
    print(f"a gradient: {got['step_ms']:.1f} ms sparse, {got['dense_step_ms']:.1f} ms dense")
    print(f"A and L: {got['megabytes']:.2f} MB sparse, {got['dense_megabytes']:.1f} MB dense")
    if chosen.out:
        draw(histories, chosen.out)


if __name__ == "__main__":
    main()
