"""All experts in one product: for GPUs, and for groups too short to be worth steps of a loop.

The functions have the form that `backend` describes; shapes as in `reference`. Sums over the
experts of a token are products of the gates' matrix, in a fixed order and without atomics. Of the
activation the square is kept, which the products read; its root costs nothing where it is taken.
"""

from torch import Tensor

from sparsetorch_kernels.csr import backend as csr
from sparsetorch_kernels.moe import products
from sparsetorch_kernels.moe.routes import Needs, Routes


def forward(
    x: Tensor, ptr: Tensor, up: Tensor, down: Tensor, routes: Routes | None, keep: bool
) -> tuple[Tensor, Tensor]:
    """See `backend.forward`."""
    x_RD = x if routes is None else x.index_select(0, routes.token)
    act = products.activate_(products.rows(x_RD, up.mT, ptr))
    y_RD = products.rows(act, down.mT, ptr)
    return y_RD if routes is None else _by_token(routes, routes.gate, y_RD), act


def backward(
    g: Tensor, x: Tensor, act: Tensor, ptr: Tensor, up: Tensor, down: Tensor,
    routes: Routes | None, needs: Needs,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """See `backend.backward`."""
    g_RD, gate = g.contiguous(), None
    if routes is not None:
        g_RD, gate = g.index_select(0, routes.token), routes.gate
    g_h = products.rows(g_RD, down, ptr)  # of act so far
    g_gate = products.gradient_(g_h, act, gate)
    g_down = g_up = g_x = None
    if needs.down:
        weighted = g_RD if gate is None else g_RD.mul_(gate.to(x.dtype)[:, None])
        g_down = products.outer(weighted, act, ptr)
    if needs.up:
        x_RD = x if routes is None else x.index_select(0, routes.token)
        g_up = products.outer(g_h, x_RD, ptr)
    if needs.x:
        g_x = products.rows(g_h, up, ptr)
        if routes is not None:
            g_x = _by_token(routes, routes.gate.new_ones(g_x.shape[0]), g_x)
    return g_x, g_up, g_down, g_gate if needs.gate else None


def _by_token(routes: Routes, weight: Tensor, rows: Tensor) -> Tensor:
    """The sum of each token's rows with their weights, added up in the dtype of the gates."""
    # The kernels for CUDA read rows of another dtype than the weights.
    terms = rows if rows.is_cuda else rows.to(weight.dtype)
    found = csr.spmm((routes.by_token,), weight[None], terms[None], short_rows=True)
    return found[0].to(rows.dtype)
