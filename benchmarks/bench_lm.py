"""Whole hybrid models beside transformers' `NemotronHForCausalLM`: training, prompts, decoding.

    python benchmarks/bench_lm.py [--threads 2] [--device cuda] [--repeats 5] [--out FILE]

Both have the same weights, read from one checkpoint; logits and the norm of the gradient are
compared in float32 before anything is timed. A training step is forward, backward and AdamW;
"memory" is what it keeps between forward and backward. Decoding is greedy, a batch of one.

On the CPU times are in float32, and "floor" is what products with weights take, which both have,
over the time of transformers. On a GPU they are in bfloat16, of larger models; transformers takes
the kernels of mamba-ssm and causal-conv1d, of which it needs both, where they are installed; they
multiply float32 in TF32, so that the comparison is as wide there. Without them its scan takes tens
of gigabytes for 4096 tokens, and 512 are the default.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
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
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import NemotronHForCausalLM

from nemotron_blocks import HybridConfig, HybridLM, next_token_loss

OURS, THEIRS = "sparsetorch", "transformers"
COMMON: dict[str, Any] = {
    "d_model": 256, "vocab_size": 4096, "n_heads": 8, "n_kv_heads": 2, "head_dim": 32,
    "mamba_heads": 8, "mamba_head_dim": 64, "n_groups": 2, "d_state": 64, "init_std": 0.05,
}  # fmt: skip
LARGE: dict[str, Any] = {  # wide enough for a GPU, in few blocks
    "d_model": 2048, "vocab_size": 32768, "n_heads": 16, "n_kv_heads": 8, "head_dim": 128,
    "mamba_heads": 64, "mamba_head_dim": 64, "n_groups": 8, "d_state": 128, "init_std": 0.02,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "dense": {"pattern": "M-M*-M-M-", "d_ff": 768},
    "experts": {
        "pattern": "MEM*EMEME", "n_experts": 16, "top_k": 2, "d_expert": 256, "d_shared": 256,
    },
    "latent": {
        "pattern": "MEM*EMEME", "n_experts": 32, "top_k": 4, "d_expert": 256, "d_shared": 256,
        "d_latent": 64,
    },
}  # fmt: skip
LARGE_MODELS: dict[str, dict[str, Any]] = {
    "dense": {"pattern": "M-M*-M-M-", "d_ff": 8192},
    "experts": {
        "pattern": "MEM*EMEME", "n_experts": 32, "top_k": 4, "d_expert": 1024, "d_shared": 2048,
    },
    "latent": {
        "pattern": "MEM*EMEME", "n_experts": 64, "top_k": 8, "d_expert": 1024, "d_shared": 2048,
        "d_latent": 512,
    },
}  # fmt: skip
Models = dict[str, Any]


class Setting(NamedTuple):
    """Of a run."""

    device: torch.device
    length: int
    repeats: int

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def sizes(self, name: str) -> dict[str, Any]:
        """Of a model."""
        return LARGE | LARGE_MODELS[name] if self.on_gpu else COMMON | MODELS[name]

    def tokens(self, vocab_size: int, length: int) -> Tensor:
        return torch.randint(vocab_size, (2, length)).to(self.device)


def models(sizes: dict[str, Any], device: torch.device) -> Models:
    """Both, with the same weights."""
    torch.manual_seed(0)
    with device:
        ours = HybridLM(HybridConfig(**sizes))
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        theirs: Any = NemotronHForCausalLM.from_pretrained(folder, dtype=torch.float32)
        theirs = theirs.to(device)
    for block in theirs.model.layers:
        if hasattr(block.mixer, "time_step_limit"):
            # Else time steps are clamped in a pass, and not in a step of decoding.
            setattr(block.mixer, "time_step_limit", (0.0, float("inf")))  # noqa: B010
    return {OURS: ours, THEIRS: theirs}


def loss(model: Any, tokens: Tensor) -> Tensor:
    """The mean cross-entropy of the next token."""
    if isinstance(model, HybridLM):
        hidden = model.hidden(tokens)[:, :-1].flatten(0, 1)
        return next_token_loss(hidden, model.lm_head.weight, tokens[:, 1:].flatten())
    return model(tokens, labels=tokens, use_cache=False).loss


def logits(model: Any, tokens: Tensor) -> Tensor:
    """Of all tokens."""
    found = model(tokens) if isinstance(model, HybridLM) else model(tokens, use_cache=False).logits
    return found


def compare(found: Models, tokens: Tensor, tolerance: float) -> None:
    """End the run unless both say the same."""
    with torch.no_grad():
        a, b = (logits(model, tokens) for model in found.values())
    require("logits", float((a - b).norm() / b.norm()), tolerance)
    norms = []
    for model in found.values():
        loss(model.train(), tokens).backward()
        parts = [p.grad.square().sum() for p in model.parameters() if p.grad is not None]
        norms.append(torch.stack(parts).sum().sqrt())
        model.zero_grad()
    require("gradients", float((norms[0] - norms[1]).abs() / norms[1]), 10 * tolerance)


def step(model: Any, optimizer: torch.optim.Optimizer, tokens: Tensor) -> None:
    """One step of training."""
    optimizer.zero_grad()
    loss(model, tokens).backward()
    optimizer.step()


def kept(model: Any, tokens: Tensor) -> int:
    """Bytes that autograd keeps between forward and backward, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss(model.train(), tokens)
    total = sum(seen.values())
    value.backward()
    return total


def say(model: Any, tokens: Tensor, count: int, cuda_graph: bool = False) -> object:
    """Greedy decoding; this library's model by a CUDA graph or not."""
    if isinstance(model, HybridLM):
        return model.generate(tokens, count, cuda_graph=cuda_graph)
    return model.generate(
        tokens, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0
    )


def weight_products(call: Callable[[], object]) -> float:
    """Seconds that the products with weights take in a call."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        call()
    return sum(e.self_cpu_time_total for e in found.key_averages() if e.key == "aten::mm") / 1e6


def rows(name: str, setting: Setting) -> Iterator[str]:
    """The lines of one model."""
    sizes = setting.sizes(name)
    found = models(sizes, setting.device)
    short = min(setting.length, 512)
    compare(found, setting.tokens(sizes["vocab_size"], short), 5e-3 if setting.on_gpu else 1e-5)
    if setting.on_gpu:
        found = {who: model.bfloat16() for who, model in found.items()}
    tokens = setting.tokens(sizes["vocab_size"], setting.length)

    def read(model: Any) -> None:
        with torch.no_grad():
            logits(model, tokens)

    optimizers = {who: torch.optim.AdamW(model.parameters()) for who, model in found.items()}
    tasks: dict[str, dict[str, Callable[[], object]]] = {
        "training step": {
            who: partial(step, model.train(), optimizers[who], tokens)
            for who, model in found.items()
        },
        "prompt": {who: partial(read, model) for who, model in found.items()},
        "64 tokens": {
            who: partial(say, model, tokens[:1, :64], 64) for who, model in found.items()
        },
    }
    if setting.on_gpu:
        tasks["64 tokens, CUDA graph"] = {
            who: partial(say, model, tokens[:1, :64], 64, cuda_graph=True)
            for who, model in found.items()
        }
    for task, contenders in tasks.items():
        for model in found.values():
            model.train(task == "training step")
        seconds = times(contenders, setting.repeats, clock_of(setting.device), warmup=1)
        cells = [quartiles(seconds[who], int(setting.on_gpu)) for who in (OURS, THEIRS)]
        ratio = f"{to_best_peer(seconds):.2f} |"
        if not setting.on_gpu:
            floor = weight_products(contenders[OURS]) / statistics.median(seconds[THEIRS])
            ratio += f" {floor:.2f} |"
        yield f"| {name} | {task} | {cells[0]} | {cells[1]} | {ratio}"
    sizes_kept = [kept(found[who], tokens) for who in (OURS, THEIRS)]
    cells = [f"{size / 1e6:.0f} MB" for size in sizes_kept]
    ratio = f"{sizes_kept[0] / sizes_kept[1]:.2f} |" + " |" * (not setting.on_gpu)
    yield f"| {name} | memory | {cells[0]} | {cells[1]} | {ratio}"


def lines(setting: Setting, names: tuple[str, ...] = tuple(MODELS)) -> Iterator[str]:
    """The table."""
    floor = () if setting.on_gpu else ("floor",)
    yield from header("model", "", f"{OURS}, ms", f"{THEIRS}, ms", "ratio", *floor)
    for name in names:
        yield from rows(name, setting)
    yield ""
    batch = f"Batch 2 of {setting.length:,} tokens, torch {torch.__version__}"
    if not setting.on_gpu:
        yield f"{batch}, float32, {torch.get_num_threads()} threads, {cpu_name()}."
        return
    kernels = kernels_of_theirs()
    yield (
        f"{batch}, bfloat16, {torch.cuda.get_device_name(setting.device)}; transformers with "
        f"{' and '.join(kernels) or 'neither mamba_ssm nor causal_conv1d'}."
    )


def kernels_of_theirs() -> list[str]:
    """The packages with kernels that transformers takes in place of PyTorch's operators."""
    return [name for name in ("mamba_ssm", "causal_conv1d") if find_spec(name)]


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0], 5, "turns", cpu_time=False)
    parser.add_argument("--length", type=int, help="tokens; 512, on a GPU with kernels 4096")
    parser.add_argument("--device", default="cpu", help="cuda takes larger models, in bfloat16")
    parser.add_argument("--models", nargs="+", default=tuple(MODELS), choices=tuple(MODELS))
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    long = device.type == "cuda" and len(kernels_of_theirs()) == 2
    length = args.length or (4096 if long else 512)
    report(lines(Setting(device, length, args.repeats), tuple(args.models)), args.out)


if __name__ == "__main__":
    main()
