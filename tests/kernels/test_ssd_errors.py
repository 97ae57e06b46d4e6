"""Bad arguments are refused by name, with what came and what was expected."""

from typing import Any

import pytest
import torch
from ssd_cases import SIZES, draw

from sparsetorch_kernels import causal_conv, causal_conv_step, ssd_scan, ssd_step

NAMES = ("x", "dt", "A", "B", "C", "D", "initial_state")
BACK = torch.tensor([[0] * 10 + [2] * 11, [0] * 10 + [3] + [2] * 10])


def scan(**changes):
    arguments: dict[str, Any] = dict(
        zip(NAMES, (t.detach() for t in draw(SIZES["a rest"], torch.float32)))
    )
    return ssd_scan(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"x": torch.zeros(2, 21, 20)}, ValueError, r"x has shape \(2, 21, 20\); expected \(b, l"),
        ({"x": [1.0]}, TypeError, "x is a list; expected a tensor"),
        ({"x": torch.zeros(2, 21, 4, 5, dtype=torch.int64)}, TypeError, "x is torch.int64"),
        ({"dt": torch.zeros(2, 20, 4)}, ValueError, r"dt has shape .* expected \(b=2, l=21, h=4"),
        ({"dt": torch.zeros(2, 21, 4).double()}, TypeError, "dt is torch.float64; expected torch"),
        ({"A": torch.zeros(3)}, ValueError, r"A has shape \(3,\); expected \(h=4\)"),
        ({"B": torch.zeros(2, 21, 2, 3).half()}, TypeError, "B is torch.float16; expected torch.f"),
        ({"C": torch.zeros(2, 21, 2, 4)}, ValueError, r"C has shape .* expected .*n=3"),
        ({"C": torch.zeros(2, 21, 1, 3)}, ValueError, r"C has shape .* expected .*g=2"),
        ({"D": torch.zeros(4, 5)}, ValueError, r"D has shape \(4, 5\); expected \(h=4\)"),
        ({"initial_state": torch.zeros(2, 4, 3, 5)}, ValueError, "initial_state has shape"),
        ({"A": torch.zeros(4, device="meta")}, ValueError, "A is on meta; the other"),
        ({"seq_idx": torch.zeros(2, 21)}, TypeError, "seq_idx is torch.float32; expected a tensor"),
        ({"seq_idx": [0]}, TypeError, "seq_idx is list"),
        ({"seq_idx": torch.zeros(1, 21).long()}, ValueError, r"seq_idx has shape \(1, 21\)"),
        ({"seq_idx": BACK}, ValueError, "seq_idx goes back from 3 to 2 at position 11 of row 1"),
        ({"chunk_size": 0}, ValueError, "chunk_size is 0; expected at least 1"),
        ({"chunk_size": 8.0}, TypeError, "chunk_size is a float; expected an int"),
    ],
)
def test_the_scan_refuses(changes, kind, message):
    with pytest.raises(kind, match=message):
        scan(**changes)


@pytest.mark.parametrize("groups", [0, 3])
def test_heads_have_to_divide_into_groups(groups):
    with pytest.raises(ValueError, match=f"x has 4 heads and B {groups} groups"):
        scan(B=torch.zeros(2, 21, groups, 3), C=torch.zeros(2, 21, groups, 3))


@pytest.mark.parametrize(
    ("name", "value", "kind", "message"),
    [
        ("x", torch.zeros(2, 1, 4, 5), ValueError, r"x has shape .* expected \(b, h, p\)"),
        ("B", torch.zeros(2, 3, 3), ValueError, "x has 4 heads and B 3 groups"),
        ("state", torch.zeros(2, 4, 5, 2), ValueError, r"state has shape .* expected .*n=3"),
        ("state", torch.zeros(2, 4, 5, 3).half(), TypeError, "state is torch.float16"),
    ],
)
def test_the_step_refuses(name, value, kind, message):
    shapes = {"x": (2, 4, 5), "dt": (2, 4), "A": (4,), "B": (2, 2, 3), "C": (2, 2, 3), "D": (4,)}
    arguments: dict[str, Any] = {
        k: torch.zeros(s) for k, s in (shapes | {"state": (2, 4, 5, 3)}).items()
    }
    arguments[name] = value
    if message.endswith("groups"):
        arguments["C"] = value
    with pytest.raises(kind, match=message):
        ssd_step(**arguments)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"x": torch.zeros(2, 9)}, ValueError, r"x has shape \(2, 9\); expected \(b, l, c\)"),
        ({"weight": torch.zeros(4, 3)}, ValueError, r"weight has shape .* expected \(c=3, k\)"),
        ({"weight": torch.zeros(3, 0)}, ValueError, "weight has no taps"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias has shape .* expected \(c=3\)"),
        ({"initial": torch.zeros(2, 4, 3)}, ValueError, "initial holds 4 inputs; expected k - 1"),
        ({"initial": torch.zeros(2, 3, 3).half()}, TypeError, "initial is torch.float16"),
        ({"activation": "relu"}, ValueError, "activation is 'relu'; expected \"silu\" or None"),
        ({"seq_idx": torch.ones(2, 8).long()}, ValueError, "seq_idx has shape"),
        ({"seq_idx": BACK[:, 5:14]}, ValueError, "seq_idx goes back from 3 to 2 at position 6"),
    ],
)
def test_the_convolution_refuses(changes, kind, message):
    arguments: dict[str, Any] = {"x": torch.zeros(2, 9, 3), "weight": torch.zeros(3, 4)} | changes
    with pytest.raises(kind, match=message):
        causal_conv(**arguments)


def test_the_step_of_the_convolution_refuses_a_short_state():
    with pytest.raises(ValueError, match="state holds 2 inputs; expected k - 1 = 3"):
        causal_conv_step(torch.zeros(2, 3), torch.zeros(3, 4), None, torch.zeros(2, 2, 3))
