"""Read the citation graphs in the files of Planetoid (`ind.citeseer.*`, `ind.cora.*`).

Z. Yang, W. W. Cohen, R. Salakhutdinov, "Revisiting semi-supervised learning with graph embeddings",
ICML 2016; files: github.com/kimiyoung/planetoid. Each node is a paper with a bag of words and a
class; 20 papers of each class are labelled, 500 serve validation, 1000 the test.
"""

import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from sparsetorch import CSRTensor


class CitationGraph(NamedTuple):
    """Adjacency (n, n) of ones, words (n, m) of 0 and 1, classes (n,), and who serves what."""

    adjacency: CSRTensor
    words: CSRTensor
    labels: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor


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


def load(folder: Path, name: str) -> CitationGraph:
    """Read `ind.<name>.*` from a folder.

    Some test papers of CiteSeer are in no file; they get no words and class 0, and are not among
    `test`.

    Raises:
        FileNotFoundError: the files are not there.
    """
    if not (folder / f"ind.{name}.graph").exists():
        raise FileNotFoundError(
            f"folder: no ind.{name}.graph in {folder}; get the ind.{name}.* files from "
            "github.com/kimiyoung/planetoid (data/) and give their folder"
        )
    part: dict[str, Any] = {}
    for kind in ("allx", "tx", "ally", "ty", "y", "graph"):
        with (folder / f"ind.{name}.{kind}").open("rb") as file:
            part[kind] = ArraysOnly(file, encoding="latin1").load()
    test = np.loadtxt(folder / f"ind.{name}.test.index", dtype=np.int64)
    known, n = part["allx"].shape[0], len(part["graph"])
    node = np.append(np.arange(known), test)  # that row i of the files describes
    place = sp.csr_array((np.ones(len(node)), (node, np.arange(len(node)))), (n, len(node)))
    words = place @ sp.vstack([part["allx"], part["tx"]])
    labels = place @ np.concatenate([part["ally"], part["ty"]])
    pairs = [(i, j) for i, others in part["graph"].items() for j in others if i != j]
    edges = torch.tensor(pairs).T
    doubled = CSRTensor.from_edge_index(torch.cat([edges, edges.flip(0)], 1), n_nodes=n)
    n_labelled = len(part["y"])
    return CitationGraph(
        doubled.map(torch.ones_like),  # an edge counts once, however often it is listed
        CSRTensor.from_scipy(sp.csr_array(words), dtype=torch.float32),
        torch.from_numpy(labels.argmax(1)),
        torch.arange(n_labelled),
        torch.arange(n_labelled, n_labelled + 500),
        torch.from_numpy(np.sort(test)),
    )
