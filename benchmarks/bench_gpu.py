"""Every product of sparsetorch on a GPU beside torch.sparse (cuSPARSE) and CuPy.

    python benchmarks/bench_gpu.py [--check-only] [--grid 1000] [--nodes 200000] [--only TEXT]

First every result, gradients included, is compared with a reference in float64; `--check-only`
stops there. A contender whose result is wrong gets no time, and one that does not take the dtype,
the layout or the size has an empty cell; a wrong result of sparsetorch makes the exit code 1. The
contenders then take turns in random order. Before each call a buffer larger than the GPU's cache is
overwritten. Reported: median and quartiles of the time between two CUDA events, the ratio to the
best peer (below 1: sparsetorch is faster), and the bytes that have to move, over that time, as a
share of the rate at which this GPU copies.

Matrices: 2-D Poisson, and the Laplacian (plus identity) of a power-law graph; int32 indices.
Without CUDA the exit code is 2. `--device cpu` runs the same code with SciPy in CuPy's place and a
wall clock, to test the script; those times are of no interest.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib
import itertools
import platform
import shlex
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from array_peer import ArrayPeer, array_peer
from gpu_cases import CASES, Case
from gpu_problem import Contest, Problem
from matrices import poisson, power_law
from scipy import sparse
from side_by_side import (
    Measure,
    Seconds,
    arguments,
    cpu_name,
    header,
    in_turns,
    quartiles,
    report,
    stopwatch,
    to_best_peer,
)
from torch import Tensor

from sparsetorch import CSRTensor
from sparsetorch_kernels import backend_info

TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 1e-5, torch.float64: 1e-12}


def values_of(result: object, peer: ArrayPeer | None) -> Tensor:
    """A result as a dense tensor; the values of a sparse one in the order of its sorted columns."""
    if isinstance(result, CSRTensor):
        return result.values
    if not isinstance(result, Tensor):
        assert peer is not None
        return peer.tensor(result)
    if result.layout == torch.sparse_csr:
        crow, col, values = result.crow_indices(), result.col_indices(), result.values()
        rows = torch.arange(result.shape[0], device=col.device)
        row = torch.repeat_interleave(rows, crow.diff().long())
        return values[torch.argsort(row * result.shape[1] + col)]
    return result.coalesce().values() if result.layout == torch.sparse_coo else result


def error_of(results: Sequence[object], contest: Contest, peer: ArrayPeer | None) -> float:
    """The largest relative error of the results.

    Raises:
        ValueError: one of them has another size.
    """
    errors = []
    for got, want in zip(results, contest.want, strict=True):
        dense = values_of(got, peer).detach()
        if dense.numel() != want.numel():
            raise ValueError(f"WRONG: {dense.numel()} numbers in place of {want.numel()}")
        difference = dense.reshape(want.shape).double() - want
        errors.append(float(difference.norm() / want.norm()))
    return max(errors, key=lambda e: (e != e, e))  # a NaN counts as the largest


def check(case: Case, contest: Contest, problem: Problem) -> tuple[dict[str, float], list[str]]:
    """The error of each contender that ran, and what is to be said of the others."""
    errors: dict[str, float] = {}
    remarks: list[str] = []
    for name, call in contest.contenders.items():
        try:
            errors[name] = error_of(call(), contest, problem.peer)
        except Exception as refusal:  # whatever a peer raises; ours counts as wrong
            remarks.append(f"{name}: {_first_line(refusal)}")
            if problem.device.type == "cuda":
                torch.cuda.empty_cache()  # it may have been the memory
            continue
        if not errors[name] <= case.slack * TOLERANCE[problem.dtype]:
            remarks.append(f"{name}: WRONG, relative error {errors[name]:.1e}")
    return errors, remarks


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"


def event_timer(device: torch.device) -> Measure:
    """Seconds between two CUDA events, nothing of the operands in the cache before the first."""
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    flush = torch.empty(8 * cache, dtype=torch.int8, device=device)

    def measure(call: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    return measure


def copy_rate(device: torch.device, measure: Measure, size: int) -> float:
    """Bytes read and written per second by a copy within the device's memory."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = in_turns({"copy": lambda: target.copy_(source)}, 11, measure)["copy"]
    return 2 * size / statistics.median(seconds)


def turns(
    contenders: Mapping[str, Callable[[], object]], repeats: int, budget: float, measure: Measure
) -> Seconds:
    """Times of the contenders; fewer than `repeats` where a turn takes long."""
    once = sum(measure(call) for call in contenders.values())
    repeats = max(min(repeats, 5), min(repeats, int(budget / once)))
    return in_turns(contenders, repeats, measure, warmup=1)


def row(title: str, seconds: Seconds, columns: Sequence[str], share: float) -> str:
    cells = [quartiles(seconds[name], 3) if name in seconds else "-" for name in columns]
    ratio = f"{to_best_peer(seconds):.2f}" if len(seconds) > 1 else "-"
    return f"| {title} | {' | '.join(cells)} | {ratio} | {share:.0%} |"


def setting(options: argparse.Namespace, device: torch.device, peer: ArrayPeer | None) -> str:
    """What a reader has to know: device, versions, date, command."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    cuda = f", CUDA {torch.version.cuda}" if torch.version.cuda else ""
    other = f"{peer.name} {peer.version}" if peer else "no CuPy"
    kernels = backend_info()[device.type].split()[0]
    command = f"python benchmarks/bench_gpu.py {shlex.join(sys.argv[1:])}".strip()
    return (
        f"{gpu}; {datetime.date.today().isoformat()}; Python {platform.python_version()}, torch "
        f"{torch.__version__}{cuda}, triton {_triton()}, {other}; sparsetorch: {kernels}. "
        f"Poisson {options.grid} x {options.grid}, power-law graph of {options.nodes} nodes. "
        f"Command: `{command}`."
    )


def _triton() -> str:
    try:
        return importlib.import_module("triton").__version__
    except ImportError:
        return "not installed"


def contests(
    options: argparse.Namespace, device: torch.device, peer: ArrayPeer | None
) -> Iterator[tuple[str, Case, Problem, Contest]]:
    matrices: dict[str, sparse.csr_array] = {
        "Poisson": poisson(options.grid),
        "power law": power_law(options.nodes),
    }
    problem = functools.cache(
        lambda name, dtype: Problem(matrices[name], dtype, device, peer)
    )  # making one takes longer than most products
    for case, name in itertools.product(CASES, matrices):
        for dtype in case.dtypes:
            title = f"{case.title} | {name} | {str(dtype)[6:]}"
            if options.only in title:
                problem(name, dtype).generator.manual_seed(0)
                yield title, case, problem(name, dtype), case.make(problem(name, dtype))


class Comparison:
    """The table, line by line, and what was found on the way."""

    def __init__(self, options: argparse.Namespace, device: torch.device):
        self.options, self.device, self.peer = options, device, array_peer(device)
        self.columns = ["sparsetorch", "torch", self.peer.name if self.peer else "CuPy"]
        self.wrong: list[str] = []  # results of sparsetorch
        self.remarks: defaultdict[str, list[str]] = defaultdict(list)  # remark to titles
        self.rates: list[str] = []

    def lines(self) -> Iterator[str]:
        yield setting(self.options, self.device, self.peer)
        yield from self.checks() if self.options.check_only else self.times()
        if self.remarks:
            yield ""
            yield from (f"- {remark}: {'; '.join(of)}" for remark, of in self.remarks.items())

    def right(self, title: str, case: Case, problem: Problem, contest: Contest) -> dict[str, float]:
        """The errors of the contenders that are right."""
        contest = case.checked(problem) if case.checked else contest
        errors, remarks = check(case, contest, problem)
        for remark in remarks:
            self.remarks[remark].append(title.replace(" | ", ", "))
        limit = case.slack * TOLERANCE[problem.dtype]
        right = {name: error for name, error in errors.items() if error <= limit}
        if "sparsetorch" not in right:
            self.wrong.append(title)
        return right

    def checks(self) -> Iterator[str]:
        yield "Relative errors in the Frobenius norm."
        yield ""
        yield from header("product", "matrix", "dtype", *self.columns)
        for title, case, problem, contest in contests(self.options, self.device, self.peer):
            right = self.right(title, case, problem, contest)
            cells = [f"{right[name]:.0e}" if name in right else "-" for name in self.columns]
            yield f"| {title} | {' | '.join(cells)} |"

    def times(self) -> Iterator[str]:
        cuda = self.device.type == "cuda"
        measure = event_timer(self.device) if cuda else stopwatch(time.perf_counter)
        rate = copy_rate(self.device, measure, 1 << (30 if cuda else 20))
        yield (
            f"Median (quartiles) in ms by {'CUDA events' if cuda else 'a wall clock'}; a copy "
            f"within the device's memory reads and writes {rate / 1e9:.0f} GB/s."
        )
        yield ""
        columns = (
            "product",
            "matrix",
            "dtype",
            *self.columns,
            "to best peer",
            "share of copy rate",
        )
        yield from header(*columns)
        for title, case, problem, contest in contests(self.options, self.device, self.peer):
            right = self.right(title, case, problem, contest)
            if "sparsetorch" not in right:
                yield f"| {title} | WRONG |{' - |' * 4}"
                continue
            contenders = {name: contest.contenders[name] for name in right}
            seconds = turns(contenders, self.options.repeats, self.options.budget, measure)
            ours = statistics.median(seconds["sparsetorch"])
            yield row(title, seconds, self.columns, contest.moved / ours / rate)
            self.note_rates(title, case, seconds)
        yield from self.rates

    def note_rates(self, title: str, case: Case, seconds: Seconds) -> None:
        if not case.steps:
            return
        rates = (f"{name} {case.steps / statistics.median(t):.0f}" for name, t in seconds.items())
        self.rates += (
            [] if self.rates else ["", "Iterations per second of conjugate gradients:", ""]
        )
        _, matrix, dtype = title.split(" | ")
        self.rates.append(f"- {matrix}, {dtype}: {', '.join(rates)}")


def main() -> int:
    parser = arguments("Products on a GPU beside torch.sparse's and CuPy's.", 21, "turns", False)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to test the script")
    parser.add_argument("--grid", type=int, default=1000, help="points along a side")
    parser.add_argument("--nodes", type=int, default=200_000, help="nodes of the power-law graph")
    parser.add_argument(
        "--budget", type=float, default=4.0, help="seconds of a row: slow products take fewer turns"
    )
    parser.add_argument("--only", default="", help="rows that contain this: 'SpMM', 'float64'")
    parser.add_argument(
        "--check-only", action="store_true", help="compare results, measure nothing"
    )
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(
            f"No CUDA device: torch {torch.__version__} sees none. Run this on a machine with an "
            "NVIDIA GPU and a CUDA build of torch; --device cpu tests the script itself.",
            file=sys.stderr,
        )
        return 2
    if device.type == "cuda":  # with its number, which "cuda" lacks
        device = torch.empty(0, device=device).device
        torch.cuda.set_device(device)
    comparison = Comparison(options, device)
    report(comparison.lines(), options.out)
    for title in comparison.wrong:
        print(f"sparsetorch is wrong: {title}", file=sys.stderr)
    return 1 if comparison.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
