"""Sets of graphs with classes in the format of the TU Dortmund collection.

C. Morris, N. M. Kriege, F. Bause, K. Kersting, P. Mutzel, M. Neumann, "TUDataset: a collection of
benchmark datasets for learning with graphs", 2020 (arXiv:2007.08663). S. Ivanov, S. Sviridov,
E. Burnaev, "Understanding isomorphism bias in graph data sets", 2019 (arXiv:1910.12091) found that
many of the sets hold a graph several times; their files without (github.com/nd7141/graph_datasets)
have the same format.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from graphnets.graph_batch import GraphBatch
from graphnets.ragged import Ragged
from sparsetorch import CSRTensor

NO_EDGES = np.zeros((0, 2))


def load_tu(path: str | Path, attributes: bool = False) -> GraphBatch:
    """Read a set of graphs from `<NAME>.zip` or from the folder `<NAME>` that was in it.

    Features are the node labels, one-hot; with `attributes` the numbers of nodes are appended; of a
    set that has neither, the node degrees, one-hot. The labels of graphs are numbered from 0 in
    their order. Edges have the value 1, also where a file lists them twice; labels of edges are
    not read. Equivalent to PyG's `TUDataset(use_node_attr=attributes)` with `OneHotDegree` for sets
    without features.

    Raises:
        FileNotFoundError: no such file, or one is missing in it.
        ValueError: a file that does not fit the others; the message says which.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"path: no {path}; get <NAME>.zip from github.com/nd7141/graph_datasets or "
            "chrsmrrs.github.io/datasets"
        )
    graph = _required(path, "graph_indicator", np.zeros(0))
    classes = _required(path, "graph_labels", np.zeros(0))
    edges = _required(path, "A", NO_EDGES).reshape(-1, 2).astype(np.int64) - 1
    n = len(graph)
    labels = torch.from_numpy(np.unique(classes, return_inverse=True)[1].reshape(-1))
    if len(edges) and not (edges.min() >= 0 and edges.max() < n):
        raise ValueError(f"{path}: A names node {edges.max() + 1}; there are {n}")
    both = torch.from_numpy(edges.T.copy())
    adjacency = CSRTensor.from_edge_index(both, n_nodes=n).map(torch.ones_like)
    row = torch.from_numpy(graph.astype(np.int64)) - 1
    try:
        nodes = Ragged.from_rows(row, _features(path, adjacency, attributes), len(labels))
        return GraphBatch(adjacency, nodes, labels)
    except ValueError as error:
        raise ValueError(f"{path}: graph_indicator, graph_labels and A: {error}") from error


def _features(path: Path, adjacency: CSRTensor, attributes: bool) -> Tensor:
    parts = []
    kinds = _array(path, "node_labels")
    if kinds is not None:
        columns = kinds.reshape(len(kinds), -1).T  # some sets have several labels a node
        parts = [one_hot(_numbered(column)).float() for column in columns]
    numbers = _array(path, "node_attributes") if attributes else None
    if numbers is not None:
        parts.append(torch.from_numpy(numbers.reshape(len(numbers), -1)).float())
    for part in parts:
        if len(part) != adjacency.shape[0]:
            raise ValueError(f"expected {adjacency.shape[0]} rows for the nodes, got {len(part)}")
    return torch.cat(parts, 1) if parts else one_hot(adjacency.pattern.crow.diff().long()).float()


def _numbered(column: np.ndarray) -> Tensor:
    return torch.from_numpy(np.unique(column, return_inverse=True)[1].reshape(-1))


def _required(path: Path, part: str, empty: np.ndarray) -> np.ndarray:
    array = _array(path, part)
    if array is None:
        raise FileNotFoundError(f"{path}: has no {path.stem}_{part}.txt")
    return array if array.size else empty


def _array(path: Path, part: str) -> np.ndarray | None:
    """The numbers of one file of the set; None where there is no such file."""
    name = f"{path.stem}_{part}.txt"
    try:
        if path.is_dir():
            text = (path / name).read_bytes() if (path / name).is_file() else None
        else:
            with zipfile.ZipFile(path) as archive:
                inner = f"{path.stem}/{name}"
                text = archive.read(inner) if inner in archive.namelist() else None
        if text is None:
            return None
        lines = text.decode().splitlines()
        return np.loadtxt(lines, delimiter=",", ndmin=1) if lines else np.zeros(0)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not a whole .zip file ({error}); get it again") from error
    except ValueError as error:
        raise ValueError(f"{path}: {name}: {error}") from error
