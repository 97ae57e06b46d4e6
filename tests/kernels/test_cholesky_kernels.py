"""The kernels of Cholesky and LDL^T against dense algebra and the reference, at awkward sizes."""

import numpy as np
import pytest
import torch
from cholesky_cases import CASES, grid, pattern_of, random_spd
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import Tensor

from sparsetorch_kernels import (
    Elimination,
    cholesky_factor,
    cholesky_inverse,
    cholesky_solve,
    eliminate,
)
from sparsetorch_kernels.cholesky import elimination, reference

SMALL = {name: matrix for name, matrix in CASES.items() if matrix.shape[0] <= 200}
every_case = pytest.mark.parametrize("matrix", CASES.values(), ids=CASES)
small_cases = pytest.mark.parametrize("matrix", SMALL.values(), ids=SMALL)  # Python is slow


def orders(n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n)
    return [torch.arange(n), torch.arange(n).flip(0), torch.randperm(n, generator=generator)]


def values_of(matrix: sparse.csr_array, dtype=torch.float64) -> Tensor:
    return torch.from_numpy(matrix.data).to(dtype)


def dense_factor(l: Elimination, panels: Tensor) -> Tensor:
    """L, put together from its panels."""
    dense = panels.new_zeros(l.n, l.n)
    for s in reference.supernodes(l):
        panel, columns = s.panel(panels), slice(s.first, s.first + s.w)
        dense[columns, columns] = panel[: s.w].tril()
        dense[s.rows, columns] = panel[s.w : s.w + s.u]
    return dense


def check(
    matrix: sparse.csr_array,
    l: Elimination,
    dtype=torch.float64,
    tolerance=1e-13,
    indefinite: bool = False,
) -> None:
    """Every numeric operation on one elimination, against dense algebra in float64."""
    A = torch.from_numpy(matrix.toarray())
    panels, failure = cholesky_factor(l, values_of(matrix, dtype), indefinite=indefinite)
    assert failure.tolist() == [-1, 0]
    ordered = A[l.order][:, l.order]
    L = dense_factor(l, panels).double()
    assert (L * L.diagonal().sign() @ L.mT - ordered).norm() <= tolerance * A.norm()
    negative = int((torch.linalg.eigvalsh(A) < 0).sum())  # Sylvester's law of inertia
    assert int((panels[l.diagonal] < 0).sum()) == negative
    inverse = torch.linalg.inv(A)
    crow, col = torch.from_numpy(matrix.indptr), torch.from_numpy(matrix.indices)
    row = torch.arange(l.n).repeat_interleave(crow.diff())
    selected = cholesky_inverse(l, panels)[l.places]
    condition = A.norm() * inverse.norm()
    error = (selected - inverse[row, col.long()]).norm()
    assert error <= tolerance * condition * inverse.norm()
    for k in (0, 1, 3, 8, 37):
        b = torch.randn(l.n, k, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        x = cholesky_solve(l, panels, b.to(dtype)).double()
        assert (A @ x - b).norm() <= tolerance * A.norm() * x.norm() + 1e-7 * (
            dtype == torch.float32
        ) * b.norm()


@every_case
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_factor_solves_and_inverse_match_dense_algebra(matrix, index):
    for order in orders(matrix.shape[0]):
        check(matrix, eliminate(*pattern_of(matrix, index), order))


@every_case
def test_float32(matrix):
    for order in orders(matrix.shape[0]):
        check(matrix, eliminate(*pattern_of(matrix), order), torch.float32, 1e-5)


def with_signs(matrix: sparse.csr_array) -> sparse.csr_array:
    """The matrix with every third diagonal entry negated: dominant, so that no pivot vanishes."""
    diagonal = matrix.diagonal()
    flipped = np.where(np.arange(len(diagonal)) % 3 == 1, -2 * diagonal, 0.0)
    return sparse.csr_array(matrix + sparse.diags_array(flipped))


@every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_indefinite_matrices(matrix, dtype, tolerance):
    signed = with_signs(matrix)
    for order in orders(matrix.shape[0]):
        check(signed, eliminate(*pattern_of(signed), order), dtype, tolerance, indefinite=True)


@every_case
def test_a_definite_matrix_has_one_factor(matrix):
    l = eliminate(*pattern_of(matrix), orders(matrix.shape[0])[2])
    signed, _ = cholesky_factor(l, values_of(matrix), indefinite=True)
    assert torch.equal(signed[l.places], cholesky_factor(l, values_of(matrix))[0][l.places])


@small_cases
def test_native_and_reference_agree_on_indefinite_matrices(matrix):
    signed = with_signs(matrix)
    l, values = eliminate(*pattern_of(signed), orders(matrix.shape[0])[1]), values_of(signed)
    panels, _ = cholesky_factor(l, values, indefinite=True)
    plain, _ = reference.cholesky_factor(l, values, indefinite=True)
    torch.testing.assert_close(dense_factor(l, panels), dense_factor(l, plain))
    b = torch.ones(l.n, 2).double()
    torch.testing.assert_close(reference.cholesky_solve(l, plain, b), cholesky_solve(l, panels, b))


@pytest.mark.parametrize("pivot", [0.0, 1e-17, float("nan")])
def test_the_column_of_a_pivot_that_vanishes_is_named(pivot):
    matrix = sparse.csr_array(np.array([[pivot, 1.0], [1.0, 2.0]]))
    l = eliminate(*pattern_of(matrix), torch.arange(2))
    for implementation in (cholesky_factor, reference.cholesky_factor):
        _, failure = implementation(l, values_of(matrix), indefinite=True)
        assert failure[0] == 0
        assert failure[1].isnan() if np.isnan(pivot) else failure[1] == pivot


@small_cases
def test_the_plain_reference_is_right_and_stores_no_more_than_it_must(matrix):
    order = orders(matrix.shape[0])[2]
    l = reference.eliminate(*pattern_of(matrix), order)
    A = torch.from_numpy(matrix.toarray())
    panels, failure = reference.cholesky_factor(l, values_of(matrix))
    assert failure.tolist() == [-1, 0]
    L = dense_factor(l, panels)
    torch.testing.assert_close(L, torch.linalg.cholesky(A[order][:, order]))
    assert l.rows.numel() + l.n == int((L != 0).sum())
    b = torch.ones(l.n, 2).double()
    torch.testing.assert_close(reference.cholesky_solve(l, panels, b), torch.linalg.solve(A, b))


@small_cases
def test_native_and_reference_agree_on_one_elimination(matrix):
    l = eliminate(*pattern_of(matrix), orders(matrix.shape[0])[1])
    values = values_of(matrix)
    panels, _ = cholesky_factor(l, values)
    plain, _ = reference.cholesky_factor(l, values)
    torch.testing.assert_close(dense_factor(l, panels), dense_factor(l, plain))
    inverse, plain_inverse = cholesky_inverse(l, panels), reference.cholesky_inverse(l, plain)
    torch.testing.assert_close(inverse[l.places], plain_inverse[l.places])


@small_cases
def test_supernodes_hold_the_factor_of_the_reference(matrix):
    """The native elimination may store zeros, and must hold every entry of the exact one."""
    structure = pattern_of(matrix)
    l = eliminate(*structure, orders(matrix.shape[0])[2])
    exact = reference.eliminate(*structure, l.order)
    stored = dense_factor(l, torch.ones(l.size)) != 0
    needed = dense_factor(exact, torch.ones(exact.size)) != 0
    assert bool((stored >= needed).all())


def test_a_front_larger_than_every_block_of_the_kernels():
    matrix = random_spd(301, 1.0, 1)
    check(matrix, eliminate(*pattern_of(matrix), torch.arange(301)))
    signed = with_signs(matrix)
    check(signed, eliminate(*pattern_of(signed), torch.arange(301)), indefinite=True)


def test_results_do_not_depend_on_the_number_of_threads():
    matrix = sparse.csr_array(sparse.block_diag([grid(12, 30), grid(30, 12), grid(400)] * 2))
    l = eliminate(*pattern_of(matrix), torch.arange(matrix.shape[0]))
    assert len(l.bounds) > 2
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            panels, _ = cholesky_factor(l, values_of(matrix))
            results.append((panels[l.places], cholesky_inverse(l, panels)[l.places]))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


@pytest.mark.parametrize("pivot", [-1.0, 0.0, 1e-17, float("nan")])
@pytest.mark.parametrize("at", [0, 7, 99])
def test_the_column_of_a_pivot_that_is_not_positive_is_named(pivot, at):
    matrix = sparse.csr_array(sparse.diags_array(np.ones(100)))
    l = eliminate(*pattern_of(matrix), orders(100)[2])
    values = values_of(matrix)
    values[at] = pivot
    for implementation in (cholesky_factor, reference.cholesky_factor):
        _, failure = implementation(l, values)
        if pivot == 1e-17:  # small, but the pivot of its own scale
            assert failure[0] == -1
        else:
            assert failure[0] == at
            assert failure[1].isnan() if np.isnan(pivot) else failure[1] == pivot


def test_a_matrix_singular_but_for_rounding_is_not_positive_definite():
    matrix = sparse.csr_array(np.array([[1.0, 0.1, 0.0], [0.1, 0.01, 0.0], [0.0, 0.0, 3.0]]))
    l = eliminate(*pattern_of(matrix), torch.arange(3))
    assert cholesky_factor(l, values_of(matrix))[1][0] == 1


def test_arguments_that_do_not_fit_are_named():
    crow, col, mirror = pattern_of(grid(3))
    with pytest.raises(ValueError, match="order: expected a permutation"):
        eliminate(crow, col, mirror, torch.tensor([0, 0, 2]))
    with pytest.raises(ValueError, match=r"expected mirror \(7,\) and order \(3,\)"):
        eliminate(crow, col, mirror, torch.arange(4))
    l = eliminate(crow, col, mirror, torch.arange(3))
    with pytest.raises(ValueError, match=r"values: expected shape \(7,\) on the CPU, got \(6,\)"):
        cholesky_factor(l, torch.ones(6))
    with pytest.raises(TypeError, match=r"values: expected torch.float32 or torch.float64"):
        cholesky_factor(l, torch.ones(7, dtype=torch.complex64))
    panels, _ = cholesky_factor(l, values_of(grid(3)))
    with pytest.raises(TypeError, match=r"b: expected torch.float64 like the factor"):
        cholesky_solve(l, panels, torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"b: expected shape \(3, 1\)"):
        cholesky_solve(l, panels, torch.ones(4, 1).double())
    with pytest.raises(ValueError, match="panels: expected shape"):
        cholesky_inverse(l, panels[1:])


def test_an_asymmetric_pattern_is_refused_by_the_raw_operator():
    native = torch.ops.sparsetorch_native
    crow, col = torch.tensor([0, 3, 4, 5]), torch.tensor([0, 1, 2, 1, 2])
    with pytest.raises(RuntimeError, match="the pattern is not symmetric"):
        native.eliminate(crow, col, torch.arange(5), torch.arange(3).flip(0))
    crow, col = torch.tensor([0, 1, 2, 5]), torch.tensor([0, 1, 0, 1, 2])
    with pytest.raises(RuntimeError, match="the pattern is not symmetric"):
        native.eliminate(crow, col, torch.arange(5), torch.arange(3))


def test_no_damaged_structure_is_used_by_the_raw_operators():
    """Each index in turn is set beyond its range; the kernels refuse rather than follow it."""
    native, matrix = torch.ops.sparsetorch_native, grid(7, 9)
    l, values = eliminate(*pattern_of(matrix), orders(63)[2]), values_of(matrix)
    panels, _ = cholesky_factor(l, values)
    for name in ("order", "table", "rows", "relative", "bounds", "place", "crow"):
        whole = getattr(l, name)
        for at in range(0, whole.numel(), max(1, whole.numel() // 40)):
            damaged = whole.clone()
            damaged.view(-1)[at] = 10**6
            bad = l._replace(**{name: damaged})
            row, column = divmod(at, whole.shape[-1])
            if name == "table" and (
                # Parents are not followed; updates may lie in a workspace larger than needed.
                row in (elimination.PARENT, elimination.UPDATE)
                # Totals are of three properties only.
                or (column == whole.shape[-1] - 1 and row > elimination.PANEL)
            ):
                continue
            with pytest.raises(RuntimeError, match="damaged"):
                native.cholesky_factor(*bad, values, True)
            if name not in ("place", "crow"):
                with pytest.raises(RuntimeError, match="damaged"):
                    native.cholesky_solve(*bad[:5], panels, values[:63, None])
                with pytest.raises(RuntimeError, match="damaged"):
                    native.cholesky_inverse(*bad[:5], panels)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.floats(0, 0.2), st.integers(0, 10**6), st.booleans())
def test_random_patterns(n, density, seed, single):
    matrix = random_spd(n, density, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    l = eliminate(*pattern_of(matrix), order)
    assert torch.equal(l.order.sort().values, torch.arange(n))
    check(matrix, l, *((torch.float32, 1e-5) if single else (torch.float64, 1e-13)))
