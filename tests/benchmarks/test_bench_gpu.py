"""The GPU benchmark on the CPU, with SciPy in CuPy's place: all but the timing by CUDA events."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_gpu
from array_peer import array_peer
from gpu_cases import CASES, Case
from gpu_problem import Contest, Problem

CPU = torch.device("cpu")
TINY = "--device cpu --grid 6 --nodes 60 --repeats 3"


def run(monkeypatch, arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", *arguments.split()])
    return bench_gpu.main()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def rows(output: str) -> list[list[str]]:
    return [cells(line) for line in output.splitlines() if line.startswith("|")][2:]


def problem(dtype: torch.dtype = torch.float64) -> Problem:
    matrix = sparse.random_array((20, 20), density=0.2, rng=np.random.default_rng(0))
    matrix = sparse.csr_array(matrix + sparse.eye_array(20))
    matrix.sort_indices()
    return Problem(matrix, dtype, CPU, array_peer(CPU))


def test_every_case_is_checked_and_timed(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, f"{TINY} --out {tmp_path / 'table.md'}") == 0
    output = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() == output
    table = rows(output)
    assert len(table) == sum(2 * len(case.dtypes) for case in CASES)
    assert all(re.fullmatch(r"[\d.]+ \([\d.]+-[\d.]+\)", row[3]) for row in table)
    assert all(row[7].endswith("%") for row in table)
    with_scipy = {row[0] for row in table if row[5] != "-"}
    assert {"SpMV", "SpMM 64", "masked A A", "triangular solve"} < with_scipy
    assert "Iterations per second of conjugate gradients" in output
    for fact in (torch.__version__, "SciPy", "triton", "--grid 6"):
        assert fact in output.splitlines()[0]


def test_checks_alone_measure_nothing(monkeypatch, capsys):
    monkeypatch.setattr(bench_gpu, "in_turns", None)
    monkeypatch.setattr(bench_gpu, "copy_rate", None)
    assert run(monkeypatch, f"{TINY} --check-only --only float64") == 0
    table = rows(capsys.readouterr().out)
    assert len(table) == sum(2 for case in CASES if torch.float64 in case.dtypes)
    assert all(float(row[3]) < 1e-12 for row in table)


def test_without_cuda_it_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(monkeypatch, "") == 2
    message = capsys.readouterr().err
    assert "No CUDA device" in message
    assert "--device cpu" in message


@pytest.mark.parametrize("wrong", [1e-6, float("nan")])
def test_a_wrong_result_gets_no_time_and_exit_code_1(wrong, monkeypatch, capsys):
    def doubtful(p: Problem) -> Contest:
        x = p.normal(p.n)
        contenders = {
            "sparsetorch": lambda: (p.A @ x * (1 + wrong),),
            "torch": lambda: (p.csr @ x,),
        }
        return Contest((p.product(x),), contenders, 1)

    monkeypatch.setattr(bench_gpu, "CASES", [Case("SpMV", doubtful, (torch.float64,))])
    assert run(monkeypatch, TINY) == 1
    printed = capsys.readouterr()
    assert all(row[3:] == ["WRONG", "-", "-", "-", "-"] for row in rows(printed.out))
    assert "sparsetorch is wrong: SpMV | Poisson" in printed.err


def test_a_peer_that_refuses_or_is_wrong_leaves_an_empty_cell(monkeypatch, capsys):
    def refused():
        raise NotImplementedError("no kernel\nfor this")

    def one_sided(p: Problem) -> Contest:
        x = p.normal(p.n)
        contenders = {
            "sparsetorch": lambda: (p.A @ x,),
            "torch": refused,
            "SciPy": lambda: ((p.A @ x)[1:].numpy(),),
        }
        return Contest((p.product(x),), contenders, 1)

    monkeypatch.setattr(bench_gpu, "CASES", [Case("SpMV", one_sided, (torch.float64,))])
    assert run(monkeypatch, TINY) == 0
    output = capsys.readouterr().out
    assert all(row[4:7] == ["-", "-", "-"] for row in rows(output))
    both = "SpMV, Poisson, float64; SpMV, power law, float64"
    assert f"- torch: NotImplementedError: no kernel: {both}" in output
    assert f"- SciPy: ValueError: WRONG: 35 numbers in place of 36: {both[:21]}" in output


def test_the_references_are_the_dense_results():
    p = problem()
    A = p.A.to_dense()
    X, Y = p.normal(20, 33), p.normal(20, 33)  # more columns than are taken at a time
    torch.testing.assert_close(p.product(X), A @ X)
    torch.testing.assert_close(p.product(X[:, 0], transpose=True), A.T @ X[:, 0])
    torch.testing.assert_close(p.entries(X, Y), (X @ Y.T)[p.row, p.col])
    stored = torch.where(A != 0, A, -torch.inf)
    torch.testing.assert_close(p.softmax(), stored.softmax(1)[p.row, p.col])
    messages = torch.where((A != 0)[..., None], A[..., None] * X, -torch.inf)
    torch.testing.assert_close(p.largest(X), messages.amax(1))


@pytest.mark.parametrize("case", [c for c in CASES if not c.steps], ids=lambda case: case.title)
def test_the_cases_need_no_symmetry(case):
    """All but conjugate gradients, on a matrix whose transpose has another pattern."""
    p = problem()
    contest = case.make(p)
    errors, remarks = bench_gpu.check(case, contest, p)
    assert errors["sparsetorch"] <= 1e-12
    assert not [remark for remark in remarks if remark.startswith(("sparsetorch", "SciPy"))]
    assert contest.moved > 0


def test_the_bytes_of_a_product_are_those_of_its_arrays():
    p = problem(torch.float32)
    arrays = (p.pattern.crow, p.pattern.col, p.values, p.normal(20), p.normal(20))
    contest = next(case for case in CASES if case.title == "SpMV").make(p)
    assert contest.moved == sum(t.numel() * t.element_size() for t in arrays)
