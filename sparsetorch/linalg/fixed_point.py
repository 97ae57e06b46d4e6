"""Fixed points z = f(z, theta), and derivatives through them without the iteration.

With J = df/dz at the fixed point, the adjoint of a gradient g and the tangent for dtheta solve

    w = g + J^T w,    gradient of theta = (df/dtheta)^T w;        dz = J dz + (df/dtheta) dtheta

(Christianson 1994; Bai, Kolter and Koltun 2019). Both are fixed points again, found by the same
iteration and differentiable in the same way, so derivatives of every order follow. A failure of
one of them raises: a gradient is never zero because an iteration did not converge.

A complex z is a pair of real ones here, in what J and J^T are and to the iterations: J is linear
over the real numbers only where f conjugates, and then complex weights would not accelerate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from sparsetorch.checks import check_count
from sparsetorch.linalg.anderson import Anderson
from sparsetorch.linalg.batched_gradients import map_gradients
from sparsetorch.linalg.columns import exact_scale
from sparsetorch.linalg.dtypes import DEFAULT_RTOL, names
from sparsetorch.linalg.full_precision import full_precision
from sparsetorch.linalg.gmres import gmres
from sparsetorch.linalg.krylov import GROWTH_LIMIT, Callback, check_tolerances
from sparsetorch.linalg.solution import Solution, Status
from sparsetorch.structure import refuse_compiled
from sparsetorch_kernels import nestable

Map = Callable[..., Tensor]


@overload
def fixed_point(
    f: Map, z0: Tensor, *params: Tensor, full_output: Literal[True], **options: Any
) -> Solution: ...
@overload
def fixed_point(
    f: Map, z0: Tensor, *params: Tensor, full_output: Literal[False] = ..., **options: Any
) -> Tensor: ...
def fixed_point(f: Map, z0: Tensor, *params: Tensor, full_output: bool = False, **options: Any):
    """Find z = f(z, *params) from z0, differentiably in `params`, in reverse and forward mode.

    f: (z, *params) -> a tensor like z, made of differentiable operations that `torch.func` takes,
    such as those of CSRTensor; or an nn.Module, whose parameters are added to `params`. Anything
    else that f reads must not require gradients. z0: any shape, float32, float64, complex64 or
    complex128; the result does not depend on it. A complex z is solved for as its real and
    imaginary parts, so that f may conjugate it or take absolute values. Options:

    solver: "anderson" (default; on linear maps equivalent to GMRES with a window, so that f need
    not contract) or "picard" (z <- f(z), which converges as |J|^k). window: of Anderson, 5.
    adjoint: how the linear equations of adjoints and tangents are solved: by the same solver
    (default), or by "gmres" without restarts, which takes the fewest products with J and keeps a
    vector for each of them; it stops at a residual of rtol times the norm of the right-hand side.
    rtol, atol: stop at |f(z) - z| <= max(rtol |z|, atol), rtol 1e-6 in single and 1e-10 in double
    precision by default; a fixed point at zero needs atol. maxiter: 1000. callback: called with
    (iteration, residual norm), not by adjoints and tangents; these use the same rtol and maxiter.

    Returns z like z0, or with `full_output` the Solution, whatever its status. Under torch.vmap
    members are solved one after the other. Nearest equivalents: `scipy.optimize.fixed_point`, and
    `jaxopt.AndersonAcceleration`. Anderson (1965); Walker and Ni (2011).

    Raises:
        SolveError: the iteration, or later that of an adjoint or tangent, failed.
        ValueError: f returns another shape, dtype or device, or reads a tensor that requires a
            gradient and is not among `params`; an option out of range.
        TypeError: z0 is not a tensor of single or double precision, a parameter is not a tensor, or
            an option that should be a number is not.
    """
    refuse_compiled("fixed_point")
    _check(f, z0, params)
    if isinstance(f, nn.Module):
        f, params = _functional(f, params)
    iteration = _checked_iteration(options)
    record: list[Solution] | None = [] if full_output else None
    z = _FixedPoint.apply(f, iteration, record, z0.detach(), *params)
    return z if record is None else replace(record[0], x=z)


@dataclass(frozen=True)
class Iteration:
    """How to find a fixed point, and when it is found."""

    solver: str = "anderson"
    window: int = 5
    rtol: float | None = None
    atol: float = 0.0
    maxiter: int = 1000
    callback: Callback | None = None
    adjoint: str | None = None

    @property
    def again(self) -> Iteration:
        """The one for adjoints and tangents, whose size atol does not know."""
        return replace(self, callback=None, atol=0.0, solver=self.adjoint or self.solver)

    def run(self, step: Callable[[Tensor], Tensor], z: Tensor) -> Solution:
        """Iterate from z; no gradients."""
        if z.is_complex():
            solution = self.run(_by_parts(step), _parts(z))
            return replace(solution, x=torch.view_as_complex(solution.x))
        if self.solver == "gmres":
            return self._by_gmres(step, z)
        rtol = DEFAULT_RTOL[z.dtype] if self.rtol is None else self.rtol
        mixing = Anderson(self.window) if self.solver == "anderson" else None
        residuals: list[float] = []
        while True:
            image = step(z)
            change = image - z
            residual, size = _norms(change, z)
            residuals.append(residual)
            if self.callback is not None:
                self.callback(len(residuals) - 1, residual)
            status = self._status(residuals, max(rtol * size, self.atol))
            if status is not None:
                detail = "" if status is Status.CONVERGED else f"fixed point by {self.solver}"
                return Solution(z, status, len(residuals) - 1, residuals, detail)
            z = image if mixing is None else mixing.next(z, change)

    def _by_gmres(self, step: Callable[[Tensor], Tensor], z: Tensor) -> Solution:
        """The fixed point of an affine map c + L z: the solution of (I - L) z = c."""
        constant = step(torch.zeros_like(z))
        scale = exact_scale(constant)  # for L w is a difference, which a larger c would swallow

        def remainder(w: Tensor) -> Tensor:
            return w - ((step(scale * w.view_as(z)) - constant) / scale).flatten()

        b, x0 = (t.flatten() / scale for t in (constant, z))
        solution = gmres(remainder, b, x0=x0, rtol=self.rtol, maxiter=self.maxiter)
        residuals = [scale * residual for residual in solution.residuals]
        return replace(solution, x=scale * solution.x.view_as(z), residuals=residuals)

    def _status(self, residuals: list[float], tolerance: float) -> Status | None:
        if residuals[-1] <= tolerance:
            return Status.CONVERGED
        if not residuals[-1] <= GROWTH_LIMIT * max(residuals[0], tolerance):  # NaN, too
            return Status.DIVERGED
        return Status.MAXITER if len(residuals) > self.maxiter else None


def _parts(z: Tensor) -> Tensor:
    return torch.view_as_real(z.resolve_conj())


def _by_parts(step: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A map of complex tensors as one of their real and imaginary parts."""
    return lambda z: _parts(step(torch.view_as_complex(z.contiguous())))


def _norms(*tensors: Tensor) -> list[float]:
    """Their 2-norms, also where squares of entries are not in the range of the dtype."""
    found = torch.stack([t.norm() for t in tensors]).tolist()
    limits = torch.finfo(tensors[0].dtype)
    low, high = math.sqrt(limits.tiny) / limits.eps, math.sqrt(limits.max)
    return [n if low <= n <= high else _scaled_norm(t) for n, t in zip(found, tensors)]


def _scaled_norm(t: Tensor) -> float:
    scale = exact_scale(t)
    return scale * float((t / scale).norm())


class _FixedPoint(torch.autograd.Function):
    """z = f(z, *params). With a record, the outcome goes there; without one, failures raise."""

    @staticmethod
    @full_precision
    def forward(
        f: Map, iteration: Iteration, record: list[Solution] | None, z0: Tensor, *params: Tensor
    ) -> Tensor:
        constants = [p.detach() for p in params]
        with torch.no_grad():
            solution = iteration.run(_step(f, z0, constants), z0)
        if not isinstance(f, Adjoint | Tangent):
            _refuse_hidden_gradients(f, solution.x, constants)
        if record is None:
            return solution.checked().x.clone()
        record.append(solution)
        return solution.x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.f, ctx.iteration, _, _, *params = inputs
        ctx.save_for_backward(output, *params)
        ctx.save_for_forward(output, *params)

    @staticmethod
    @full_precision
    def backward(ctx: Any, *grads: Tensor):
        z, *params = ctx.saved_tensors
        needed = ctx.needs_input_grad[4:]
        adjoint, again = Adjoint(ctx.f), ctx.iteration.again

        def gradients(g: Tensor) -> tuple[Tensor, ...]:
            w = _FixedPoint.apply(adjoint, again, None, g.detach(), g, z, *params)
            pull = torch.func.vjp(partial(ctx.f, z), *params)[1]
            return tuple(grad.resolve_conj() for grad, need in zip(pull(w), needed) if need)

        found = iter(map_gradients(gradients, *grads))
        return None, None, None, None, *(next(found) if need else None for need in needed)

    @staticmethod
    @nestable
    @full_precision
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        z, *params = ctx.saved_tensors
        moved = [torch.zeros_like(p) if t is None else t for p, t in zip(params, tangents[4:])]
        start = torch.zeros_like(z).detach()
        tangent = Tangent(ctx.f)
        return _FixedPoint.apply(tangent, ctx.iteration.again, None, start, z, *params, *moved)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, f: Map, iteration: Iteration, record: Any, *tensors: Any):
        if record is not None:
            raise ValueError("full_output: not available under torch.vmap")
        members = [
            _FixedPoint.apply(
                f,
                iteration,
                None,
                *(t if d is None else t.select(d, i) for t, d in zip(tensors, in_dims[3:])),
            )
            for i in range(info.batch_size)
        ]
        z0 = tensors[0] if in_dims[3] is None else tensors[0].movedim(in_dims[3], 0)
        empty = z0.new_empty(0, *(z0.shape if in_dims[3] is None else z0.shape[1:]))
        return (torch.stack(members) if members else empty), 0


@dataclass(frozen=True)
class Adjoint:
    """The map w -> g + J^T w, with parameters (g, z, *params); linear in w."""

    f: Map

    def __call__(self, w: Tensor, g: Tensor, z: Tensor, *params: Tensor) -> Tensor:
        """The image of w."""
        return self.at(g, z, *params)(w)

    def at(self, g: Tensor, z: Tensor, *params: Tensor) -> Callable[[Tensor], Tensor]:
        """The map for these parameters; f is evaluated once."""
        pull = torch.func.vjp(lambda z: self.f(z, *params), z)[1]
        return lambda w: g + pull(w)[0]


@dataclass(frozen=True)
class Tangent:
    """The map y -> J y + (df/dtheta) dtheta, with parameters (z, *params, *dparams)."""

    f: Map

    def __call__(self, y: Tensor, z: Tensor, *both: Tensor) -> Tensor:
        """The image of y."""
        return self.at(z, *both)(y)

    def at(self, z: Tensor, *both: Tensor) -> Callable[[Tensor], Tensor]:
        """The map for these parameters; f is evaluated once.

        PyTorch does not nest forward mode in itself: J y is the adjoint of w -> J^T w instead.
        """
        count = len(both) // 2
        params, moved = both[:count], both[count:]
        pull = torch.func.vjp(self.f, z, *params)[1]
        push = torch.func.vjp(pull, torch.zeros_like(z))[1]
        return lambda y: push((y, *moved))[0]


def _step(f: Map, z0: Tensor, params: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """The map for fixed parameters, its results checked."""
    step = f.at(*params) if isinstance(f, Adjoint | Tangent) else lambda z: f(z, *params)

    def checked(z: Tensor) -> Tensor:
        image: Any = step(z)
        if not isinstance(image, Tensor) or (image.shape, image.dtype, image.device) != (
            z.shape,
            z.dtype,
            z.device,
        ):
            got = type(image).__name__
            if isinstance(image, Tensor):
                got = f"{image.dtype} of shape {tuple(image.shape)} on {image.device}"
            raise ValueError(
                f"f: expected {z.dtype} of shape {tuple(z.shape)} on {z.device} like z, got {got}"
            )
        return image

    return checked


def _refuse_hidden_gradients(f: Map, z: Tensor, params: Sequence[Tensor]) -> None:
    """Raise ValueError if f reads a tensor that requires a gradient and is not its argument."""
    with torch.enable_grad():
        image = f(z.detach(), *params)
    hidden = is_functorch_wrapped_tensor(image) and not is_functorch_wrapped_tensor(z)
    if image.requires_grad or hidden:
        raise ValueError(
            "f: reads a tensor that requires a gradient (or is being transformed) and is not among "
            "params, so it would get none; write f(z, tensor) and call fixed_point(f, z0, tensor), "
            "or detach it"
        )


def _functional(module: nn.Module, params: tuple) -> tuple[Map, tuple]:
    """A module as a function of its parameters, which come behind the others."""
    named = dict(module.named_parameters())
    names, count = list(named), len(params)

    def f(z: Tensor, *everything: Tensor) -> Tensor:
        weights = dict(zip(names, everything[count:]))
        return torch.func.functional_call(module, weights, (z, *everything[:count]))

    return f, (*params, *named.values())


def _check(f: Any, z0: Any, params: tuple) -> None:
    if not callable(f):
        raise TypeError(f"f: expected a callable (z, *params) -> z, got {type(f).__name__}")
    if not isinstance(z0, Tensor) or z0.dtype not in DEFAULT_RTOL:
        kind = z0.dtype if isinstance(z0, Tensor) else type(z0).__name__
        raise TypeError(f"z0: expected a tensor of {names(DEFAULT_RTOL)}, got {kind}")
    for i, param in enumerate(params):
        if not isinstance(param, Tensor):
            raise TypeError(
                f"params: expected tensors, got {type(param).__name__} as number {i}; for a "
                "CSRTensor pass A.values, and A.with_values(values) within f"
            )


def _checked_iteration(options: dict[str, Any]) -> Iteration:
    iteration = Iteration(**options)
    check_tolerances(iteration.rtol, iteration.atol)
    if iteration.solver not in ("anderson", "picard"):
        raise ValueError(f"solver: expected 'anderson' or 'picard', got {iteration.solver!r}")
    if iteration.adjoint not in (None, "gmres"):
        raise ValueError(f"adjoint: expected 'gmres' or None, got {iteration.adjoint!r}")
    return replace(
        iteration,
        window=check_count("window", iteration.window, "iterate"),
        maxiter=check_count("maxiter", iteration.maxiter, "iterations", least=0),
    )
