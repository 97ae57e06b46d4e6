"""Files of pairs, `uid1,uid2` a line: known pairs, and predictions to hand in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from graphnets.matching.clustering import connected_components
from graphnets.matching.pairs import canonical_pairs, checked_pairs
from graphnets.matching.text_blocks import line_error, lines, whole_file


def load_pairs(path: str | Path, names: Sequence[str]) -> Tensor:
    """The pairs of a file, (k, 2) int64, each once and sorted, whatever their order there.

    Args:
        path: of lines `uid1,uid2` without a header; gzipped if its name ends in .gz.
        names: (n,) of the devices that may occur.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not of two names, names a device that is not in `names`, or pairs one
            with itself; the message has file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: no file {path}; expected lines 'uid1,uid2'")
    numbers = {name: i for i, name in enumerate(names)}
    pairs: list[tuple[int, int]] = []
    for line, text in enumerate(lines(path), 1):
        uids = text.decode(errors="replace").split(",")
        if len(uids) != 2:
            raise line_error(path, line, f"expected 'uid1,uid2', got {text[:80]!r}")
        unknown = [uid for uid in uids if uid not in numbers]
        if unknown:
            raise line_error(path, line, f"no device {unknown[0]!r} in the logs")
        if uids[0] == uids[1]:
            raise line_error(path, line, f"device {uids[0]!r} is paired with itself")
        pairs.append((numbers[uids[0]], numbers[uids[1]]))
    found = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return canonical_pairs(found, len(names))


def save_pairs(path: str | Path, pairs: Tensor, names: Sequence[str]) -> None:
    """Write pairs as lines `uid1,uid2`, the form in which CIKM Cup 2016 takes predictions.

    Args:
        path: of the file; one that is there is replaced, once the new one is
            whole; gzipped if its name ends in .gz.
        pairs: (k, 2) int64, as `canonical_pairs` gives them; written in their order.
        names: (n,) of the devices.

    Raises:
        ValueError: a pair is not of two devices that exist, a pair comes twice, or a name that is
            written has a comma or the end of a line in it.
    """
    numbers: list[list[int]] = checked_pairs(pairs, len(names)).tolist()
    for name in {names[i] for pair in numbers for i in pair}:
        if any(mark in name for mark in ",\r\n"):
            raise ValueError(f"names: {name!r} cannot be written as a field of 'uid1,uid2'")
    with whole_file(Path(path)) as file:
        file.writelines(f"{names[i]},{names[j]}\n" for i, j in numbers)


def users_of_pairs(pairs: Tensor, n_devices: int) -> Tensor:
    """The user of each device, (n,) int64: connected components, and -1 for devices in no pair.

    Users are numbered by their first devices. Pairs (k, 2) int64. Each two devices of a component
    are one user's, also where their pair is not listed.

    Raises:
        ValueError: a device does not exist, or is paired with itself.
    """
    pairs = canonical_pairs(pairs, n_devices)
    labels = connected_components(n_devices, pairs)
    users = torch.full((n_devices,), -1)
    paired = pairs.unique()
    users[paired] = labels[paired].unique(return_inverse=True)[1]
    return users
