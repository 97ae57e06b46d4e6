"""Checkpoints in Hugging Face's layout: config.json, and weights in safetensors files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from nemotron_blocks.config import HybridConfig
from nemotron_blocks.state_dict import Place, place_of, tensors_of
from nemotron_blocks.weight_files import (
    CONFIG,
    INDEX,
    NewFiles,
    read_json,
    shard_name,
    tensors,
    weight_files,
)

if TYPE_CHECKING:
    from nemotron_blocks.model import HybridLM

FLOAT32 = ("gate.weight", "gate.e_score_correction_bias")
"""Ends of the names of weights that stay in float32: near ties of a router change experts."""

DTYPES = {str(d)[6:]: d for d in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}
"""Of weights, by the names that config.json has for them; others would need scales."""

Model = TypeVar("Model", bound="HybridLM")


def save(model: HybridLM, folder: str | Path, shard_bytes: int = 5_000_000_000) -> None:
    """Write config.json and the weights, in several files if they are large.

    A checkpoint that is in the folder already is replaced when the new one is written to its end;
    the disk has to have room for both. Where torch.distributed is initialized all processes have
    to call this; the first one writes, and none goes on before it is done.

    Args:
        model: on any device. On the CPU its weights are written from where they are.
        folder: made where there is none.
        shard_bytes: largest size of a file, unless one tensor is larger.
    """
    together = dist.is_available() and dist.is_initialized()
    state = _state(model) if together else dict(model.state_dict())
    try:
        if state is not None:
            _write(model, state, Path(folder), shard_bytes)
    finally:
        if together:  # also where writing fails: the others must not wait forever
            dist.barrier()


def _write(model: HybridLM, state: dict[str, Tensor], folder: Path, shard_bytes: int) -> None:
    files = NewFiles(folder)
    dtype = str(model.embeddings.weight.dtype)[6:]
    files.add_json(CONFIG, model.config.to_hf() | {"dtype": dtype})
    shards = list(_shards(model.config, state, shard_bytes))
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = shard_name(number, len(shards))
        held = {key: tensor.detach().cpu().contiguous() for key, tensor in shard.items()}
        files.add_weights(name, held)
        where |= dict.fromkeys(shard, name)
    if len(shards) > 1:
        total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        files.add_json(INDEX, {"metadata": {"total_size": total}, "weight_map": where})
    files.replace()


def load(
    cls: type[Model], folder: str | Path, dtype: torch.dtype | None = None, mtp: bool = True
) -> Model:
    """A model from config.json and the weights, tensor by tensor.

    Beside the model, no more memory is taken than for a tensor; the files are mapped, and the
    system drops their pages when it needs the memory.

    Args:
        cls: `HybridLM`.
        folder: of the checkpoint.
        dtype: of the weights; what config.json says when None, and float32 if it says nothing.
            Routers stay in float32.
        mtp: whether to take the block that predicts tokens ahead, if config.json has one; some
            programs leave its weights out.

    Raises:
        FileNotFoundError: config.json or a file of weights is missing.
        ValueError: a file is damaged; config.json describes another model; a weight is missing,
            is there twice with different values, has another shape, is not in one of `DTYPES`, or
            is not of such a model; dtype is not one of them.
    """
    folder = Path(folder)
    if dtype is not None:
        dtype = _dtype(str(dtype).removeprefix("torch."))
    given = read_json(folder / CONFIG)
    try:
        config = HybridConfig.from_hf(given)
        dtype = dtype or _dtype_of(given)
    except ValueError as error:
        raise ValueError(f"folder: {folder / CONFIG}: {error}") from error
    if not mtp:
        config = config.changed(pattern=config.layers)
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


def _dtype_of(given: dict[str, Any]) -> torch.dtype:
    names = [given[key] for key in ("dtype", "torch_dtype") if given.get(key) is not None]
    return _dtype(names[0]) if names else torch.float32


def _dtype(name: object) -> torch.dtype:
    if isinstance(name, str) and name in DTYPES:
        return DTYPES[name]
    raise ValueError(
        f"dtype: expected one of {', '.join(DTYPES)}, got {name!r}; "
        "from_pretrained(folder, dtype=torch.bfloat16) does not ask config.json"
    )


@torch.no_grad()
def _fill(model: HybridLM, folder: Path, mtp: bool) -> None:
    """Copy every tensor to its place.

    Raises:
        ValueError: one is missing, there twice, of another shape or dtype, or has no place.
    """
    places = dict([*model.named_parameters(), *model.named_buffers()])
    left = {
        Place(name, expert)
        for name, weight in places.items()
        for expert in (range(len(weight)) if ".experts." in name else (None,))
    }
    filled: dict[Place, str] = {}
    for path in weight_files(folder):
        for theirs, tensor in tensors(path):
            place = place_of(theirs, len(model.config.mtp_layers))
            if not mtp and place.name.startswith("mtp."):
                continue
            if place.name == "lm_head.weight" and model.config.tie_embeddings:
                place = Place("embeddings.weight")
            if place not in left and place not in filled:
                raise ValueError(_no_place(path, theirs, place, places))
            target = places[place.name]
            if place.expert is not None:
                target = target[place.expert]
            _check(path, theirs, tensor, target)
            if place in filled:
                _check_same(path, theirs, tensor, target, filled[place])
            target.copy_(tensor)
            left.discard(place)
            filled[place] = theirs
    if left:
        names = sorted(p.name if p.expert is None else f"{p.name}[{p.expert}]" for p in left)
        raise ValueError(_lacks(folder, names))


def _no_place(path: Path, theirs: str, place: Place, places: dict[str, Tensor]) -> str:
    if place.expert is not None and place.name in places:
        return f"folder: {theirs!r} is of more than {len(places[place.name])} experts"
    return f"folder: {path.name} has {theirs!r}, no weight of such a model"


def _check(path: Path, theirs: str, tensor: Tensor, target: Tensor) -> None:
    """Raise ValueError unless the tensor is what config.json says."""
    if tensor.dtype not in DTYPES.values():
        raise ValueError(
            f"folder: {theirs!r} in {path.name} is of {str(tensor.dtype)[6:]}, expected one of "
            f"{', '.join(DTYPES)}; quantized weights are not read"
        )
    if tensor.shape != target.shape:
        raise ValueError(
            f"folder: {theirs!r} in {path.name} has shape {tuple(tensor.shape)}, "
            f"config.json says {tuple(target.shape)}"
        )


def _check_same(path: Path, theirs: str, tensor: Tensor, there: Tensor, first: str) -> None:
    """Raise ValueError unless two tensors that have one place here are equal."""
    if torch.equal(tensor.to(there.dtype), there):
        return
    why = "both name one weight"
    if theirs.startswith("mtp."):
        why = "this library has one block for all depths"
    raise ValueError(f"folder: {theirs!r} in {path.name} differs from {first!r}, and {why}")


def _lacks(folder: Path, names: list[str]) -> str:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    text = f"folder: {folder} lacks {shown}"
    if all(name.startswith("mtp.") for name in names):
        text += "; load it without tokens ahead: mtp=False"
    return text


def _state(model: HybridLM) -> dict[str, Tensor] | None:
    """Whole weights on the first process, None on the others; all of them have to call it."""
    from nemotron_blocks.parallel.weights import full_state_dict, is_spread

    state = full_state_dict(model) if is_spread(model) else dict(model.state_dict())
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
