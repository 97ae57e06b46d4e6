"""Incomplete factorizations by each implementation, against the dense loops of the textbook."""

import numpy as np
import pytest
import torch
from csr_cases import densify, layout_of, relative_error, sample
from scipy import sparse
from torch import Tensor

from sparsetorch_kernels import Layout, _native, level_sets, transpose_structure
from sparsetorch_kernels.incomplete import Elimination, PivotError, factorize, ic0, ilu0


def dense_ilu0(D: Tensor, stored: Tensor) -> Tensor:
    """Saad, Iterative Methods, algorithm 10.4."""
    D = D.clone()
    n = len(D)
    for i in range(1, n):
        for k in range(i):
            if stored[i, k]:
                D[i, k] /= D[k, k]
                for j in range(k + 1, n):
                    if stored[i, j]:
                        D[i, j] -= D[i, k] * D[k, j]
    return D


def dense_ic0(D: Tensor, stored: Tensor) -> Tensor:
    """Golub and Van Loan, Matrix Computations, section 11.5.8, by columns."""
    D = D.tril()
    n = len(D)
    for k in range(n):
        D[k, k] = D[k, k].sqrt()
        for i in range(k + 1, n):
            if stored[i, k]:
                D[i, k] /= D[k, k]
        for j in range(k + 1, n):
            for i in range(j, n):
                if stored[i, j]:
                    D[i, j] -= D[i, k] * D[j, k]
    return D


def entry_plan(layout: Layout, symmetric: bool) -> Elimination:
    """What the reference needs, by looking every product up in a dictionary."""
    row = torch.arange(layout.n_rows).repeat_interleave(layout.crow.diff().long()).tolist()
    places = {place: e for e, place in enumerate(zip(row, layout.col.tolist()))}
    found, needed = [], []
    pivot = [places[j, j] if j < i else -1 for i, j in places]
    for (i, j), e in places.items():
        needed += [(e, p) for p in pivot[e : e + 1] if p >= 0]
        for k in range(j if symmetric else min(i, j)):
            left, right = (i, k), (j, k) if symmetric else (k, j)
            if left in places and right in places:
                found.append((e, places[left], places[right]))
                needed += [(e, places[left]), (e, places[right])]
    edges = sparse.csr_array(
        (np.ones(len(needed)), np.array(needed, dtype=int).reshape(-1, 2).T),
        shape=(len(places), len(places)),
    )
    waits = layout_of(edges, layout.col.dtype)
    starts, rows = level_sets(waits.crow, waits.col)
    n_levels = starts.numel() - 1
    levels = Layout(
        starts, rows, None, *transpose_structure(starts, rows, len(row)), n_levels, len(row)
    )
    target, left, right = torch.tensor(found, dtype=torch.int64).reshape(-1, 3).unbind(1)
    diagonal = torch.tensor([places[i, i] for i in range(layout.n_rows)], dtype=torch.int64)
    divisor = torch.tensor(pivot).long()
    return Elimination(target, left, right, divisor, diagonal, levels, symmetric)


def native(layout: Layout, values: Tensor, symmetric: bool) -> Tensor:
    if _native.ops() is None:
        pytest.skip(f"no native library: {_native.status()}")

    def refused():
        raise AssertionError("the native library needs no plan")

    return (ic0 if symmetric else ilu0)(layout, values, refused)


def reference(layout: Layout, values: Tensor, symmetric: bool) -> Tensor:
    flat = values.reshape(values.shape[:-1].numel(), values.shape[-1])
    return factorize(entry_plan(layout, symmetric), flat).reshape(values.shape)


FACTORIZATIONS = {"native": native, "reference": reference}
each_implementation = pytest.mark.parametrize("run", FACTORIZATIONS.values(), ids=FACTORIZATIONS)


def matrix_of(n: int, density: float, symmetric: bool, seed: int = 0) -> sparse.csr_array:
    """Diagonally dominant; the lower triangle of a symmetric matrix if `symmetric`."""
    part = sparse.random_array((n, n), density=density, rng=seed)
    part = part + part.T if symmetric else part
    part = sparse.csr_array(part - sparse.diags_array(part.diagonal()) if n else part)
    whole = part + sparse.diags_array(np.asarray(abs(part).sum(1)).ravel() + 1)
    return sparse.csr_array(sparse.tril(whole) if symmetric else whole)


@each_implementation
@pytest.mark.parametrize("symmetric", [False, True], ids=["ILU(0)", "IC(0)"])
@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize(("n", "density"), [(0, 0), (1, 1), (20, 0), (20, 0.2), (33, 0.1), (8, 1)])
def test_equals_the_dense_loop(run, symmetric, index, n, density):
    matrix = matrix_of(n, density, symmetric)
    layout = layout_of(matrix, index)
    values = torch.from_numpy(matrix.data)
    stored = densify(layout, torch.ones_like(values)) != 0
    D = densify(layout, values)
    dense = (dense_ic0 if symmetric else dense_ilu0)(D, stored)
    want = sample(layout, dense)
    assert relative_error(run(layout, values, symmetric), want) < 1e-14
    single = run(layout, values.float(), symmetric)
    assert single.dtype == torch.float32
    assert relative_error(single, want) < 1e-6
    batch = torch.stack([values, 4 * values]).unsqueeze(1)
    factors = run(layout, batch, symmetric)
    assert factors.shape == batch.shape
    torch.testing.assert_close(factors[0, 0], want)
    assert run(layout, batch[:0], symmetric).shape == (0, 1, len(values))


@each_implementation
def test_the_factors_multiply_to_the_matrix_on_its_pattern(run):
    for symmetric in (False, True):
        matrix = matrix_of(40, 0.1, symmetric)
        layout, values = layout_of(matrix), torch.from_numpy(matrix.data)
        F = densify(layout, run(layout, values, symmetric))
        L = F if symmetric else F.tril(-1) + torch.eye(40).double()
        U = F.T if symmetric else F.triu()
        torch.testing.assert_close(sample(layout, L @ U), values)


@each_implementation
@pytest.mark.parametrize("symmetric", [False, True])
def test_without_fill_to_drop_it_is_the_whole_factorization(run, symmetric):
    matrix = matrix_of(25, 1.0, symmetric)
    layout, values = layout_of(matrix), torch.from_numpy(matrix.data)
    F = densify(layout, run(layout, values, symmetric))
    if symmetric:
        D = densify(layout, values)
        torch.testing.assert_close(F, torch.linalg.cholesky(D + D.tril(-1).T))
    else:
        torch.testing.assert_close((F.tril(-1) + torch.eye(25)) @ F.triu(), densify(layout, values))


@each_implementation
@pytest.mark.parametrize("bad", [0.0, float("nan")])
def test_the_first_unusable_pivot_is_named(run, bad):
    for symmetric in (False, True):
        layout = layout_of(np.eye(6) + (0 if symmetric else np.eye(6, k=1)))
        values = torch.ones(layout.col.numel()).double()
        row = torch.arange(6).repeat_interleave(layout.crow.diff().long())
        diagonal = layout.col == row
        for first, other in ((2, 4), (0, 5)):
            broken = torch.where(diagonal & ((row == first) | (row == other)), bad, values)
            with pytest.raises(PivotError, match=f"row {first} ") as caught:
                run(layout, torch.stack([values, broken]), symmetric)
            assert caught.value.row == first


@each_implementation
def test_the_root_of_a_negative_pivot_is_refused(run):
    layout = layout_of(np.array([[1.0, 0, 0], [2, 1, 0], [0, 0, 1]]))
    with pytest.raises(PivotError, match="row 1 "):  # 1 - 2 * 2
        run(layout, torch.tensor([1.0, 2.0, 1.0, 1.0]), True)


def test_arguments_that_do_not_fit_are_named():
    layout = layout_of(np.eye(3))

    def plan():
        raise AssertionError

    with pytest.raises(TypeError, match=r"values is torch.int64"):
        ilu0(layout, torch.ones(3).long(), plan)
    with pytest.raises(ValueError, match=r"values has shape \(4,\)"):
        ic0(layout, torch.ones(4), plan)
    with pytest.raises(ValueError, match=r"layout has shape \(2, 3\)"):
        ilu0(layout_of(np.eye(2, 3)), torch.ones(2), plan)
    with pytest.raises(ValueError, match="in the order of its values"):
        ilu0(layout.T, torch.ones(3), plan)


def test_a_missing_diagonal_is_no_way_into_other_memory():
    if _native.ops() is None:
        pytest.skip(f"no native library: {_native.status()}")
    ops = torch.ops.sparsetorch_native
    for matrix in (np.eye(5, k=-1), np.eye(5, k=1), np.zeros((5, 5)), np.ones((5, 5)).T):
        layout = layout_of(matrix)
        values = torch.ones(1, layout.col.numel())
        for run in (ops.ilu0, ops.ic0):
            with pytest.raises(RuntimeError, match="no pivot in row"):
                run(layout.crow, layout.col, values, 5)
    with pytest.raises(RuntimeError, match="square"):
        ops.ilu0(layout.crow, layout.col, values, 4)
    with pytest.raises(RuntimeError, match="does not fit"):
        ops.ilu0(layout.crow, layout.col, values[:, 1:], 5)
