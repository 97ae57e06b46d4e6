"""One token of a Mamba-2 mixer between its projections, in one pass on the CPU.

Suffixes: B batch, H heads, P head_dim, G groups, N d_state, C channels H P + 2 G N, I H P, K taps.
"""

import math

from torch import Tensor
from torch.nn.functional import softplus

from sparsetorch_kernels import _native
from sparsetorch_kernels._register import watched
from sparsetorch_kernels.ssd import checks
from sparsetorch_kernels.ssd.conv import causal_conv_step
from sparsetorch_kernels.ssd.ops import ssd_step


def mamba2_step(
    xBC: Tensor,
    dt: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    conv: Tensor,
    A_log: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    state: Tensor,
    groups: int,
    dt_limit: tuple[float, float] = (0.0, math.inf),
) -> tuple[Tensor, Tensor, Tensor]:
    """`causal_conv_step` and then `ssd_step`, of what a mixer's first projection has made.

    xBC (b, c), c = h p + 2 g n: channels of x, B and C side by side; dt (b, h), before its bias and
    softplus; conv_weight (c, k), conv_bias (c,) or None; conv (b, k - 1, c), the inputs before;
    A_log, D and dt_bias (h,), with A = -exp(A_log); state (b, h, p, n). Time steps are clamped to
    dt_limit. Dtypes as in `ssd_scan` (A_log, D, dt_bias and state may be float32 beside half).

    Returns y (b, h p), the inputs kept for the next step, and the new state. Differentiable by
    PyTorch's own rules. Raises TypeError or ValueError naming the argument that does not fit. One
    native pass in float32 and float64 on the CPU where nothing is differentiated.
    """
    arguments = xBC, dt, conv_weight, conv_bias, conv, A_log, D, dt_bias, state, groups
    if isinstance(xBC, Tensor) and xBC.is_cpu and xBC.dtype == checks.sum_dtype(xBC.dtype):
        native = (
            None if watched(*(t for t in arguments if isinstance(t, Tensor))) else _native.ops()
        )
        if native is not None:
            try:
                return native.mamba2_step(*arguments[:8], *dt_limit, state, groups)
            except (RuntimeError, TypeError):  # the checks below take longer than the step
                _check(*arguments)
                raise
    sizes = _check(*arguments)
    xBC, conv = causal_conv_step(xBC, conv_weight, conv_bias, conv)
    inner, n = sizes["h"] * sizes["p"], sizes["n"]
    x_BI, B_BGN, C_BGN = xBC.split([inner, groups * n, groups * n], dim=1)
    B_BGN, C_BGN = (part.unflatten(1, (groups, n)) for part in (B_BGN, C_BGN))
    x_BHP = x_BI.unflatten(1, (sizes["h"], sizes["p"]))
    wide = checks.sum_dtype(dt.dtype)
    dt_BH = softplus(dt.to(wide) + dt_bias.to(wide)).clamp(*dt_limit)
    A_H = -A_log.to(wide).exp()
    y_BHP, state = ssd_step(x_BHP, dt_BH, A_H, B_BGN, C_BGN, D.to(wide), state)
    return y_BHP.flatten(1), conv, state


def _check(
    xBC, dt, conv_weight, conv_bias, conv, A_log, D, dt_bias, state, groups: int
) -> checks.Sizes:
    sizes = checks.check_tensors(
        {
            "xBC": (xBC, "b c"),
            "dt": (dt, "b h"),
            "conv_weight": (conv_weight, "c k"),
            "conv_bias": (conv_bias, "c"),
            "conv": (conv, "b w c"),
            "A_log": (A_log, "h"),
            "D": (D, "h"),
            "dt_bias": (dt_bias, "h"),
            "state": (state, "b h p n"),
        },
        wide="conv_weight conv_bias A_log D dt_bias state",
    )
    if groups < 1 or sizes["h"] % groups:
        raise ValueError(f"groups is {groups}; expected a divisor of the {sizes['h']} heads")
    if sizes["w"] != sizes["k"] - 1:
        raise ValueError(f"conv holds {sizes['w']} inputs; expected k - 1 = {sizes['k'] - 1}")
    channels = sizes["h"] * sizes["p"] + 2 * groups * sizes["n"]
    if sizes["c"] != channels:
        raise ValueError(f"xBC has {sizes['c']} channels; expected h p + 2 g n = {channels}")
    return sizes
