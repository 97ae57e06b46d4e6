"""Memory that a product of sparse matrices and its gradient take, beside PyTorch.

    python benchmarks/bench_memory.py [--grid 1000] [--nodes 200000] [--small 30000] [--out FILE]

Each contender computes A A and the gradient of its values once, in a process of its own that has
the operands already; reported is how far the process's peak of resident memory rises above what it
had before, structure that is found on the way included. PyTorch forms the whole product G A^T
before it takes the entries of A from it, which on a power-law graph is more than machines have:
there both are compared on a smaller graph.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from matrices import poisson, power_law
from side_by_side import arguments, header, report, versions

from sparsetorch import CSRTensor

GOAL = 1 / 20


def status(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(field))
    return int(line.split()[1]) * 1024


def ours(A: CSRTensor) -> None:
    values = A.values.requires_grad_()
    product = A.with_values(values) @ A.with_values(values)
    torch.autograd.grad(product.values, values, torch.ones_like(product.values))


def torchs(leaf: torch.Tensor) -> None:
    product = leaf @ leaf
    torch.autograd.grad(product, leaf, product.detach())


def measure(contender: str, matrix: str, size: int) -> int:
    """Bytes of one forward and backward pass, here in this process."""
    exact = {"Poisson": poisson, "power law": power_law}[matrix](size)
    A = CSRTensor.from_scipy(exact, dtype=torch.float32)
    small = CSRTensor.from_scipy(poisson(4), dtype=torch.float32)
    of = {"sparsetorch": lambda A: (ours, A), "torch": lambda A: (torchs, leaf(A))}[contender]
    warm, operand = of(small)
    warm(operand)  # libraries are loaded, threads started
    call, operand = of(A)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    call(operand)
    return status("VmHWM") - before


def leaf(A: CSRTensor) -> torch.Tensor:
    crow, col = A.pattern.crow, A.pattern.col
    return torch.sparse_csr_tensor(crow, col, A.values, A.shape).requires_grad_()


def table(options: argparse.Namespace) -> Iterator[str]:
    yield f"A A and its gradient, float32/int32; {versions()}; {torch.get_num_threads()} threads."
    yield ""
    yield from header("matrix", "sparsetorch, MB", "torch, MB", f"ratio (<= {GOAL:.2f})")
    for matrix, size, peer in (
        ("Poisson", options.grid, True),
        ("power law", options.small, True),
        ("power law", options.nodes, False),
    ):
        contenders = ("sparsetorch", "torch") if peer else ("sparsetorch",)
        taken = {}
        for contender in contenders:
            command = [sys.executable, __file__, "--measure", contender, matrix, str(size)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            taken[contender] = int(out) / 1e6
        mega = [f"{taken[name]:.0f}" if name in taken else "-" for name in ("sparsetorch", "torch")]
        of_torch = taken.get("torch", 0.0)  # none, if a tiny problem fits what it had already
        ratio = f"{taken['sparsetorch'] / of_torch:.2f}" if of_torch else "-"
        size_text = f"{size} x {size}" if matrix == "Poisson" else f"{size} nodes"
        yield f"| {matrix}, {size_text} | {' | '.join(mega)} | {ratio} |"


def main() -> None:
    parser = arguments("Memory of a sparse product and its gradient.", 1, "not used", False)
    parser.add_argument("--grid", type=int, default=1000, help="points along a side")
    parser.add_argument("--nodes", type=int, default=200_000, help="nodes, sparsetorch alone")
    parser.add_argument("--small", type=int, default=30_000, help="nodes, beside PyTorch")
    parser.add_argument("--measure", nargs=3, metavar=("WHO", "MATRIX", "SIZE"))
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.measure:
        who, matrix, size = options.measure
        print(measure(who, matrix, int(size)))
    else:
        report(table(options), options.out)


if __name__ == "__main__":
    main()
