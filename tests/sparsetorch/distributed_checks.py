"""What `test_distributed.py` has several processes do, each against the whole problem in one."""

from __future__ import annotations

import datetime
import os
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from random_matrices import dense, random_complex, random_csr, random_square
from torch import Tensor

from sparsetorch import CSRTensor, linalg, poisson
from sparsetorch.distributed import DistributedCSR, cg, dot, norm, shared, solve, total
from sparsetorch.precond import Jacobi, ic0

PAGE = Path(__file__).parents[2] / "docs" / "distributed.md"
SCRIPT = "the script of the documentation"
CHECKS: dict[str, Callable[[], None]] = {}
TOLERANCE: dict[torch.dtype, Any] = {
    torch.float16: {"rtol": 4e-3, "atol": 4e-3},
    torch.bfloat16: {"rtol": 3e-2, "atol": 3e-2},
}


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS[function.__name__] = function
    return function


def run_checks(rank: int, size: int, store: str, port: int, results: Any) -> None:
    """Run them all as one of the processes, and report what each raised."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=20),
    )
    reports = {}
    for name, function in CHECKS.items():
        try:
            function()
            reports[name] = ""
        except Exception:
            reports[name] = traceback.format_exc()
    dist.destroy_process_group()
    reports[SCRIPT] = run_script(rank, size, port)
    results.put((rank, reports))


def run_script(rank: int, size: int, port: int) -> str:
    """The documentation's script in the environment that torchrun makes; what it raised."""
    os.environ |= {"RANK": f"{rank}", "WORLD_SIZE": f"{size}"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    try:
        exec(compile(code, "script", "exec"), {})
    except Exception:
        return traceback.format_exc()
    return ""


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """The same numbers in every process."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(*shape, generator=generator, dtype=kind).to(dtype)


def uneven(n: int) -> Tensor:
    """Most rows in the last process, none in the first one of several."""
    size = dist.get_world_size()
    owner = torch.full((n,), size - 1)
    owner[: n // 4] = min(1, size - 1)
    return owner


def assert_parts(got: Tensor, whole: Tensor, rows: slice) -> None:
    torch.testing.assert_close(got, whole[rows], **TOLERANCE.get(got.dtype, {}))


def summed(part: Tensor | None, like: Tensor) -> Tensor:
    """The sum of what the processes have."""
    return total(torch.zeros_like(like) if part is None else part.detach().clone())


def compare(A: CSRTensor, columns: tuple[int, ...], partition: Tensor | None = None) -> None:
    """A @ x and A.T @ y, and their gradients, against the dense products."""
    D = DistributedCSR.from_global(A, partition=partition)
    for matrix, whole, seed in ((D, dense(A), 1), (D.T, dense(A).T, 2)):
        assert matrix.shape == whole.shape
        x = draw(whole.shape[1], *columns, seed=seed, dtype=A.dtype).requires_grad_()
        weights = draw(whole.shape[0], *columns, seed=3, dtype=A.dtype)
        local = x.detach()[matrix.cols].clone().requires_grad_()
        y = matrix @ local
        assert_parts(y, whole @ x, matrix.rows)
        gradients = torch.autograd.grad(
            (y * weights[matrix.rows]).sum().abs(), (A.values, local), retain_graph=True
        )
        # The loss of each process counts: their moduli add up to no modulus of the whole.
        parts = [(whole @ x * weights)[rows].sum().abs() for rows in blocks(matrix)]
        wanted = torch.autograd.grad(sum(parts, parts[0] * 0), (A.values, x), retain_graph=True)
        got = total(gradients[0])
        torch.testing.assert_close(got, wanted[0], **TOLERANCE.get(A.dtype, {}))
        assert_parts(gradients[1], wanted[1], matrix.cols)


def blocks(matrix: DistributedCSR) -> list[slice]:
    """The rows of every process."""
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (matrix.rows.start, matrix.rows.stop))
    return [slice(*part) for part in parts]


@check
def products_and_their_gradients() -> None:
    for n, m, density in ((9, 9, 0.4), (13, 7, 0.3), (2, 8, 0.6), (1, 1, 1.0), (6, 6, 0.0)):
        for columns in ((), (3,), (1,), (0,)):
            compare(random_csr(n, m, density, seed=n), columns)
    compare(random_csr(0, 0), ())
    compare(random_csr(0, 4), (2,))


@check
def uneven_and_empty_blocks() -> None:
    compare(random_csr(12, 12, 0.3, seed=5), (2,), uneven(12))
    A = random_csr(12, 5, 0.5, seed=6)
    D = DistributedCSR.from_global(
        A, partition=uneven(12), column_partition=torch.zeros(5, dtype=torch.int32)
    )
    x = draw(5)
    assert_parts(D @ x[D.cols], dense(A) @ x, D.rows)
    assert D.cols == slice(0, 5) if dist.get_rank() == 0 else D.cols == slice(5, 5)


@check
def every_dtype() -> None:
    for dtype in (
        *(torch.float16, torch.bfloat16, torch.float32),
        *(torch.complex64, torch.complex128),
    ):
        compare(random_csr(8, 8, 0.4, seed=2, dtype=dtype), (2,))
    compare(random_csr(8, 8, 0.4, seed=2, index_dtype=torch.int64), ())


@check
def local_rows_make_the_same_matrix() -> None:
    A = random_csr(11, 11, 0.3, seed=4)
    D = DistributedCSR.from_global(A)
    mine = A.detach()[D.rows]
    assert isinstance(mine, CSRTensor)
    mine.requires_grad_()
    L = DistributedCSR.from_local_rows(mine)
    assert (L.rows, L.cols, L.shape) == (D.rows, D.cols, D.shape)
    x = draw(11)
    torch.testing.assert_close(L @ x[L.cols], D @ x[D.cols])
    (L @ x[L.cols]).square().sum().backward()
    (gradient,) = torch.autograd.grad((dense(A) @ x).square().sum(), A.values)
    first, last = (int(A.pattern.crow[row]) for row in (D.rows.start, D.rows.stop))
    torch.testing.assert_close(mine.values.grad, gradient[first:last])


@check
def second_derivatives() -> None:
    A = random_csr(9, 9, 0.4, seed=3)
    D = DistributedCSR.from_global(A)
    x = draw(9, seed=8).requires_grad_()
    local = x.detach()[D.cols].clone().requires_grad_()

    def second(matrix: Any, x: Tensor) -> tuple[Tensor, ...]:
        energy = ((matrix.T @ (matrix @ x) ** 2) ** 3).sum()
        # Of the values, each process has the slopes of its own rows, and zeros.
        of_values, of_x = torch.autograd.grad(energy, (A.values, x), create_graph=True)
        return torch.autograd.grad((of_values**2).sum() + (of_x**2).sum(), (A.values, x))

    got, wanted = second(D, local), second(dense(A), x)
    assert wanted[0].abs().max() > 1e-3
    torch.testing.assert_close(total(got[0]), wanted[0])
    assert_parts(got[1], wanted[1], D.cols)


@check
def forward_mode_and_vmap() -> None:
    A = random_csr(9, 9, 0.4, seed=3).detach()
    D, W = DistributedCSR.from_global(A), dense(A)
    x, dx, d_values = draw(9), draw(9, seed=1), draw(A.nnz, seed=2)
    dW = dense(A.with_values(d_values))
    dD = DistributedCSR.from_global(A.with_values(d_values))
    for matrix, whole, tangent in ((D, W, dW), (D.T, W.T, dW.T)):

        def product(values, x, matrix=matrix):
            return matrix.with_values(values) @ x

        own = matrix.cols
        value, derivative, *_ = torch.func.jvp(
            product, (matrix.values, x[own]), (dD.values, dx[own])
        )
        assert_parts(value, whole @ x, matrix.rows)
        assert_parts(derivative, tangent @ x + whole @ dx, matrix.rows)
        many = draw(9, 4, seed=4)
        mapped = torch.vmap(lambda column, m=matrix: m @ column, 1, 1)(many[own])
        assert_parts(mapped, whole @ many, matrix.rows)

    def energy(x_local: Tensor) -> Tensor:
        return ((D @ x_local) ** 3).sum()

    hessian_x = torch.func.jvp(torch.func.grad(energy), (x[D.cols],), (dx[D.cols],))[1]
    assert_parts(hessian_x, W.T @ (6 * (W @ x) * (W @ dx)), D.cols)


@check
def sums_over_processes() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    x, y = draw(7, 2), draw(7, 2, seed=1)
    own = slice(rank * 7 // size, (rank + 1) * 7 // size)
    local, other = x[own].clone().requires_grad_(), y[own].clone().requires_grad_()
    whole, counterpart = x.clone().requires_grad_(), y.clone().requires_grad_()

    def loss(a: Tensor, b: Tensor, dot: Any, norm: Any) -> Tensor:
        return (dot(a, b) ** 2 / norm(a) + dot(a[:, 0], b[:, 1]).sin()).sum()

    def one_dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(0)

    def one_norm(a: Tensor) -> Tensor:
        return torch.linalg.vector_norm(a, dim=0)

    got, wanted = loss(local, other, dot, norm), loss(whole, counterpart, one_dot, one_norm)
    torch.testing.assert_close(got, wanted)
    slopes = torch.autograd.grad(got, (local, other), create_graph=True)
    wanted_slopes = torch.autograd.grad(wanted, (whole, counterpart), create_graph=True)
    for s, w in zip(slopes, wanted_slopes):
        assert_parts(s, w, own)
    curved = torch.autograd.grad(dot(slopes[0], slopes[1]).sum(), (local, other))
    wanted_curved = torch.autograd.grad(
        one_dot(wanted_slopes[0], wanted_slopes[1]).sum(), (whole, counterpart)
    )
    for s, w in zip(curved, wanted_curved):
        assert_parts(s, w, own)
    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(norm(zero), zero)
    assert torch.equal(slope, torch.zeros_like(zero))
    z = draw(4, dtype=torch.complex128)
    torch.testing.assert_close(dot(z, z), size * torch.vdot(z, z))
    _, tangent, *_ = torch.func.jvp(lambda a: dot(a, y[own]), (x[own],), (x[own],))
    torch.testing.assert_close(tangent, one_dot(x, y))


@check
def a_shared_parameter_gets_the_gradient_of_the_whole() -> None:
    A, x = random_csr(9, 9, 0.4, seed=3).detach(), draw(9)
    theta = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)

    def values_of(stored: Tensor, theta: Tensor) -> Tensor:
        return theta[0] * stored + torch.sin(theta[1] * stored)

    whole = dense(A.with_values(values_of(A.values, theta)))
    (wanted,) = torch.autograd.grad((whole @ x).norm(), theta)
    D = DistributedCSR.from_global(A)
    D = D.with_values(values_of(D.values, shared(theta)))
    (got,) = torch.autograd.grad(norm(D @ x[D.cols]), theta)
    torch.testing.assert_close(got, wanted)


@check
def the_halo_of_a_grid_is_its_border() -> None:
    n = 6 * dist.get_world_size()
    A = poisson(n, 10, dtype=torch.float64)
    D = DistributedCSR.from_global(A)
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    neighbours = (rank > 0) + (rank < last)
    assert D.n_halo == D.n_sent == 10 * neighbours
    assert D.blocks.pattern.shape == (60, 60 + 10 * neighbours)
    block = D.diagonal_block()
    torch.testing.assert_close(block.to_dense(), A.to_dense()[D.rows, D.rows])
    torch.testing.assert_close(D.T.diagonal_block().to_dense(), block.to_dense().T)


PRECONDITIONERS: list[Callable[[CSRTensor], Any]] = [lambda A: None, Jacobi, ic0]


@check
def conjugate_gradients_take_the_steps_of_one_process() -> None:
    A = poisson(8, 6, dtype=torch.float64)
    A = A.add_diagonal(torch.linspace(0, 3, 48, dtype=torch.float64))
    D, b = DistributedCSR.from_global(A), draw(48, 2)
    for make in PRECONDITIONERS[:2]:  # the third is another one in blocks
        one = linalg.cg(A, b, preconditioner=make(A))
        calls: list[int] = []
        many = cg(
            D,
            b[D.rows],
            preconditioner=make(D.diagonal_block()),
            callback=lambda iteration, _, calls=calls: calls.append(iteration),
        )
        assert many.converged
        assert abs(many.iterations - one.iterations) <= 1
        assert max(calls) == many.iterations
        assert_parts(many.x, one.x, D.rows)
    again = cg(D, b[D.rows], x0=torch.linalg.solve(dense(A), b)[D.rows])
    assert again.iterations == 0
    none = cg(D, torch.zeros_like(b[D.rows]))
    assert none.converged
    assert not none.x.any()


@check
def solves_and_their_derivatives() -> None:
    A = random_square(10, seed=3, symmetric=True)
    b = draw(10, 2).requires_grad_()
    D, whole = DistributedCSR.from_global(A), torch.linalg.solve(dense(A), b)
    wanted = torch.autograd.grad((whole**3).sum(), (A.values, b), create_graph=True)
    wanted_second = torch.autograd.grad((wanted[1] ** 2).sum(), (A.values, b), retain_graph=True)
    assert wanted_second[0].abs().max() > 1e-3
    for make in PRECONDITIONERS:
        local = b.detach()[D.rows].clone().requires_grad_()
        options: Any = {"preconditioner": make(D.diagonal_block().detach()), "rtol": 1e-12}
        x = solve(D, local, **options)
        assert_parts(x, whole, D.rows)
        got = torch.autograd.grad(
            (x**3).sum(), (A.values, local), create_graph=True, retain_graph=True
        )
        torch.testing.assert_close(total(got[0].detach()), wanted[0])
        assert_parts(got[1], wanted[1], D.rows)
    second = torch.autograd.grad((got[1] ** 2).sum(), (A.values, local))
    torch.testing.assert_close(total(second[0]), wanted_second[0])
    assert_parts(second[1], wanted_second[1], D.rows)
    _, tangent, *_ = torch.func.jvp(
        lambda v, c: solve(D.with_values(v), c, **options),
        (D.values.detach(), local.detach()),
        (2 * D.values.detach(), 3 * local.detach()),
    )
    assert_parts(tangent, whole, D.rows)  # A^-1 (3 b - 2 A x)

    one = torch.ones((), dtype=torch.float64)

    def scaled(t: Tensor) -> Tensor:
        return solve(D.with_values((1 + t) * D.values.detach()), local.detach(), **options)

    def slope(t: Tensor) -> Tensor:
        return torch.func.jvp(scaled, (t,), (one,))[1]

    _, second_slope, *_ = torch.func.jvp(slope, (0 * one,), (one,))
    assert_parts(second_slope, 2 * whole, D.rows)  # of x / (1 + t)


@check
def second_derivatives_in_the_values_of_a_solve() -> None:
    A = random_square(8, seed=3, symmetric=True)
    b, W = draw(8), dense(A)
    D = DistributedCSR.from_global(A)

    def slope(x: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad((x**2).sum(), A.values, create_graph=True)
        return gradient

    def curvature(gradient: Tensor) -> Tensor:
        (result,) = torch.autograd.grad((gradient**2).sum(), A.values)
        return result

    got = curvature(slope(solve(D, b[D.rows], rtol=1e-13)))
    wanted = curvature(slope(torch.linalg.solve(W, b)))
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(total(got), wanted)


@check
def hermitian_systems() -> None:
    A = random_complex(10, "positive", seed=2)
    b = draw(10, 2, dtype=torch.complex128).requires_grad_()
    D, whole = DistributedCSR.from_global(A), torch.linalg.solve(dense(A), b)
    local = b.detach()[D.rows].clone().requires_grad_()
    M = Jacobi(D.diagonal_block().detach())
    x = solve(D, local, preconditioner=M, rtol=1e-13)
    assert_parts(x, whole, D.rows)
    weights = draw(10, 2, seed=5, dtype=torch.complex128)
    got = torch.autograd.grad((x * weights[D.rows]).real.sum(), (A.values, local))
    wanted = torch.autograd.grad((whole * weights).real.sum(), (A.values, b))
    torch.testing.assert_close(total(got[0]), wanted[0])
    assert_parts(got[1], wanted[1], D.rows)
    half = DistributedCSR.from_global(poisson(3, 3, dtype=torch.float16))
    ones = torch.ones(9, dtype=torch.float16)[half.rows]
    with pytest.raises(TypeError, match="A: expected float32, float64, complex64 or complex128"):
        cg(half, ones)


@check
def failures_are_the_same_everywhere() -> None:
    A = poisson(6, 6, dtype=torch.float64)
    D, b = DistributedCSR.from_global(A), draw(36)
    with pytest.raises(linalg.SolveError, match="maxiter after 2 iterations"):
        solve(D, b[D.rows], maxiter=2)
    solution = solve(D, b[D.rows], maxiter=2, full_output=True)
    assert solution.status is linalg.Status.MAXITER
    assert solution.residuals == pytest.approx(linalg.cg(A, b, maxiter=2).residuals)
    negative = D.with_values(-D.values)
    assert cg(negative, b[D.rows]).status is linalg.Status.INDEFINITE
    b[0] = torch.nan  # in one process
    with pytest.raises(ValueError, match="NaN or infinity in some process"):
        cg(D, b[D.rows])
    wide = DistributedCSR.from_global(random_csr(4, 6).detach())
    with pytest.raises(ValueError, match="A: expected a square matrix with one partition"):
        cg(wide, draw(4)[wide.rows])


@check
def bad_arguments_are_named() -> None:
    A = random_csr(6, 6).detach()
    D = DistributedCSR.from_global(A)
    own = D.rows.stop - D.rows.start
    wrong: tuple[tuple[Any, type[Exception], str], ...] = (
        (torch.ones(own + 1).double(), ValueError, rf"x: expected \({own},\) or \({own}, k\)"),
        (torch.ones(own), TypeError, "x: expected torch.float64"),
        ([1.0], TypeError, "x: expected a tensor, got list"),
        (torch.ones(own, device="meta").double(), ValueError, "x: expected on cpu"),
    )
    for operand, error, message in wrong:
        with pytest.raises(error, match=message):
            D.matmul(cast(Any, operand))
    with pytest.raises(ValueError, match="values: expected"):
        D.with_values(torch.ones(1000))
    with pytest.raises(ValueError, match="values: expected on cpu"):
        D.with_values(torch.ones(len(D.values), device="meta"))
    last = dist.get_world_size() - 1
    descending = torch.arange(6).flip(0).clamp(max=last)
    for partition, message in (
        (torch.zeros(5, dtype=torch.int64), r"partition: expected the process of each of the 6"),
        (descending, r"partition: expected the rows of each process together.*argsort"),
        (torch.full((6,), 7), rf"partition: expected processes from 0 to {last}, got 7"),
        (torch.zeros(6), "partition: expected an int32 or int64 tensor, got torch.float32"),
        ([0, 1], "partition: expected an int32 or int64 tensor, got list"),
    ):
        with pytest.raises(ValueError, match=message):
            DistributedCSR.from_global(A, partition=partition)  # pyright: ignore
    with pytest.raises(TypeError, match="A: expected a CSRTensor, got Tensor"):
        DistributedCSR.from_global(dense(A))  # pyright: ignore
    with pytest.raises(ValueError, match="A: expected one matrix, got a batch"):
        DistributedCSR.from_global(random_csr(6, 6, batch=(2,)))


@check
def an_error_in_one_process_stops_all() -> None:
    rank = dist.get_rank()
    A = random_csr(6, 6).detach()
    partition = torch.zeros(6 - rank, dtype=torch.int64)
    message = "expected the process of each" if rank else "process 1 of the group: partition"
    with pytest.raises(ValueError, match=message):
        DistributedCSR.from_global(A, partition=partition)
    with pytest.raises(ValueError, match="expected one matrix and one partition in all"):
        DistributedCSR.from_global(random_csr(6 + rank, 6).detach())
    with pytest.raises(ValueError, match="expected the columns and the dtype of process 0"):
        DistributedCSR.from_local_rows(random_csr(3, 6 + rank).detach())


@check
def a_group_may_be_a_part() -> None:
    members = [0, dist.get_world_size() - 1]
    group: Any = dist.new_group(members)
    A, x = random_csr(7, 7, 0.5, seed=9).detach(), draw(7)
    if dist.get_rank() not in members:
        with pytest.raises(ValueError, match="this process does not belong to it"):
            DistributedCSR.from_global(A, group)
        return
    D = DistributedCSR.from_global(A, group)
    assert_parts(D @ x[D.cols], dense(A) @ x, D.rows)
    torch.testing.assert_close(norm(x[D.cols], group), x.norm())
