"""Triangular solves by each implementation, against dense ones; derivatives; registration."""

import numpy as np
import pytest
import torch
from csr_cases import densify, layout_of, relative_error
from scipy import sparse
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch_kernels import Layout, SingularTriangleError, _native, level_sets, solve_triangular
from sparsetorch_kernels.csr.structure import transpose_structure
from sparsetorch_kernels.triangular import backend, reference
from sparsetorch_kernels.triangular.structure import levels_by_rows


def lower_triangle(n: int, density: float, unit: bool = False) -> sparse.csr_array:
    """Random and well conditioned; strict if its diagonal is to be taken as ones."""
    part = sparse.tril(sparse.random_array((n, n), density=density, rng=0), -1)
    part = part / max(1.0, abs(part).sum(1).max() if n else 1.0)
    return sparse.csr_array(part if unit else part + sparse.diags_array(np.linspace(1, 2, n)))


def levels_of(layout: Layout, lower: bool) -> Layout:
    """The level sets of a base pattern, as a layout."""
    crow, col = (layout.crow, layout.col) if lower else layout.transposed
    starts, rows = level_sets(crow, col)
    n_levels = starts.numel() - 1
    transposed = transpose_structure(starts, rows, layout.n_rows)
    return Layout(starts, rows, None, *transposed, n_levels, layout.n_rows)


def native_solve(triangle, levels, values, b, lower, unit):
    if _native.ops() is None:
        pytest.skip(f"no native library: {_native.status()}")
    return backend.solve((triangle, levels), values, b, False, lower=lower, unit=unit)


SOLVES = {"native": native_solve, "reference": reference.solve_triangular}
SIZES = [(1, 1.0), (2, 1.0), (63, 0.1), (63, 0.0), (200, 0.05), (40, 1.0)]
each_implementation = pytest.mark.parametrize("solve", SOLVES.values(), ids=SOLVES)


@each_implementation
@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("lower", [True, False], ids=["lower", "upper"])
@pytest.mark.parametrize("unit", [True, False], ids=["unit", "stored"])
@pytest.mark.parametrize("turned", [True, False], ids=["transposed", "as it is"])
@pytest.mark.parametrize(("n", "density"), SIZES)
def test_solves_the_dense_system(solve, n, density, turned, unit, lower, index):
    matrix = lower_triangle(n, density, unit)
    layout = layout_of(matrix if lower else matrix.T, index)
    levels = levels_of(layout, lower)
    if turned:
        layout, lower = layout.T, not lower
    nnz = layout.col.numel()
    scipy_values = matrix if (not turned) == lower else matrix.T
    values = torch.from_numpy(sparse.csr_array(scipy_values).data)[None]
    assert values.shape == (1, nnz)
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-6)):
        for v, k, batch in ((values, 1, 1), (values, 5, 3), (torch.cat([values, -values]), 3, 1)):
            v = v if not unit else v.abs()
            want = torch.randn(max(batch, len(v)), n, k).double()
            T = densify(layout, v) + unit * torch.eye(n).double()
            got = solve(layout, levels, v.to(dtype), (T @ want).to(dtype), lower, unit)
            assert got.dtype == dtype
            assert relative_error(got, want) < tolerance


@each_implementation
def test_every_number_of_columns(solve):
    layout = layout_of(lower_triangle(40, 0.3))
    levels, values = levels_of(layout, True), torch.rand(1, layout.col.numel()).double() + 1
    T = densify(layout, values)
    for k in [*range(70), 95, 127, 128, 129]:
        x = torch.randn(1, 40, k).double()
        assert relative_error(solve(layout, levels, values, T @ x, True, False), x) < 1e-9, k


@pytest.fixture
def poisoned_memory():
    """Fresh tensors are full of NaN."""
    torch.use_deterministic_algorithms(True)  # fills them, unless told not to
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_no_number_is_read_before_it_is_written(poisoned_memory, lower, turned):
    assert bool(torch.empty(3).isnan().all())
    matrix = lower_triangle(90, 0.1)
    layout = layout_of(matrix if lower else matrix.T)
    row = torch.arange(90).repeat_interleave(layout.crow.diff().long())
    values = torch.rand(2, layout.col.numel()).double() / 90 + (row == layout.col)
    levels = levels_of(layout, lower)
    layout, lower = (layout.T, not lower) if turned else (layout, lower)
    T = densify(layout, values)
    for k in (1, 2, 3, 17, 40, 70):
        x = torch.randn(2, 90, k).double()
        assert relative_error(native_solve(layout, levels, values, T @ x, lower, False), x) < 1e-12


@each_implementation
def test_entries_beyond_the_triangle_are_not_read(solve):
    matrix = sparse.csr_array(lower_triangle(30, 0.2) + sparse.triu(np.full((30, 30), np.nan), 1))
    layout = layout_of(matrix)
    values = torch.from_numpy(matrix.data)[None]
    want = torch.linalg.solve(
        torch.from_numpy(lower_triangle(30, 0.2).toarray()), torch.ones(30, 2).double()
    )
    got = solve(layout, levels_of(layout, True), values, torch.ones(1, 30, 2).double(), True, False)
    torch.testing.assert_close(got[0], want)


@each_implementation
@pytest.mark.parametrize("lower", [True, False])
def test_the_first_row_without_a_diagonal_is_named(solve, lower):
    matrix = lower_triangle(30, 0.2).tolil()
    matrix[7, 7] = matrix[21, 21] = 0  # not stored
    layout = layout_of(sparse.csr_array(matrix if lower else matrix.T))
    levels, b = levels_of(layout, lower), torch.ones(1, 30, 2).double()
    ones = torch.ones(1, layout.col.numel()).double()
    with pytest.raises(SingularTriangleError, match="the diagonal of row 7 is") as caught:
        solve(layout, levels, ones, b, lower, False)
    assert caught.value.row == 7
    stored_zero = torch.where(layout.col == 3, 0.0, ones)
    for k in (1, 2):
        with pytest.raises(SingularTriangleError, match="row 3 "):
            solve(layout, levels, stored_zero, b[..., :k], lower, False)


@each_implementation
def test_nothing_to_solve(solve):
    empty = layout_of(sparse.csr_array((0, 0)))
    levels = levels_of(empty, True)
    assert solve(empty, levels, torch.ones(1, 0), torch.ones(2, 0, 3), True, False).shape == (
        2,
        0,
        3,
    )
    some = layout_of(lower_triangle(4, 0.5))
    values = torch.ones(1, some.col.numel())
    levels = levels_of(some, True)
    assert solve(some, levels, values, torch.ones(1, 4, 0), True, False).shape == (1, 4, 0)
    assert solve(some, levels, values, torch.ones(0, 4, 2), True, False).shape == (0, 4, 2)


@pytest.mark.parametrize("transposed", [False, True])
def test_threads_share_right_hand_sides_and_change_nothing(transposed):
    matrix = lower_triangle(500, 0.05)
    layout = layout_of(matrix)
    levels, lower = levels_of(layout, True), not transposed
    layout = layout.T if transposed else layout
    values, before = torch.from_numpy(matrix.data)[None], torch.get_num_threads()
    columns = torch.randn(1, 500, 150).double()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(
                [
                    native_solve(layout, levels, values, b, lower, False)
                    for b in (columns, columns[..., :1].expand(40, 500, 1))
                ]
            )
    finally:
        torch.set_num_threads(before)
    exact = matrix.T if transposed else matrix
    assert np.abs(exact @ results[0][0][0].numpy() - columns[0].numpy()).max() < 1e-12
    for other in results[1:]:
        for first, second in zip(results[0], other):
            assert torch.equal(first, second)


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize(("n", "density"), [(0, 0), *SIZES])
def test_level_sets(n, density, index):
    layout = layout_of(lower_triangle(n, density), index)
    starts, rows = level_sets(layout.crow, layout.col)
    assert starts.dtype == rows.dtype == index
    assert sorted(rows.tolist()) == list(range(n))
    level = torch.empty(n, dtype=torch.int64)
    level[rows.long()] = torch.arange(starts.numel() - 1).repeat_interleave(starts.diff().long())
    row = torch.arange(n).repeat_interleave(layout.crow.diff().long())
    beside = layout.col < row
    assert bool((level[layout.col.long()] < level[row])[beside].all())
    for i in level.nonzero()[:, 0].tolist():  # each row waits for one of the level before
        assert level[i] - 1 in level[layout.col[beside & (row == i)].long()]
    assert levels_by_rows(layout.crow, layout.col).tolist() == level.tolist()


def test_level_sets_ignore_the_other_triangle():
    layout = layout_of(np.ones((5, 5)))
    starts, rows = level_sets(layout.crow, layout.col)
    assert starts.tolist() == [0, 1, 2, 3, 4, 5]
    assert rows.tolist() == [0, 1, 2, 3, 4]
    assert levels_by_rows(layout.crow, layout.col).tolist() == [0, 1, 2, 3, 4]


# Derivatives and registration, through the public function

LOWER = layout_of(lower_triangle(6, 0.5), torch.int64)
STRICT = layout_of(lower_triangle(6, 0.5, unit=True), torch.int64)
LEVELS, STRICT_LEVELS = levels_of(LOWER, True), levels_of(STRICT, True)
NNZ = LOWER.col.numel()

FORMS = {  # name: (solve, dense matrix, shapes of values and b)
    "lower": (
        lambda v, b: solve_triangular(LOWER, LEVELS, v, b, lower=True, unit=False),
        lambda v: densify(LOWER, v),
        ((NNZ,), (6, 2)),
    ),
    "transposed, values batched": (
        lambda v, b: solve_triangular(LOWER.T, LEVELS, v, b, lower=False, unit=False),
        lambda v: densify(LOWER, v).mT,
        ((2, NNZ), (6, 1)),
    ),
    "unit, b batched": (
        lambda v, b: solve_triangular(STRICT, STRICT_LEVELS, v, b, lower=True, unit=True),
        lambda v: densify(STRICT, v) + torch.eye(6).double(),
        ((NNZ - 6,), (3, 6, 2)),
    ),
}
each_form = pytest.mark.parametrize(("solve", "matrix", "shapes"), FORMS.values(), ids=FORMS)


def draw(shapes):
    generator = torch.Generator().manual_seed(1)
    return [1 + torch.rand(s, generator=generator, dtype=torch.float64) for s in shapes]


@each_form
def test_gradients_of_first_and_second_order(solve, matrix, shapes):
    arguments = [t.requires_grad_() for t in draw(shapes)]
    options = {"check_forward_ad": True, "check_batched_grad": True}
    assert gradcheck(solve, arguments, **options, check_batched_forward_grad=True)
    assert gradgradcheck(solve, arguments, check_fwd_over_rev=True)


@each_form
def test_derivatives_by_value(solve, matrix, shapes):
    def dense(v, b):
        return torch.linalg.inv(matrix(v)) @ b

    arguments, tangents = tuple(draw(shapes)), tuple(t.cos() for t in draw(shapes))
    torch.testing.assert_close(
        torch.func.jvp(solve, arguments, tangents), torch.func.jvp(dense, arguments, tangents)
    )
    want = torch.func.jacrev(dense, argnums=(0, 1))(*arguments)
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(jacobian(solve, argnums=(0, 1))(*arguments), want)
    hessians = [
        torch.func.hessian(lambda v, b, f=f: f(v, b).pow(3).sum(), argnums=(0, 1))(*arguments)
        for f in (solve, dense)
    ]
    torch.testing.assert_close(*hessians)
    assert all(block.abs().max() > 0 for block in hessians[0][0])


@each_form
@pytest.mark.parametrize("in_dims", [(0, None), (None, 1), (1, 0)])
def test_vmap(solve, matrix, shapes, in_dims):
    arguments = [
        t if dim is None else torch.stack([t, 2 * t, t + 1], dim)
        for t, dim in zip(draw(shapes), in_dims)
    ]

    def dense(v, b):
        return torch.linalg.inv(matrix(v)) @ b

    got = torch.vmap(solve, in_dims)(*arguments)
    torch.testing.assert_close(got, torch.vmap(dense, in_dims)(*arguments))
    gradients = [
        torch.vmap(torch.func.grad(lambda v, b, f=f: f(v, b).sin().sum(), (0, 1)), in_dims)
        for f in (solve, dense)
    ]
    torch.testing.assert_close(*(gradient(*arguments) for gradient in gradients))


@each_form
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_as_one_graph(solve, matrix, shapes, dynamic):
    def loss(v, b):
        return solve(v, b).sin().sum()

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    arguments = [t.requires_grad_() for t in draw(shapes)]
    got, want = compiled(*arguments), loss(*arguments)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got, arguments), torch.autograd.grad(want, arguments)
    )


def test_compiled_code_names_a_singular_row_too():
    torch.compiler.reset()
    solve = torch.compile(FORMS["lower"][0], fullgraph=True, backend="aot_eager")
    with pytest.raises(SingularTriangleError, match="row 0 "):
        solve(torch.zeros(NNZ).double(), torch.ones(6, 2).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_registration(dtype, index):
    layout = layout_of(lower_triangle(6, 0.5), index)
    levels = levels_of(layout, True)
    for batch in (1, 2):
        values = torch.ones(1, NNZ, dtype=dtype, requires_grad=True)
        b = torch.ones(batch, 6, 3, dtype=dtype, requires_grad=True)
        torch.library.opcheck(
            torch.ops.sparsetorch.solve_lower.default, (*layout, *levels, values, b, False)
        )


def test_arguments_that_do_not_fit_are_named():
    values, b = torch.ones(NNZ), torch.ones(6, 2)

    def solve(triangle=LOWER, levels=LEVELS, values=values, b=b):
        return solve_triangular(triangle, levels, values, b, lower=True, unit=False)

    with pytest.raises(ValueError, match=r"values has shape \(3,\)"):
        solve(values=torch.ones(3))
    with pytest.raises(ValueError, match=r"b has shape \(5, 2\); expected \(..., 6, k\)"):
        solve(b=torch.ones(5, 2))
    with pytest.raises(TypeError, match=r"values is torch.float16"):
        solve(values=values.half(), b=b.half())
    with pytest.raises(ValueError, match="levels 5 entries in 5 columns"):
        solve(levels=levels_of(layout_of(lower_triangle(5, 0.5), torch.int64), True))
    with pytest.raises(TypeError, match=r"levels has torch.int32 indices"):
        solve(levels=levels_of(layout_of(lower_triangle(6, 0.5)), True))


def test_shapes_that_do_not_fit_are_refused_even_by_the_raw_operator():
    if _native.ops() is None:
        pytest.skip(f"no native library: {_native.status()}")
    native = torch.ops.sparsetorch_native.solve_triangular
    a, values, b = LOWER, torch.ones(1, NNZ), torch.ones(1, 6, 1)
    with pytest.raises(RuntimeError, match="does not fit"):
        native(*a[:6], values[:, 1:], b, True, False)
    with pytest.raises(RuntimeError, match="does not fit"):
        native(*a[:6], values, b[:, 1:], True, False)
    with pytest.raises(RuntimeError, match="transposed pattern does not fit"):
        native(*a[:3], a.t_crow[1:], *a[4:6], values, b, True, False)
