"""Small data sets in the files of the public ones."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp


def write_planetoid(folder: Path, name: str) -> None:
    """Six papers; 5 and 3 are tested, 4 is in no file."""
    folder.mkdir(parents=True, exist_ok=True)
    one_hot = np.eye(2, dtype=np.int32)
    parts = {
        "y": one_hot[[0, 1]],
        "ally": one_hot[[0, 1, 1]],
        "ty": one_hot[[1, 0]],
        "allx": sp.csr_matrix(np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1]], dtype=np.float32)),
        "tx": sp.csr_matrix(np.array([[1, 1, 1], [0, 0, 1]], dtype=np.float32)),
        "graph": {0: [1, 1, 0], 1: [0], 2: [5], 3: [], 4: [], 5: [2]},
    }
    for kind, part in parts.items():
        (folder / f"ind.{name}.{kind}").write_bytes(pickle.dumps(part))
    (folder / f"ind.{name}.test.index").write_text("5\n3\n")


def node_arrays(n: int = 40, splits: int = 2) -> dict[str, np.ndarray]:
    """A ring whose two classes are told by the first feature."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(n) % 2)
    features = rng.standard_normal((n, 3)).astype(np.float32)
    features[:, 0] += 4 * labels
    part = np.array([rng.permutation(np.arange(n) % 3) for _ in range(splits)])
    return {
        "node_features": features,
        "node_labels": labels.astype(np.int64),
        "edges": np.stack([np.arange(n), (np.arange(n) + 1) % n], 1),
        "train_masks": part == 0,
        "val_masks": part == 1,
        "test_masks": part == 2,
    }


def save(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


def write_heterophilous(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, node_arrays())


def tu_files(graphs: int = 30) -> dict[str, str]:
    """Paths of 2 to 4 nodes; the class is the label of the first node."""
    edges, indicator, labels, kinds, first = [], [], [], [], 1
    for graph in range(graphs):
        n, kind = 2 + graph % 3, graph % 2
        edges += [e for i in range(first, first + n - 1) for e in ((i, i + 1), (i + 1, i))]
        indicator += [graph + 1] * n
        kinds += [7 + kind] + [9] * (n - 1)
        labels.append(2 * kind - 1)
        first += n
    lines = {"graph_indicator": indicator, "graph_labels": labels, "node_labels": kinds}
    files = {name: "".join(f"{x}\n" for x in column) for name, column in lines.items()}
    return files | {"A": "".join(f"{i}, {j}\n" for i, j in edges)}


def write_tu(path: Path, files: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for part, text in files.items():
            archive.writestr(f"{path.stem}/{path.stem}_{part}.txt", text)
