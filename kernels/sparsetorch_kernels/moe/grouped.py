"""All experts in one product: for GPUs, where a loop would leave most of the chip idle.

The functions have the form that `backend` describes; shapes as in `reference`. Sums over the
experts of a token are products of the gates' matrix, in a fixed order and without atomics.
"""

from torch import Tensor

from sparsetorch_kernels.csr import backend as csr
from sparsetorch_kernels.moe import products
from sparsetorch_kernels.moe.routes import Needs, Routes


def forward(
    x: Tensor, ptr: Tensor, up: Tensor, down: Tensor, routes: Routes | None
) -> tuple[Tensor, Tensor]:
    """See `backend.forward`."""
    x_RD = x if routes is None else x.index_select(0, routes.token)
    act = products.rows(x_RD, up.mT, ptr).relu_().square_()
    y_RD = products.rows(act, down.mT, ptr)
    return y_RD if routes is None else _by_token(routes, routes.gate, y_RD), act


def backward(
    g: Tensor, x: Tensor, act: Tensor, ptr: Tensor, up: Tensor, down: Tensor,
    routes: Routes | None, needs: Needs,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """See `backend.backward`."""
    g_RD, x_RD, g_gate = g.contiguous(), x, None
    if routes is not None:
        g_RD, x_RD = g.index_select(0, routes.token), x.index_select(0, routes.token)
    g_act = products.rows(g_RD, down, ptr)
    if routes is not None:
        gate = routes.gate.to(x.dtype)[:, None]
        if needs.gate:
            g_gate = (g_act * act).sum(1, dtype=routes.gate.dtype)
        g_RD, g_act = g_RD.mul_(gate), g_act.mul_(gate)
    g_down = products.outer(g_RD, act, ptr) if needs.down else None
    g_h = g_act.mul_(act.sqrt()).mul_(2)
    g_up = products.outer(g_h, x_RD, ptr) if needs.up else None
    g_x = products.rows(g_h, up, ptr) if needs.x else None
    if g_x is not None and routes is not None:
        g_x = _by_token(routes, None, g_x)
    return g_x, g_up, g_down, g_gate


def _by_token(routes: Routes, gate: Tensor | None, rows: Tensor) -> Tensor:
    """The sum of each token's rows, times their gates, in the dtype of the gates."""
    layout = routes.by_token
    if gate is None:
        gate = routes.gate.new_ones(layout.n_cols)
    return csr.spmm((layout,), gate[None], rows[None])[0].to(rows.dtype)
