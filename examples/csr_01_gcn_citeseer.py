"""Classify the papers of CiteSeer by a graph convolutional network on sparse matrices.

    Z = softmax(A^ relu(A^ X W_0) W_1),    A^ = D^-1/2 (A + I) D^-1/2

T. N. Kipf, M. Welling, "Semi-supervised classification with graph convolutional networks", ICLR
2017 (arXiv:1609.02907), equation 9 and section 5.2: 16 hidden units, dropout, 20 labels per class.
They report 70.3 % of the test papers. Both the graph and the bags of words X are sparse here.

    python examples/csr_01_gcn_citeseer.py [folder with the files ind.citeseer.*]

The files are in the folder data of github.com/kimiyoung/planetoid.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout

from graphnets.datasets import NodeGraph, load_planetoid
from sparsetorch import CSRTensor
from sparsetorch.nn import GCNConv, gcn_normalize

FOLDER = Path(__file__).parents[2] / "shared/data/planetoid/CiteSeer/raw"


class GCN(nn.Module):
    """Two graph convolutions, with dropout before each."""

    def __init__(self, width_in: int, classes: int, width: int = 16):
        super().__init__()
        self.first, self.second = GCNConv(width_in, width), GCNConv(width, classes)

    def forward(self, A: CSRTensor, X: CSRTensor | Tensor) -> Tensor:
        """A (n, n), X (n, words) -> logits (n, classes)."""

        def drop(x: Tensor) -> Tensor:
            return dropout(x, 0.5, self.training)

        hidden = self.first(A, X.map(drop) if isinstance(X, CSRTensor) else drop(X))
        return self.second(A, drop(hidden.relu()))


def train(
    graph: NodeGraph, A: CSRTensor, X: CSRTensor | Tensor, seed: int, epochs: int
) -> tuple[float, float]:
    """Accuracy on the test papers, and seconds per epoch.

    Adam, until the validation loss exceeds the mean of its last ten values.
    """
    torch.manual_seed(seed)
    net = GCN(X.shape[-1], graph.classes)
    labelled, chosen, tested = graph.train[0], graph.validation[0], graph.test[0]
    decayed = {"params": net.first.parameters(), "weight_decay": 5e-4}
    optimizer = torch.optim.Adam([decayed, {"params": net.second.parameters()}], lr=0.01)
    logits, losses, start = torch.empty(0), [], time.perf_counter()
    for _ in range(epochs):
        net.train()
        optimizer.zero_grad()
        cross_entropy(net(A, X)[labelled], graph.labels[labelled]).backward()
        optimizer.step()
        with torch.no_grad():
            logits = net.eval()(A, X)
        losses.append(cross_entropy(logits[chosen], graph.labels[chosen]).item())
        if len(losses) > 10 and losses[-1] > np.mean(losses[-11:-1]):
            break
    seconds = (time.perf_counter() - start) / len(losses)
    right = logits[tested].argmax(1) == graph.labels[tested]
    return right.double().mean().item(), seconds


def run(folder: Path = FOLDER, seeds: int = 5, epochs: int = 200) -> dict[str, float]:
    """Mean and deviation of the accuracy, and the cost of the sparse and the dense way."""
    graph = load_planetoid(folder, "citeseer")
    assert isinstance(graph.features, CSRTensor)
    A = gcn_normalize(graph.adjacency)
    X = graph.features.scale_rows(1 / graph.features.sum(-1).clamp(min=1))
    results = [train(graph, A, X, seed, epochs) for seed in range(seeds)]
    accuracies = [accuracy for accuracy, _ in results]
    # A module takes what has a `matmul`, so a dense adjacency serves as well.
    dense: tuple = (A.to_dense(), X.to_dense())
    return {
        "accuracy": float(np.mean(accuracies)),
        "deviation": float(np.std(accuracies, ddof=1)) if seeds > 1 else 0.0,
        "epoch_ms": 1e3 * float(np.median([seconds for _, seconds in results])),
        "dense_epoch_ms": 1e3 * train(graph, *dense, seed=0, epochs=2)[1],
        "megabytes": sum(8 * M.nnz + 4 * M.shape[0] for M in (A, X)) / 1e6,
        "dense_megabytes": sum(4 * M.numel() for M in dense) / 1e6,
    }


def main() -> None:
    """Print what `run` returns."""
    got = run(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
    print(f"test accuracy {got['accuracy']:.1%} +- {got['deviation']:.1%} over five seeds")
    print(f"an epoch: {got['epoch_ms']:.1f} ms sparse, {got['dense_epoch_ms']:.1f} ms dense")
    print(f"A and X: {got['megabytes']:.2f} MB sparse, {got['dense_megabytes']:.1f} MB dense")


if __name__ == "__main__":
    main()
