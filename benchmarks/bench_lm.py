"""Whole hybrid models beside transformers' `NemotronHForCausalLM`: training, prompts, decoding.

    python benchmarks/bench_lm.py [--threads 2] [--repeats 5] [--out FILE]

Both have the same weights, read from one checkpoint, in float32 on the CPU; logits, loss and the
norm of the gradient are compared before anything is timed. A training step is forward, backward and
AdamW; "memory" is what it keeps between forward and backward. Decoding is greedy, a batch of one.
"floor" is what products with weights take, which both have, over the time of transformers.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from side_by_side import arguments, header, quartiles, report, require, times, to_best_peer
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import NemotronHForCausalLM

from nemotron_blocks import HybridConfig, HybridLM, next_token_loss

OURS, THEIRS = "sparsetorch", "transformers"
COMMON: dict[str, Any] = {
    "d_model": 256, "vocab_size": 4096, "n_heads": 8, "n_kv_heads": 2, "head_dim": 32,
    "mamba_heads": 8, "mamba_head_dim": 64, "n_groups": 2, "d_state": 64, "init_std": 0.05,
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
Models = dict[str, Any]


def models(changes: dict[str, Any]) -> Models:
    """Both, with the same weights."""
    torch.manual_seed(0)
    ours = HybridLM(HybridConfig(**COMMON | changes))
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        theirs = NemotronHForCausalLM.from_pretrained(folder, dtype=torch.float32)
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


def compare(found: Models, tokens: Tensor) -> None:
    """End the run unless both say the same."""
    with torch.no_grad():
        a, b = (logits(model, tokens) for model in found.values())
    require("logits", float((a - b).norm() / b.norm()), 1e-5)
    norms = []
    for model in found.values():
        loss(model.train(), tokens).backward()
        parts = [p.grad.square().sum() for p in model.parameters() if p.grad is not None]
        norms.append(torch.stack(parts).sum().sqrt())
        model.zero_grad()
    require("gradients", float((norms[0] - norms[1]).abs() / norms[1]), 1e-4)


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


def say(model: Any, tokens: Tensor, count: int) -> object:
    """Greedy decoding."""
    if isinstance(model, HybridLM):
        return model.generate(tokens, count)
    return model.generate(
        tokens, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0
    )


def weight_products(call: Callable[[], object]) -> float:
    """Seconds that the products with weights take in a call."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        call()
    return sum(e.self_cpu_time_total for e in found.key_averages() if e.key == "aten::mm") / 1e6


def rows(name: str, changes: dict[str, Any], length: int, repeats: int) -> Iterator[str]:
    """The lines of one model."""
    found = models(changes)
    tokens = torch.randint(COMMON["vocab_size"], (2, length))
    compare(found, tokens)

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
    for task, contenders in tasks.items():
        for model in found.values():
            model.train(task == "training step")
        seconds = times(contenders, repeats, warmup=1)
        cells = [quartiles(seconds[who], 0) for who in (OURS, THEIRS)]
        floor = weight_products(contenders[OURS]) / statistics.median(seconds[THEIRS])
        ratio = f"{to_best_peer(seconds):.2f} | {floor:.2f}"
        yield f"| {name} | {task} | {cells[0]} | {cells[1]} | {ratio} |"
    sizes = [kept(found[who], tokens) for who in (OURS, THEIRS)]
    cells = [f"{size / 1e6:.0f} MB" for size in sizes]
    yield f"| {name} | memory | {cells[0]} | {cells[1]} | {sizes[0] / sizes[1]:.2f} | |"


def lines(length: int, repeats: int, names: tuple[str, ...] = tuple(MODELS)) -> Iterator[str]:
    """The table."""
    yield from header("model", "", f"{OURS}, ms", f"{THEIRS}, ms", "ratio", "floor")
    for name in names:
        yield from rows(name, MODELS[name], length, repeats)
    yield ""
    yield f"Batch 2 of {length} tokens, float32, {torch.get_num_threads()} threads."


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0], 5, "turns", cpu_time=False)
    parser.add_argument("--length", type=int, default=512)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    report(lines(args.length, args.repeats), args.out)


if __name__ == "__main__":
    main()
