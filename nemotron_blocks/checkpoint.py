"""Checkpoints in Hugging Face's layout: config.json, and weights in safetensors files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from nemotron_blocks.config import HybridConfig
from nemotron_blocks.extras import extra
from nemotron_blocks.state_dict import place_of, tensors_of

if TYPE_CHECKING:
    from nemotron_blocks.model import HybridLM

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
FLOAT32 = ("gate.weight", "gate.e_score_correction_bias")
"""Ends of the names of weights that stay in float32: near ties of a router change experts."""

Model = TypeVar("Model", bound="HybridLM")


def save(model: HybridLM, folder: str | Path, shard_bytes: int = 5_000_000_000) -> None:
    """Write config.json and the weights, in several files if they are large.

    Each file is written whole or not at all, the index last. Where weights are spread over
    processes (`nemotron_blocks.parallel`), all of them have to call this, and the first one writes.

    Args:
        model: on any device.
        folder: made where there is none.
        shard_bytes: largest size of a file, unless one tensor is larger.
    """
    state = _state(model)
    if state is None:
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_hf() | {"dtype": str(model.embeddings.weight.dtype)[6:]}
    _write(folder / "config.json", json.dumps(config, indent=2).encode())
    shards = list(_shards(model.config, state, shard_bytes))
    where: dict[str, str] = {}
    save_bytes = extra("safetensors.torch").save
    for number, shard in enumerate(shards, 1):
        name = SINGLE
        if len(shards) > 1:
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        held = {key: tensor.detach().cpu().contiguous() for key, tensor in shard.items()}
        _write(folder / name, save_bytes(held, {"format": "pt"}))
        where |= dict.fromkeys(shard, name)
    if len(shards) > 1:
        total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        index = {"metadata": {"total_size": total}, "weight_map": where}
        _write(folder / INDEX, json.dumps(index, indent=2).encode())


def load(
    cls: type[Model], folder: str | Path, dtype: torch.dtype | None = None, mtp: bool = True
) -> Model:
    """A model from config.json and the weights, tensor by tensor: in no more memory than it takes.

    Args:
        cls: `HybridLM`.
        folder: of the checkpoint.
        dtype: of the weights; what config.json says when None, and float32 if it says nothing.
            Routers stay in float32.
        mtp: whether to take the block that predicts tokens ahead, if config.json has one; some
            programs leave its weights out.

    Raises:
        FileNotFoundError: config.json or a file of weights is missing.
        ValueError: a file is damaged; a weight is missing, has another shape, or is not of such a
            model.
    """
    folder = Path(folder)
    config, named = _config(folder)
    if not mtp:
        config = config.changed(pattern=config.layers)
    dtype = dtype or named or torch.float32
    with torch.device("meta"):
        model = cls(config)
    model.to(dtype)
    for name, weight in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith(FLOAT32):
            weight.data = weight.data.float()
    model.to_empty(device="cpu")
    if config.tie_embeddings:
        model.lm_head.weight = model.embeddings.weight
    _fill(model, folder, mtp)
    return model


def _config(folder: Path) -> tuple[HybridConfig, torch.dtype | None]:
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"folder: {folder} has no config.json")
    try:
        given: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"folder: {path} is damaged ({error})") from error
    name = given.get("dtype") or given.get("torch_dtype")
    return HybridConfig.from_hf(given), getattr(torch, name) if isinstance(name, str) else None


def _files(folder: Path) -> list[Path]:
    """The files of weights."""
    if (folder / INDEX).exists():
        where = json.loads((folder / INDEX).read_text())["weight_map"]
        files = [folder / name for name in dict.fromkeys(where.values())]
    else:
        files = [folder / SINGLE]
    missing = [path.name for path in files if not path.exists()]
    if missing:
        raise FileNotFoundError(f"folder: {folder} lacks {', '.join(missing)}")
    return files


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    safetensors = extra("safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118, it is no dictionary
                yield name, file.get_tensor(name)
    except safetensors.SafetensorError as error:
        raise ValueError(f"folder: {path} is cut short or damaged ({error})") from error


@torch.no_grad()
def _fill(model: HybridLM, folder: Path, mtp: bool) -> None:
    """Copy every tensor to its place.

    Raises:
        ValueError: one is missing, of another shape, or has no place.
    """
    places = dict([*model.named_parameters(), *model.named_buffers()])
    left = {
        (name, expert)
        for name, weight in places.items()
        for expert in (range(len(weight)) if ".experts." in name else (None,))
    }
    for path in _files(folder):
        for theirs, tensor in _tensors(path):
            place = place_of(theirs, len(model.config.mtp_layers))
            if not mtp and place.name.startswith("mtp."):
                continue
            if place.name == "lm_head.weight" and model.config.tie_embeddings:
                continue
            if place.name not in places:
                raise ValueError(f"folder: {path.name} has {theirs!r}, no weight of such a model")
            target = places[place.name]
            if place.expert is not None:
                if place.expert >= len(target):
                    raise ValueError(f"folder: {theirs!r} is of more than {len(target)} experts")
                target = target[place.expert]
            if tensor.shape != target.shape:
                raise ValueError(
                    f"folder: {theirs!r} in {path.name} has shape {tuple(tensor.shape)}, "
                    f"config.json says {tuple(target.shape)}"
                )
            target.copy_(tensor)
            left.discard((place.name, place.expert))
    if left:
        names = sorted(name if e is None else f"{name}[{e}]" for name, e in left)
        raise ValueError(_lacks(folder, names))


def _lacks(folder: Path, names: list[str]) -> str:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    text = f"folder: {folder} lacks {shown}"
    if all(name.startswith("mtp.") for name in names):
        text += "; load it without tokens ahead: mtp=False"
    return text


def _state(model: HybridLM) -> dict[str, Tensor] | None:
    """Whole weights; None on all processes but the first, where they are spread over several."""
    if not (dist.is_available() and dist.is_initialized()):
        return dict(model.state_dict())
    from nemotron_blocks.parallel.weights import full_state_dict, is_spread

    if not is_spread(model):
        return dict(model.state_dict())
    state = full_state_dict(model)
    return state if dist.get_rank() == 0 else None


def _shards(
    config: HybridConfig, state: dict[str, Tensor], shard_bytes: int
) -> Iterator[dict[str, Tensor]]:
    """Tensors by their names in a checkpoint, in groups of so many bytes."""
    if config.tie_embeddings:
        del state["lm_head.weight"]
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors_of(state, len(config.mtp_layers)):
        if shard and size + tensor.nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)
