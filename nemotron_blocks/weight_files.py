"""The files of a checkpoint: JSON, safetensors, and an older checkpoint that a new one replaces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from nemotron_blocks.extras import extra

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_SHARD = re.compile(r"model-\d{5,}-of-\d{5,}\.safetensors")
_PARTIAL = ".partial"


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file.

    Raises:
        FileNotFoundError: there is none of that name.
        ValueError: the file is cut short or damaged, or has no object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"folder: {path.parent} has no {path.name}")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"folder: {path} is cut short or damaged ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"folder: {path}: expected an object, got {type(found).__name__}")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The files that have the weights.

    Raises:
        FileNotFoundError: one is missing.
        ValueError: the index is damaged.
    """
    names = [SINGLE]
    if (folder / INDEX).exists():
        where = read_json(folder / INDEX).get("weight_map")
        if not isinstance(where, dict) or not all(map(_is_file_name, where.values())):
            raise ValueError(
                f"folder: {folder / INDEX}: expected weight_map to give each weight the name of "
                "a file of this folder"
            )
        names = list(dict.fromkeys(where.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"folder: {folder} lacks {', '.join(missing)}")
    return [folder / name for name in names]


def tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a file, one after another.

    Raises:
        ValueError: the file is cut short or damaged.
    """
    safetensors = extra("safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118, it is no dictionary
                yield name, file.get_tensor(name)
    except safetensors.SafetensorError as error:
        raise ValueError(f"folder: {path} is cut short or damaged ({error})") from error


class NewFiles:
    """Files that take the place of an older checkpoint only when all of them are written.

    Until `replace`, each has another name. A process that is killed before it leaves the older
    checkpoint as it was; one that is killed in it leaves a folder without weights, which is
    refused. At no point are files of both read together.

    Args:
        folder: made where there is none.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._names: list[str] = []
        for path in folder.glob(f"*{_PARTIAL}"):
            if _ours(path.name.removesuffix(_PARTIAL)):  # of a process that was killed
                path.unlink()

    def add_json(self, name: str, value: dict[str, Any]) -> None:
        """Write an object to a file."""
        self._path(name).write_text(json.dumps(value, indent=2))

    def add_weights(self, name: str, weights: dict[str, Tensor]) -> None:
        """Write tensors, which have to be contiguous and on the CPU, to a safetensors file."""
        extra("safetensors.torch").save_file(weights, self._path(name), {"format": "pt"})

    def replace(self) -> None:
        """Delete the older checkpoint, and give the files their names.

        The file added last has to be the one without which no weights are found: the index, or
        the only file.
        """
        old = [path for path in self._folder.iterdir() if _SHARD.fullmatch(path.name)]
        # Some programs prefer the single file to the index, and none reads shards without one.
        for path in (self._folder / SINGLE, self._folder / INDEX, *old):
            path.unlink(missing_ok=True)
        for name in self._names:
            (self._folder / (name + _PARTIAL)).replace(self._folder / name)

    def _path(self, name: str) -> Path:
        self._names.append(name)
        return self._folder / (name + _PARTIAL)


def shard_name(number: int, count: int) -> str:
    """The file name of the `number`-th of so many, counted from 1."""
    return SINGLE if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def _ours(name: str) -> bool:
    return name in (CONFIG, INDEX, SINGLE) or _SHARD.fullmatch(name) is not None


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and bool(name) and Path(name).name == name
