"""Contenders beside one another in one process: checked first, then timed in turns."""

import argparse
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import scipy
import torch
from scipy import sparse
from torch import Tensor

from sparsetorch_kernels import backend_info

Results = tuple[np.ndarray, ...]
Result = Tensor | np.ndarray | sparse.csr_array
Contender = Callable[[], tuple[Result, ...]]
Clock = Callable[[], float]
Measure = Callable[[Callable[[], object]], float]  # the seconds that a call takes
Seconds = dict[str, list[float]]

warnings.filterwarnings("ignore", message=".*[Ss]parse.*")  # "beta state", "invariant checks"


def as_array(result: Result) -> np.ndarray:
    """A result for comparison; the values of a sparse one, its columns sorted."""
    if isinstance(result, Tensor) and result.layout == torch.sparse_csr:
        parts = (result.values(), result.col_indices(), result.crow_indices())
        result = sparse.csr_array(tuple(t.numpy() for t in parts), shape=tuple(result.shape))
    if isinstance(result, sparse.csr_array):
        result.sort_indices()
        return result.data
    return result.detach().numpy() if isinstance(result, Tensor) else result


def require(name: str, error: float, tolerance: float) -> None:
    """End the run unless a relative error is small enough."""
    if not error <= tolerance:
        raise SystemExit(f"{name}: relative error {error:.1e}; no times are given")


def verify(name: str, got: tuple[Result, ...], want: Results, dtype: torch.dtype) -> None:
    """End the run unless every result is right to the precision of its dtype."""
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        error = np.linalg.norm(as_array(a).ravel() - b.ravel()) / np.linalg.norm(b)
        require(f"{name}, result {i}", float(error), tolerance)


def in_turns(
    contenders: Mapping[str, Callable[[], object]], repeats: int, measure: Measure, warmup: int = 2
) -> Seconds:
    """Seconds of each contender, taking turns; the first `warmup` turns do not count.

    The order changes at random, since who follows a program with one thread has to wake the others.
    """
    seconds: Seconds = {name: [] for name in contenders}
    order = random.Random(0)
    for turn in range(repeats + warmup):
        for name in order.sample(list(contenders), len(contenders)):
            taken = measure(contenders[name])
            if turn >= warmup:
                seconds[name].append(taken)
    return seconds


def clock_of(device: torch.device) -> Clock:
    """Seconds by a wall clock that waits for what the device has yet to do."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def stopwatch(clock: Clock) -> Measure:
    def measure(call: Callable[[], object]) -> float:
        start = clock()
        call()
        return clock() - start

    return measure


def times(
    contenders: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Clock = time.perf_counter,
    warmup: int = 2,
) -> Seconds:
    """`in_turns` by a clock of the CPU."""
    return in_turns(contenders, repeats, stopwatch(clock), warmup)


def copy_rate(clock: Clock) -> float:
    """Bytes read and written per second by a copy that no cache holds."""
    source = torch.ones(1 << 26)
    target = torch.empty_like(source)
    seconds = times({"copy": lambda: (target.copy_(source),)}, 7, clock)["copy"]
    return 2 * source.numel() * 4 / statistics.median(seconds)


def quartiles(seconds: list[float], digits: int = 2) -> str:
    """Median (quartiles) in ms."""
    low, middle, high = (f"{t * 1e3:.{digits}f}" for t in statistics.quantiles(seconds, n=4))
    return f"{middle} ({low}-{high})"


def to_best_peer(seconds: Seconds, ours: str = "sparsetorch") -> float:
    """Median of ours over the smallest median of the others: below 1, ours is faster."""
    peers = [statistics.median(t) for name, t in seconds.items() if name != ours]
    return statistics.median(seconds[ours]) / min(peers)


def cpu_name() -> str:
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    return cpu


def versions() -> str:
    """What computes here: torch, SciPy, and which kernels sparsetorch has."""
    ours = backend_info()["cpu"].split()[0]
    return f"torch {torch.__version__}, scipy {scipy.__version__}; sparsetorch: {ours}"


def huge_pages() -> str:
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return f"Transparent huge pages: {pages.read_text().strip() if pages.exists() else 'none'}"


def header(*titles: str) -> list[str]:
    """The first two lines of a Markdown table."""
    return [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]


def _turns(text: str) -> int:
    turns = int(text)
    if turns < 2:
        raise argparse.ArgumentTypeError(f"expected at least 2, for quartiles, got {turns}")
    return turns


def arguments(
    description: str, repeats: int, repeats_help: str, cpu_time: bool = True
) -> argparse.ArgumentParser:
    """What every script can be asked; its own options are added to these."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, help="PyTorch's threads; all by default")
    parser.add_argument("--repeats", type=_turns, default=repeats, help=repeats_help)
    if cpu_time:
        parser.add_argument(
            "--cpu-time", action="store_true", help="processor time, not wall clock"
        )
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    return parser


def report(lines: Iterable[str], out: Path | None) -> None:
    """Print each line as soon as it is there; keep them all in `out`."""
    shown: list[str] = []
    for line in lines:
        print(line, flush=True)
        shown.append(line)
    if out:
        out.write_text("\n".join(shown) + "\n")
