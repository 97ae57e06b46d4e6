"""One token of a Mamba-2 mixer in one pass, beside convolution and scan."""

from typing import Any

import pytest
import torch
from torch.nn.functional import softplus

from sparsetorch_kernels import causal_conv, mamba2_step, ssd_scan

# batch, heads, groups, head_dim, d_state, taps: vectors with a rest, none, several groups
SIZES = {
    "a rest": (3, 6, 2, 5, 19, 4),
    "short": (2, 2, 1, 3, 1, 2),
    "one tap": (1, 4, 4, 8, 16, 1),
    "several threads": (4, 8, 2, 32, 64, 4),
}
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 2e-2}
NAMES = ("xBC", "dt", "conv_weight", "conv_bias", "conv", "A_log", "D", "dt_bias", "state")


def draw(size, dtype) -> dict[str, Any]:
    """Arguments, of which the first two are parts of wider rows, as a projection leaves them."""
    batch, heads, groups, width, n, taps = size
    channels = heads * width + 2 * groups * n
    wide = torch.promote_types(dtype, torch.float32)
    row = torch.randn(batch, channels + heads + 3, dtype=dtype)
    return {
        "xBC": row[:, 1 : channels + 1],
        "dt": row[:, channels + 1 : channels + 1 + heads],
        "conv_weight": torch.randn(channels, taps, dtype=dtype),
        "conv_bias": torch.randn(channels, dtype=dtype),
        "conv": torch.randn(batch, taps - 1, channels, dtype=dtype),
        "A_log": torch.randn(heads, dtype=wide),
        "D": torch.randn(heads, dtype=wide),
        "dt_bias": torch.randn(heads, dtype=wide),
        "state": torch.randn(batch, heads, width, n, dtype=wide),
        "groups": groups,
    }


def expected(a: dict[str, Any], limit=(0.0, torch.inf)):
    """By the convolution and the scan of one token."""
    _, heads, width, n = a["state"].shape
    conv = (a["conv_weight"], a["conv_bias"], a["conv"])
    xBC, kept = causal_conv(a["xBC"][:, None], *conv)
    x, B, C = xBC.split([heads * width, a["groups"] * n, a["groups"] * n], -1)
    dt = softplus(a["dt"].to(a["dt_bias"].dtype)[:, None] + a["dt_bias"]).clamp(*limit)
    B, C = (part.unflatten(-1, (a["groups"], n)) for part in (B, C))
    x = x.unflatten(-1, (heads, width))
    y, state = ssd_scan(x, dt, -a["A_log"].exp(), B, C, a["D"], a["state"])
    return y.flatten(1), kept, state


@pytest.mark.parametrize("size", SIZES.values(), ids=list(SIZES))
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_a_step_is_convolution_and_scan_of_one_token(size, dtype):
    torch.manual_seed(0)
    arguments = draw(size, dtype)
    before = {name: arguments[name].clone() for name in NAMES}
    with torch.no_grad():
        got = mamba2_step(**arguments)
    for have, want in zip(got, expected(arguments)):
        assert (have.shape, have.dtype) == (want.shape, want.dtype)
        error = (have - want).double().norm() / want.double().norm().clamp(min=1e-30)
        assert float(error) < TOLERANCE[dtype]
    assert all(torch.equal(arguments[name], before[name]) for name in NAMES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_are_those_of_convolution_and_scan(dtype):
    torch.manual_seed(0)
    arguments = draw(SIZES["a rest"], dtype)
    for name in NAMES:
        arguments[name] = arguments[name].detach().requires_grad_()
    leaves = [arguments[name] for name in NAMES]
    got, want = mamba2_step(**arguments), expected(arguments)
    grads = [torch.randn_like(t) for t in want]
    pairs = zip(*(torch.autograd.grad(outputs, leaves, grads) for outputs in (got, want)))
    for name, (have, right) in zip(NAMES, pairs):
        assert float((have - right).norm() / right.norm()) < 20 * TOLERANCE[dtype], name


def test_time_steps_are_clamped_and_extremes_are_torchs():
    torch.manual_seed(0)
    arguments = draw(SIZES["a rest"], torch.float64)
    arguments["dt"] = torch.linspace(-800, 800, 18, dtype=torch.float64).view(3, 6)
    limit = (1e-3, 5.0)
    for have, want in zip(mamba2_step(**arguments, dt_limit=limit), expected(arguments, limit)):
        torch.testing.assert_close(have, want)
    arguments["dt"][0, 0] = torch.nan
    y = mamba2_step(**arguments)[0].unflatten(1, (6, 5))
    assert bool(y[0, 0].isnan().all())
    assert not bool(y[1:].isnan().any() or y[0, 1:].isnan().any())


def test_without_a_bias_and_without_a_batch():
    arguments = draw(SIZES["a rest"], torch.float32)
    arguments["conv_bias"] = None
    zeros: dict[str, Any] = arguments | {"conv_bias": torch.zeros(len(arguments["conv_weight"]))}
    for a, b in zip(mamba2_step(**arguments), mamba2_step(**zeros)):
        torch.testing.assert_close(a, b)
    empty = draw((0, 6, 2, 5, 19, 4), torch.float32)
    assert [len(t) for t in mamba2_step(**empty)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"xBC": torch.zeros(3, 5)}, ValueError, "xBC has shape .3, 5.|conv_weight has shape"),
        ({"dt": torch.zeros(3, 7)}, ValueError, "A_log has shape .6,.; expected .h=7."),
        ({"conv": torch.zeros(3, 4, 106)}, ValueError, "conv holds 4 inputs; expected k - 1 = 3"),
        ({"state": torch.zeros(3, 6, 5, 18)}, ValueError, "expected h p . 2 g n = 102"),
        ({"groups": 4}, ValueError, "groups is 4; expected a divisor of the 6 heads"),
        ({"D": torch.zeros(6, dtype=torch.float64)}, TypeError, "D is torch.float64"),
        ({"A_log": 1.0}, TypeError, "A_log is a float"),
        ({"xBC": [1.0]}, TypeError, "xBC is a list"),
    ],
)
def test_what_does_not_fit_is_named(changes, error, text):
    arguments = draw(SIZES["a rest"], torch.float32)
    with pytest.raises(error, match=text):
        mamba2_step(**arguments | changes)


def test_a_step_compiles():
    torch.compiler.reset()
    arguments = draw(SIZES["a rest"], torch.float32)
    compiled = torch.compile(mamba2_step, fullgraph=True, backend="aot_eager")
    for have, want in zip(compiled(**arguments), mamba2_step(**arguments)):
        torch.testing.assert_close(have, want)
