"""The causal depthwise convolution before the scan, with its backward by hand.

A few positions at a time, so that the passes over the taps stay in the cache; what comes before the
activation is computed again in the backward, which keeps nothing but the arguments.

Suffixes: B batch, L length, Q positions of a piece, C channels, K taps, W = K - 1 earlier inputs.
"""

import functools
import importlib.util
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsetorch_kernels._register import watched
from sparsetorch_kernels.autocast import as_given
from sparsetorch_kernels.ssd import checks, reference
from sparsetorch_kernels.ssd.scratch import Scratch

PIECE = 1 << 16  # elements at a time on the CPU


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial: Tensor | None = None,
    seq_idx: Tensor | None = None,
    activation: str | None = "silu",
) -> tuple[Tensor, Tensor]:
    """Each channel convolved over its past: y_t = act(bias + sum over j of w_j x_(t - k + 1 + j)).

    x (b, l, c); weight (c, k); bias (c,); initial (b, k - 1, c), the inputs before the first, zero
    if None; activation "silu" or None. x and initial are of one dtype, float16, bfloat16, float32
    or float64; sums are in float32 (float64 for float64), which weight and bias may be too.
    seq_idx (b, l) numbers packed documents as in `ssd_scan`: no tap reaches into another one, and
    initial belongs to the document of the first position.

    Returns y (b, l, c) and the last k - 1 inputs (b, k - 1, c), zero where they are of another
    document than the last position. Differentiable any number of times. Raises TypeError or
    ValueError naming the argument that does not fit. Equivalent to `causal_conv1d_fn` of
    causal-conv1d, with channels last.
    """
    _check(x, "b l c", weight, bias, "initial", initial, activation)
    checks.check_documents(seq_idx, x)
    inputs = x, weight, bias, initial, seq_idx, activation == "silu"
    final = _last_inputs(x, weight.shape[1], initial, seq_idx)
    if torch.compiler.is_compiling():
        return reference.causal_conv(*inputs), final
    if watched(*(t for t in inputs[:4] if t is not None)):
        return _Conv.apply(*inputs), final
    return forward(*inputs), final


def causal_conv_step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    state: Tensor,
    activation: str | None = "silu",
) -> tuple[Tensor, Tensor]:
    """One position of `causal_conv`: y (b, c), and the last k - 1 inputs (b, k - 1, c).

    x (b, c) and state (b, k - 1, c), what `causal_conv` or an earlier step returned. Otherwise as
    `causal_conv`.
    """
    _check(x, "b c", weight, bias, "state", state, activation)
    dtype = checks.sum_dtype(x.dtype)
    window_BKC = torch.cat([state, x[:, None]], 1)
    with as_given(x):
        y = torch.linalg.vecdot(window_BKC.to(dtype), weight.to(dtype).mT, dim=1)
    y = y if bias is None else y + bias
    return (F.silu(y) if activation else y).to(x.dtype), window_BKC[:, 1:].contiguous()


def _check(x, letters: str, weight, bias, name: str, initial, activation) -> None:
    expected = {"x": (x, letters), "weight": (weight, "c k"), "bias": (bias, "c")}
    sizes = checks.check_tensors(expected, wide="weight bias")
    if sizes["k"] == 0:
        raise ValueError("weight has no taps; expected (c, k) with k at least 1")
    if initial is not None:
        earlier = {"x": (x, letters), name: (initial, "b w c")}
        have = checks.check_tensors(earlier)["w"]
        if have != sizes["k"] - 1:
            raise ValueError(f"{name} holds {have} inputs; expected k - 1 = {sizes['k'] - 1}")
    if activation not in ("silu", None):
        raise ValueError(f'activation is {activation!r}; expected "silu" or None')


def _window(x_BLC: Tensor, taps: int, initial_BWC: Tensor | None, start: int, stop: int) -> Tensor:
    """The inputs of the outputs [start, stop): (B, K - 1 + stop - start, C)."""
    if start >= taps - 1:
        return x_BLC[:, start - taps + 1 : stop]
    return reference.with_earlier(x_BLC[:, :stop], taps, initial_BWC)[:, start:]


def _last_inputs(
    x_BLC: Tensor, taps: int, initial_BWC: Tensor | None, seq_idx_BL: Tensor | None
) -> Tensor:
    length = x_BLC.shape[1]
    window = _window(x_BLC, taps, initial_BWC, length, length)
    if seq_idx_BL is None or length == 0:
        return window.clone()  # a view would keep all of x in memory
    seq = reference.seq_with_earlier(seq_idx_BL, taps)[:, length:]
    return window * (seq == seq_idx_BL[:, -1:])[..., None]


class _Piece:
    """Positions [start, stop): what forward and backward share, in the precision of sums."""

    def __init__(self, scratch: Scratch, start: int, stop: int, x, weight_KC, initial, seq: Any):
        self.scratch, self.size, taps = scratch, stop - start, weight_KC.shape[0]
        window = _window(x, taps, initial, start, stop)
        self.window = window if x.dtype == scratch.dtype else scratch.copy("window", window)
        self.seq = None if seq is None else seq[:, start : stop + taps - 1]
        self.weight_KC = weight_KC

    def tap(self, k: int) -> Tensor:
        """The inputs that tap k reads, zero where they are of another document."""
        inputs = self.window[:, k : k + self.size]
        return inputs if self.seq is None else self.masked(inputs, k)

    def masked(self, t: Tensor, k: int) -> Tensor:
        """t, zero where tap k reads from another document."""
        last = self.weight_KC.shape[0] - 1
        same = self.seq[:, k : k + self.size] == self.seq[:, last:]
        return t if k == last else self.scratch.scaled("masked", t, same)

    def sums(self, bias: Tensor | None) -> Tensor:
        """The convolution before the activation."""
        first, weight_KC = self.tap(0), self.weight_KC
        out = self.scratch.empty("sums", first.shape)
        if bias is None:
            torch.mul(first, weight_KC[0], out=out)
        else:
            torch.addcmul(bias.to(out.dtype), first, weight_KC[0], out=out)
        for k in range(1, len(weight_KC)):
            out.addcmul_(self.tap(k), weight_KC[k])
        return out


def _pieces(x, weight, initial, seq_idx):
    """The pieces one after another, each with its positions; on an accelerator there is one."""
    batch, length, channels = x.shape
    scratch = Scratch(x, checks.sum_dtype(x.dtype))
    weight_KC = weight.to(scratch.dtype).mT.contiguous()
    seq = None
    if seq_idx is not None and length > 0:
        seq = reference.seq_with_earlier(seq_idx, weight.shape[1])
    at_once = PIECE * torch.get_num_threads() // max(1, batch * channels) if x.is_cpu else length
    step = max(1, at_once)
    for start in range(0, length, step):
        stop = min(start + step, length)
        yield start, stop, _Piece(scratch, start, stop, x, weight_KC, initial, seq)


def forward(x, weight, bias, initial, seq_idx, silu: bool) -> Tensor:
    """The convolution, without derivatives."""
    if (kernels := _kernels(x)) is not None:
        return kernels.forward(x, weight, bias, initial, seq_idx, silu)
    y = x.new_empty(x.shape)
    for start, stop, piece in _pieces(x, weight, initial, seq_idx):
        sums = piece.sums(bias)
        if silu:
            sums = torch.sigmoid(sums, out=piece.scratch.empty("silu", sums.shape)).mul_(sums)
        y[:, start:stop] = sums
    return y


def backward(grad_y, x, weight, bias, initial, seq_idx, silu: bool):
    """The gradients of x with the earlier inputs in front, of the weight and of the bias."""
    if (kernels := _kernels(x)) is not None:
        return kernels.backward(grad_y, x, weight, bias, initial, seq_idx, silu)
    taps, dtype = weight.shape[1], checks.sum_dtype(x.dtype)
    batch, length, channels = x.shape
    grad_x = x.new_zeros((batch, taps - 1 + length, channels), dtype=dtype)
    grad_KC = x.new_zeros((taps, channels), dtype=dtype)
    grad_bias = x.new_zeros(channels, dtype=dtype)
    for start, stop, piece in _pieces(x, weight, initial, seq_idx):
        grad = grad_y[:, start:stop].to(dtype)
        if silu:
            grad = torch.ops.aten.silu_backward(grad, piece.sums(bias))
        grad_bias += grad.sum((0, 1))
        product = piece.scratch.empty("product", grad.shape)
        for k in range(taps):
            grad_KC[k] += torch.mul(grad, piece.tap(k), out=product).sum((0, 1))
            acted = grad if piece.seq is None else piece.masked(grad, k)
            grad_x[:, start + k : stop + k].addcmul_(acted, piece.weight_KC[k])
    return grad_x, grad_KC.mT, grad_bias


def _kernels(x: Tensor) -> ModuleType | None:
    """The Triton kernels where they serve."""
    return _triton() if x.is_cuda else None


@functools.cache
def _triton() -> ModuleType | None:
    if importlib.util.find_spec("triton") is None:
        return None  # normal for PyTorch's CPU builds
    from sparsetorch_kernels.ssd import conv_triton

    return conv_triton


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(*inputs):
        return forward(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.silu = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx, grad_y):
        x, weight, bias, initial, seq_idx = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = functools.partial(reference.causal_conv, seq_idx_BL=seq_idx, silu=ctx.silu)
            inputs = (x, weight, bias, initial)
            return *reference.gradients(plain, inputs, (grad_y,)), None, None
        grad_x, grad_weight, grad_bias = backward(
            grad_y, x, weight, bias, initial, seq_idx, ctx.silu
        )
        earlier = weight.shape[1] - 1
        return (
            grad_x[:, earlier:].to(x.dtype),
            grad_weight.to(weight.dtype),
            None if bias is None else grad_bias.to(bias.dtype),
            None if initial is None else grad_x[:, :earlier].to(initial.dtype),
            None,
            None,
        )
