"""Counts that users give: whole numbers serve, anything else is refused by name."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sparsetorch import CSRTensor, poisson
from sparsetorch.checks import check_count
from sparsetorch.graph import k_hop
from sparsetorch.linalg import (
    diagonal_estimate,
    eigsh,
    fixed_point,
    logdet_estimate,
    lsqr,
    solve,
    svds,
    trace_estimate,
)
from sparsetorch.precond import amg, block_jacobi, chebyshev

A = poisson(4, 3, dtype=torch.float64)
b = torch.linspace(1.0, 2.0, 12, dtype=torch.float64)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def half(z: Tensor) -> Tensor:
    return 0.5 * z + 1


# "function, argument": the function of a count.
COUNTS: dict[str, Callable[[Any], Any]] = {
    "eye, n": lambda n: CSRTensor.eye(n).values,
    "topk_per_row, k": lambda k: A.topk_per_row(k).values,
    "k_hop, k": lambda k: k_hop(A.pattern, torch.tensor([0]), k),
    "cg, maxiter": lambda n: solve(A, b, "cg", maxiter=n, full_output=True).x,
    "block_cg, maxiter": lambda n: solve(A, b, "block_cg", maxiter=n, full_output=True).x,
    "lsqr, maxiter": lambda n: lsqr(A, b, maxiter=n).x,
    "gmres, restart": lambda n: solve(A, b, "gmres", restart=n),
    "fgmres, restart": lambda n: solve(A, b, "fgmres", restart=n),
    "fixed_point, maxiter": lambda n: fixed_point(half, b, maxiter=n, full_output=True).x,
    "fixed_point, window": lambda n: fixed_point(half, b, window=n),
    "eigsh, k": lambda k: eigsh(A, k)[1],
    "eigsh, ncv": lambda n: eigsh(A, 1, ncv=n)[1],
    "eigsh, maxiter": lambda n: eigsh(A, 1, maxiter=n)[1],
    "svds, k": lambda k: svds(A, k)[1],
    "smallest svds, k": lambda k: svds(A, k, which="SM")[1],
    "trace_estimate, n_samples": lambda n: trace_estimate(A, n, generator=seeded()).value,
    "trace_estimate, n": lambda n: trace_estimate(lambda X: X, n=n, generator=seeded()).value,
    "diagonal_estimate, n_samples": lambda n: diagonal_estimate(A, n, generator=seeded()),
    "logdet_estimate, n_samples": lambda n: logdet_estimate(A, n, generator=seeded()).value,
    "logdet_estimate, steps": lambda n: logdet_estimate(A, steps=n, generator=seeded()).value,
    "block_jacobi, block_size": lambda n: block_jacobi(A, n)(b),
    "chebyshev, degree": lambda n: chebyshev(A, n)(b),
    "amg, degree": lambda n: amg(A, degree=n)(b),
}


@pytest.mark.parametrize("name", COUNTS)
def test_whole_floats_and_integers_of_numpy_and_torch_serve(name):
    if name.startswith("amg"):
        pytest.importorskip("pyamg", reason="needs sparsetorch[ddm]")
    expected = COUNTS[name](2)
    for two in (2.0, np.int64(2), np.float32(2), torch.tensor(2)):
        assert torch.equal(COUNTS[name](two), expected)


@pytest.mark.parametrize("name", COUNTS)
def test_other_numbers_are_refused_by_name(name):
    argument = name.rpartition(" ")[2]
    for number in (math.nan, math.inf, -math.inf, 1.5, -1, np.float64("nan")):
        with pytest.raises(ValueError, match=rf"^{argument}: expected at least \d .*, got "):
            COUNTS[name](number)
    for other in (True, np.True_, torch.tensor(True), "2", 2j, np.ones(2), [2]):
        with pytest.raises(TypeError, match=f"^{argument}: expected a whole number, got "):
            COUNTS[name](other)


def test_a_count_is_an_int_of_python():
    twos: Any = (2, 2.0, np.uint8(2), np.float64(2), torch.tensor(2.0), np.array(2))
    for two in twos:
        count = check_count("n", two, "rows")
        assert type(count) is int
        assert count == 2
    assert check_count("n", 2**70, "rows") == 2**70
    with pytest.raises(ValueError, match=r"^n: expected at least 3 rows, got 2.0$"):
        check_count("n", 2.0, "rows", least=3)


def test_counts_in_compiled_code():
    @torch.compile(fullgraph=True, dynamic=True, backend="eager")
    def counted(x: Tensor, n: int) -> Tensor:
        return x * check_count("n", n, "rows")

    for n in (2, 3, 5):
        assert torch.equal(counted(b, n), b * n)
