"""A mixture of experts beside transformers' block and a loop of linear layers.

    python benchmarks/bench_moe.py [--tokens 2048] [--dtype float32] [--device cpu] [--repeats 5]
                                   [--out FILE]

The same weights in all blocks; results and every gradient are checked before anything is timed.
Forward without gradients, forward with backward, 32 tokens and one as in generation, and what is
kept between forward and backward beside input and weights. "grouped_mm" and "eager" are
transformers' two implementations. Then the experts alone, on rows that are sorted by expert:
`grouped_mlp` beside `torch.nn.functional.grouped_mm` and `torch.bmm` on groups that are padded to
the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from side_by_side import (
    arguments,
    clock_of,
    cpu_name,
    header,
    quartiles,
    report,
    require,
    times,
    to_best_peer,
)
from torch import Tensor, nn
from transformers.models.nemotron_h.configuration_nemotron_h import NemotronHConfig
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHMoE

from nemotron_blocks.moe import MoE
from sparsetorch_kernels import grouped_mlp

OURS = "nemotron_blocks"
RENAMED = {"experts.up": "experts.up_proj", "experts.down": "experts.down_proj"}
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
Block = Callable[[Tensor], Tensor]
Product = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Sizes(NamedTuple):
    """Of one block: its width, experts, how many a token goes to, their widths."""

    width: int
    experts: int
    k: int
    expert: int
    shared: int
    latent: int | None = None


class Setting(NamedTuple):
    """Of a run."""

    tokens: int
    dtype: torch.dtype
    device: torch.device
    repeats: int

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * scale
        return drawn.to(self.device, self.dtype).requires_grad_()


SMALL = {
    "16 experts": Sizes(256, 16, 4, 256, 512),
    "64 small experts": Sizes(256, 64, 6, 128, 256),
    "64 latent experts": Sizes(256, 64, 8, 256, 256, latent=64),
}
LARGE = {  # a layer of Nemotron 3 Nano; one of Super with a quarter of its experts
    "Nano": Sizes(2688, 128, 6, 1856, 3712),
    "Super / 4": Sizes(4096, 128, 22, 2688, 5376, latent=1024),
}


class Loop(nn.Module):
    """Our weights, with a loop over experts of plain linear layers."""

    def __init__(self, block: MoE) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        block, tokens = self.block, x.flatten(0, 1)
        routing = block.gate(tokens)
        inner = tokens if block.fc1_latent_proj is None else block.fc1_latent_proj(tokens)
        y = torch.zeros_like(inner)
        for e, (up, down) in enumerate(zip(block.experts.up, block.experts.down)):
            token, place = (routing.expert == e).nonzero(as_tuple=True)
            if len(token):
                z = F.linear(F.linear(inner[token], up).relu().square(), down)
                y = y.index_add(0, token, z * routing.gate[token, place, None].to(z.dtype))
        y = y if block.fc2_latent_proj is None else block.fc2_latent_proj(y)
        return y.view(x.shape) if block.shared_experts is None else self._with_shared(x, y)

    def _with_shared(self, x: Tensor, y: Tensor) -> Tensor:
        shared = self.block.shared_experts
        assert shared is not None
        return y.view(x.shape) + shared.down_proj(shared.up_proj(x).relu().square())


def theirs(ours: MoE, sizes: Sizes, implementation: str) -> nn.Module:
    """Transformers' block with the same weights."""
    config = NemotronHConfig(
        vocab_size=32,
        hidden_size=sizes.width,
        layers_block_type=["moe"],
        n_routed_experts=sizes.experts,
        num_experts_per_tok=sizes.k,
        moe_intermediate_size=sizes.expert,
        moe_shared_expert_intermediate_size=sizes.shared,
        moe_latent_size=sizes.latent,
        routed_scaling_factor=2.5,
        n_group=1,
        topk_group=1,
    )
    config._experts_implementation = implementation
    block = NemotronHMoE(config)
    state = {RENAMED.get(name, name): weight for name, weight in ours.state_dict().items()}
    block.load_state_dict(state)
    return block.to(ours.experts.up)


def blocks(sizes: Sizes, setting: Setting) -> dict[str, nn.Module]:
    """All contenders, with one set of weights."""
    n = sizes
    with setting.device:
        torch.manual_seed(0)
        ours = MoE(n.width, n.experts, n.k, n.expert, n.shared, n.latent, scale=2.5)
        with torch.no_grad():
            for weight in ours.parameters():
                weight.normal_(std=0.8 * weight.shape[-1] ** -0.5)
    ours.to(setting.dtype)
    return {
        OURS: ours,
        "loop of linears": Loop(ours),
        "transformers, eager": theirs(ours, sizes, "eager"),
        "transformers, grouped_mm": theirs(ours, sizes, "grouped_mm"),
    }


def with_gradients(block: nn.Module, x: Tensor, direction: Tensor) -> tuple[Tensor, ...]:
    """The result, and the gradients of the input and of every weight."""
    y = block(x)
    return y.detach(), *torch.autograd.grad(y, [x, *_sorted(block)], direction)


def _sorted(block: nn.Module) -> list[nn.Parameter]:
    """The weights in the order of our names."""
    ours = {theirs: name for name, theirs in RENAMED.items()}
    named = ((name.removeprefix("block."), weight) for name, weight in block.named_parameters())
    return [w for _, w in sorted((ours.get(name, name), weight) for name, weight in named)]


def kept(block: nn.Module, x: Tensor) -> float:
    """MB between forward and backward, beside input and weights; each storage once."""
    given = {t.untyped_storage().data_ptr() for t in (x, *block.parameters())}
    storages: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        if (place := t.untyped_storage().data_ptr()) not in given:
            storages[place] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        _y = block(x)  # alive, so that no storage takes the place of another
    return sum(storages.values()) / 1e6


def check(name: str, got: tuple[Tensor, ...], want: tuple[Tensor, ...], dtype: torch.dtype) -> None:
    """End the run unless results and gradients agree."""
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        error = (a.double() - b.double()).norm() / b.double().norm()
        require(f"{name}, result {i}", float(error), TOLERANCE[dtype])


def without_gradients(function: Callable[[], object]) -> object:
    with torch.no_grad():
        return function()


def rows(
    what: str, steps: Mapping[str, Mapping[str, Callable[[], object]]], setting: Setting,
    memory: Mapping[str, float],
) -> Iterator[str]:  # fmt: skip
    """Lines of the table, one a step and contender; the ratio is to the first one."""
    for step, contenders in steps.items():
        seconds = times(contenders, setting.repeats, clock_of(setting.device))
        ours, *_ = seconds
        for name, taken in seconds.items():
            only = {ours: seconds[ours], name: taken}
            ratio = "1" if name == ours else f"{1 / to_best_peer(only, ours):.2f}"
            mb = f"{memory[name]:.1f}" if step == "and backward" and name in memory else ""
            yield f"| {what} | {step} | {name} | {quartiles(taken)} | {ratio} | {mb} |"


def block_rows(what: str, sizes: Sizes, setting: Setting) -> Iterator[str]:
    """The blocks, checked and timed."""
    contenders = blocks(sizes, setting)
    x = setting.normal(2, setting.tokens // 2, sizes.width)
    direction = setting.normal(*x.shape[1:]).detach().expand_as(x).contiguous()
    want = with_gradients(contenders["transformers, eager"], x, direction)
    for name, block in contenders.items():
        check(f"{what}, {name}", with_gradients(block, x, direction), want, setting.dtype)
    memory = {name: kept(block, x) for name, block in contenders.items()}
    some, one = x.detach()[:, :16].contiguous(), x.detach()[:1, :1]
    run = contenders.items()
    steps = {
        "forward": {n: partial(without_gradients, partial(b, x)) for n, b in run},
        "and backward": {n: partial(with_gradients, b, x, direction) for n, b in run},
        f"{some.shape[0] * some.shape[1]} tokens": {
            n: partial(without_gradients, partial(b, some)) for n, b in run
        },
        "one token": {n: partial(without_gradients, partial(b, one)) for n, b in run},
    }
    yield from rows(what, steps, setting, memory)


def by_grouped_mm(x: Tensor, ptr: Tensor, up: Tensor, down: Tensor) -> Tensor:
    product = getattr(F, "grouped_mm", None) or torch._grouped_mm
    offsets = ptr[1:].int()
    return product(product(x, up.mT, offs=offsets).relu().square(), down.mT, offs=offsets)


def by_padding(x: Tensor, ptr: Tensor, up: Tensor, down: Tensor) -> Tensor:
    counts, longest = ptr.diff(), int(ptr.diff().max())
    group = torch.arange(len(counts), device=x.device).repeat_interleave(counts)
    place = torch.arange(len(x), device=x.device) - ptr[group] + group * longest
    padded = x.new_zeros(len(counts) * longest, x.shape[1]).index_copy(0, place, x)
    h = torch.bmm(padded.unflatten(0, (len(counts), longest)), up.mT).relu().square()
    return torch.bmm(h, down.mT).flatten(0, 1)[place]


PRODUCTS: dict[str, Product] = {
    "grouped_mlp": grouped_mlp,
    "grouped_mm": by_grouped_mm,
    "padded bmm": by_padding,
}


def product_rows(what: str, sizes: Sizes, setting: Setting) -> Iterator[str]:
    """The experts alone."""
    width, inner = sizes.latent or sizes.width, sizes.expert
    generator, n_rows = torch.Generator().manual_seed(0), setting.tokens * sizes.k
    chances = torch.rand(sizes.experts, generator=generator) + 0.3
    drawn = torch.multinomial(chances, n_rows, replacement=True, generator=generator)
    counts = drawn.bincount(minlength=sizes.experts).to(setting.device)
    ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    x, direction = setting.normal(n_rows, width), setting.normal(n_rows, width).detach()
    up = setting.normal(sizes.experts, inner, width, scale=width**-0.5)
    down = setting.normal(sizes.experts, width, inner, scale=inner**-0.5)

    def gradients(product: Product) -> tuple[Tensor, ...]:
        y = product(x, ptr, up, down)
        return y.detach(), *torch.autograd.grad(y, (x, up, down), direction)

    want = gradients(by_padding)
    for name, product in PRODUCTS.items():
        check(f"{what}, {name}", gradients(product), want, setting.dtype)
    steps = {
        "forward": {
            n: partial(without_gradients, partial(p, x, ptr, up, down)) for n, p in PRODUCTS.items()
        },
        "and backward": {n: partial(gradients, p) for n, p in PRODUCTS.items()},
    }
    yield from rows(f"{what}, alone", steps, setting, {})


def lines(setting: Setting, cases: Mapping[str, Sizes]) -> Iterator[str]:
    """The table and what it was measured on."""
    yield from header("", "", "by", "ms, median (quartiles)", "times ours", "MB kept")
    for what, sizes in cases.items():
        yield from block_rows(what, sizes, setting)
        yield from product_rows(what, sizes, setting)
    yield ""
    on_gpu = setting.device.type == "cuda"
    where = torch.cuda.get_device_name(setting.device) if on_gpu else cpu_name()
    yield (
        f"{setting.tokens:,} tokens, {str(setting.dtype)[6:]}; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {where}."
    )


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0], 5, "turns", cpu_time=False)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", default="cpu", help="on a GPU the sizes are those of Nemotron")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    setting = Setting(args.tokens, getattr(torch, args.dtype), device, args.repeats)
    report(lines(setting, SMALL if device.type == "cpu" else LARGE), args.out)


if __name__ == "__main__":
    main()
