"""The citation graphs Cora, CiteSeer and PubMed in the files of Planetoid (`ind.cora.*`).

Z. Yang, W. W. Cohen, R. Salakhutdinov, "Revisiting semi-supervised learning with graph embeddings",
ICML 2016; files: github.com/kimiyoung/planetoid. Each node is a paper with a bag of words and a
class; 20 papers of each class are labelled, 500 serve validation, 1000 the test.
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from graphnets.datasets.node_graph import NodeGraph, undirected
from sparsetorch import CSRTensor


class ArraysOnly(pickle.Unpickler):
    """Reads pickles of arrays and lists, and of nothing that could run code."""

    KNOWN: dict[str, Any] = {  # noqa: RUF012
        "csr_matrix": sp.csr_matrix,
        "ndarray": np.ndarray,
        "dtype": np.dtype,
        "_reconstruct": np._core.multiarray._reconstruct,  # pyright: ignore
        "defaultdict": defaultdict,
        "list": list,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The class of that name, if it is one of arrays and lists."""
        if name not in self.KNOWN:
            raise pickle.UnpicklingError(f"expected arrays and lists, got {module}.{name}")
        return self.KNOWN[name]


def load_planetoid(folder: str | Path, name: str) -> NodeGraph:
    """Read `ind.<name>.*` from a folder: the public split, bags of words of 0 and 1, sparse.

    name: "cora", "citeseer" or "pubmed". Some test papers of CiteSeer are in no file; they get no
    words and class 0, and are not in `test`. Equivalent to PyG's `Planetoid(split="public")`, which
    has them, and repeated edges, too.

    Raises:
        FileNotFoundError: the files are not there.
        ValueError: one of them is not what it should be.
    """
    parts = {kind: _read(Path(folder), name, kind) for kind in KINDS}
    test = np.loadtxt(Path(folder) / f"ind.{name}.test.index", dtype=np.int64)
    known, n = parts["allx"].shape[0], len(parts["graph"])
    node = np.append(np.arange(known), test)  # that row i of the files describes
    place = sp.csr_array((np.ones(len(node)), (node, np.arange(len(node)))), (n, len(node)))
    words = place @ sp.vstack([parts["allx"], parts["tx"]])
    labels = place @ np.concatenate([parts["ally"], parts["ty"]])
    pairs = [(i, j) for i, others in parts["graph"].items() for j in others]
    nodes, n_labelled = torch.arange(n), len(parts["y"])
    return NodeGraph(
        undirected(torch.tensor(pairs).T, n),
        CSRTensor.from_scipy(sp.csr_array(words), dtype=torch.float32),
        torch.from_numpy(labels.argmax(1)),
        (nodes < n_labelled)[None],
        ((nodes >= n_labelled) & (nodes < min(n_labelled + 500, known)))[None],
        torch.isin(nodes, torch.from_numpy(test))[None],
    )


KINDS = ("graph", "allx", "tx", "ally", "ty", "y")


def _read(folder: Path, name: str, kind: str) -> Any:
    path = folder / f"ind.{name}.{kind}"
    if not path.exists():
        raise FileNotFoundError(
            f"folder: no {path.name} in {folder}; get the ind.{name}.* files from "
            "github.com/kimiyoung/planetoid (data/) and give their folder"
        )
    try:
        with path.open("rb") as file:
            return ArraysOnly(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: not a file of Planetoid ({error}); get it again") from error
