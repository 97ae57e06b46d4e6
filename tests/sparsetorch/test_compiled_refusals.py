"""What does not compile: an error in words that say what to do, and graph breaks that work."""

from typing import Any

import pytest
import torch

from sparsetorch import CSRTensor, kron, poisson, vstack
from sparsetorch.linalg import cg, det, eigsh, factorized, logdet, lsqr, selected_inverse, svds
from sparsetorch.linalg.described import KNOWS_OBJECTS
from sparsetorch.precond import amg, chebyshev, fsai, ic0, ilu0, spai


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


NEEDS_A_NEW_PATTERN = {
    "tril, triu": lambda A: A.tril().values,
    r"A\[...\], submatrix": lambda A: A[1:3].values,
    "vstack, hstack, block_diag, bmat": lambda A: vstack([A, A]).values,
    "kron": lambda A: kron(A, A).values,
    "prune": lambda A: A.prune(0.1).values,
}


def refused(function: Any, A: CSRTensor, message: str) -> None:
    """Once called, the function still does not compile, and the error says so in our words."""
    function(A)
    with pytest.raises(Exception, match=message):
        torch.compile(function, fullgraph=True, backend="eager")(A)


@pytest.mark.parametrize("name", NEEDS_A_NEW_PATTERN)
def test_compiled_code_says_that_it_makes_no_patterns(name):
    message = f"{name}: compiled code cannot make a pattern, and none is kept"
    refused(NEEDS_A_NEW_PATTERN[name], poisson(3, 3, dtype=torch.float64), message)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("logdet", logdet),
        ("slogdet, det", det),
        ("selected_inverse", lambda A: selected_inverse(A).values),
        ("eigsh", lambda A: eigsh(A, 2)[0]),
        ("svds", lambda A: svds(A, 2)[1]),
        ("factorized", lambda A: factorized(A).solve(A.values[:9])),
        ("lsqr", lambda A: lsqr(A, A.values[:9]).x),
        ("an iterative method by itself", lambda A: cg(A, A.values[:9]).x),
        ("ilu0", lambda A: ilu0(A)(A.values[:9])),
        ("ic0", lambda A: ic0(A)(A.values[:9])),
        ("fsai", lambda A: fsai(A)(A.values[:9])),
        ("spai", lambda A: spai(A).values),
        ("amg", lambda A: amg(A)(A.values[:9])),
        ("chebyshev without bounds", lambda A: chebyshev(A)(A.values[:9])),
    ],
)
def test_compiled_code_names_what_does_not_compile(name, function):
    message = f"{name} does not compile"
    refused(function, poisson(3, 3, dtype=torch.float64), message)


OLD = not KNOWS_OBJECTS  # PyTorch 2.11, whose compiler stumbles where it goes on


@pytest.mark.parametrize(
    "function",
    [
        lambda A: A.tril().values,
        pytest.param(logdet, marks=pytest.mark.skipif(OLD, reason="PyTorch 2.11 cannot")),
        lambda A: eigsh(A, 2)[0],
    ],
    ids=["tril", "logdet", "eigsh"],
)
def test_without_fullgraph_it_runs_between_graphs(function):
    A = poisson(3, 3, dtype=torch.float64)
    got = torch.compile(lambda A: 2 * function(A), backend="eager")(A)
    torch.testing.assert_close(got, 2 * function(A))
