"""Graphs whose neighbours mostly differ in class, each with ten splits, in files `<name>.npz`.

O. Platonov, D. Kuznedelev, M. Diskin, A. Babenko, L. Prokhorenkova, "A critical look at the
evaluation of GNNs under heterophily: are we really making progress?", ICLR 2023 (arXiv:2302.11640);
files: github.com/yandex-research/heterophilous-graphs (data/).
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from graphnets.datasets.node_graph import NodeGraph, undirected

ARRAYS = ("node_features", "node_labels", "edges", "train_masks", "val_masks", "test_masks")


def load_heterophilous(path: str | Path) -> NodeGraph:
    """Read one of the `.npz` files, with its ten splits; directed edges get their mirrors.

    The paper reports accuracy, and for minesweeper, tolokers and questions the area under the ROC
    curve of class 1.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or lacks an array.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"path: no {path}; get it from github.com/yandex-research/heterophilous-graphs (data/)"
        )
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    # RuntimeError: a flag that says encrypted, or packed in a way that is not implemented.
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"{path}: not a whole .npz file ({error}); get it again") from error
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise ValueError(f"{path}: has no array {missing[0]!r}; it has {sorted(arrays)}")
    tensors = {name: torch.from_numpy(arrays[name]) for name in ARRAYS}
    return NodeGraph(
        undirected(tensors["edges"].T.long(), len(tensors["node_labels"])),
        tensors["node_features"].float(),
        tensors["node_labels"].long(),
        tensors["train_masks"],
        tensors["val_masks"],
        tensors["test_masks"],
    )
