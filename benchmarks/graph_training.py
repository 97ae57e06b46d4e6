"""Training for node and for graph classification: what is fed, one epoch, and a whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from graph_networks import CSR, OURS, Net, Shape, given, mean_pool, propagation
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import cross_entropy

from graphnets.datasets import load_heterophilous, load_planetoid, load_tu, stratified_fold
from graphnets.graph_batch import GraphBatch
from sparsetorch import CSRTensor

PLANETOID = {"Cora": "cora", "CiteSeer": "citeseer"}
HETEROPHILOUS = ("minesweeper", "chameleon_filtered", "squirrel_filtered", "actor", "tolokers")
NODE_SETS = (*PLANETOID, *HETEROPHILOUS)
GRAPH_SETS = ("MUTAG", "PROTEINS", "PTC_MR", "BZR", "ENZYMES", "IMDB-BINARY", "NCI1")
BY_AREA = ("minesweeper", "tolokers")  # ROC AUC, not accuracy
BATCH = 32  # graphs


@dataclass(frozen=True)
class Recipe:
    """How a set is learned: by Adam, until `patience` epochs in turn have not validated better."""

    shape: Shape
    lr: float
    decay: float
    epochs: int
    patience: int


def recipe(name: str, model: str) -> Recipe:
    if name in PLANETOID:
        return Recipe(Shape(64 if model == "GAT" else 16, 2, 0.5, plain=True), 0.01, 5e-4, 200, 50)
    if name in HETEROPHILOUS:
        return Recipe(Shape(64, 3, 0.2), 5e-3, 0.0, 100, 50)
    return Recipe(Shape(64, 3, 0.2), 1e-3, 0.0, 100, 30)


class Step(NamedTuple):
    """What one step of a contender is fed: its form of the matrix, features, labels, pooling."""

    graph: Any
    x: Tensor | CSRTensor
    labels: Tensor
    pool: Callable[[Tensor], Tensor] | None


Mask = Tensor | None  # nodes that count; None for graphs, which all do
Steps = Callable[[], Iterator[tuple[Step, Mask]]]


class Task(NamedTuple):
    """One split of one set for one contender: iterators over an epoch and over what is scored."""

    width_in: int
    classes: int
    train: Steps
    validation: Steps
    test: Steps


def node_task(who: str, model: str, name: str, data: Path, seed: int) -> Task:
    if name in PLANETOID:
        graph = load_planetoid(data / "planetoid" / name / "raw", PLANETOID[name])
        assert isinstance(graph.features, CSRTensor)
        x = graph.features.scale_rows(1 / graph.features.sum(-1).clamp(min=1))
    else:
        graph = load_heterophilous(data / "heterophilous" / f"{name}.npz")
        x = graph.features
    matrix = given(who, model, propagation(model, graph.adjacency))
    step, split = Step(matrix, x, graph.labels, None), seed % len(graph.train)
    scored = step._replace(x=x.to_dense()) if isinstance(x, CSRTensor) else step

    def once(step: Step, masks: Tensor) -> Steps:
        return lambda: iter([(step, masks[split])])

    steps = once(step, graph.train), once(scored, graph.validation), once(scored, graph.test)
    return Task(x.shape[1], graph.classes, *steps)


def graph_task(who: str, model: str, name: str, data: Path, seed: int) -> Task:
    """Ten stratified folds: `seed` says which one tests."""
    graphs = load_tu(data / "tu" / f"{name}.zip")
    labels = graphs.labels
    assert labels is not None
    graphs = GraphBatch(propagation(model, graphs.adjacency), graphs.nodes, labels)
    fold = stratified_fold(labels, seed % 10)
    collate = our_collation(model, graphs) if who == OURS else peer_collation(who, model, graphs)
    order = torch.Generator().manual_seed(seed)

    def shuffled() -> Iterator[tuple[Step, Mask]]:
        drawn = fold.train[torch.randperm(len(fold.train), generator=order)]
        return ((collate(chosen), None) for chosen in drawn.split(BATCH))

    def kept(part: Tensor) -> Steps:  # scored again and again: batched once
        batches = [(collate(chosen), None) for chosen in part.split(256)]
        return lambda: iter(batches)

    classes = int(labels.max()) + 1
    width_in = graphs.nodes.values.shape[1]
    return Task(width_in, classes, shuffled, kept(fold.validation), kept(fold.test))


def our_collation(model: str, graphs: GraphBatch) -> Callable[[Tensor], Step]:
    def collate(chosen: Tensor) -> Step:
        batch = graphs.select(chosen)
        assert batch.labels is not None
        pool = mean_pool(OURS, batch.membership, batch.nodes.row)
        return Step(given(OURS, model, batch.adjacency), batch.nodes.values, batch.labels, pool)

    return collate


def peer_collation(who: str, model: str, graphs: GraphBatch) -> Callable[[Tensor], Step]:
    """As PyG's DataLoader does it: a list of graphs, collated for each batch."""
    from torch_geometric.data import Batch, Data

    graph_list = []
    for i in range(len(graphs)):
        one = graphs.select(torch.tensor([i]))
        assert one.labels is not None
        edges, weights = one.adjacency.to_edge_index()
        x = one.nodes.values
        graph_list.append(Data(x=x, edge_index=edges, edge_weight=weights, y=one.labels))

    def collate(chosen: Tensor) -> Step:
        batch: Any = Batch.from_data_list([graph_list[i] for i in chosen.tolist()])
        edges = (batch.edge_index,) if model == "GAT" else (batch.edge_index, batch.edge_weight)
        if who == CSR and model != "GAT":
            from torch_geometric.utils import to_torch_csr_tensor

            sources, weights = batch.edge_index.flip(0), batch.edge_weight
            edges = (to_torch_csr_tensor(sources, weights, (len(batch.x), len(batch.x))),)
        pool = _peer_pool(batch.batch, len(chosen))
        return Step(edges, batch.x, batch.y, pool)

    return collate


def _peer_pool(batch: Tensor, count: int) -> Callable[[Tensor], Tensor]:
    from torch_geometric.nn import global_mean_pool

    return lambda x: global_mean_pool(x, batch, count)


def task_of(who: str, model: str, name: str, data: Path, seed: int) -> Task:
    make = graph_task if name in GRAPH_SETS else node_task
    return make(who, model, name, data, seed)


def network(who: str, model: str, name: str, task: Task, seed: int) -> Net:
    return Net(who, model, recipe(name, model).shape, task.width_in, task.classes, seed)


def loss_of(net: Net, step: Step, mask: Mask) -> Tensor:
    logits = net(step.graph, step.x, step.pool)
    if mask is None:
        return cross_entropy(logits, step.labels)
    return cross_entropy(logits[mask], step.labels[mask])


def epoch(net: Net, optimizer: torch.optim.Optimizer, task: Task) -> None:
    net.train()
    for step, mask in task.train():
        optimizer.zero_grad()
        loss_of(net, step, mask).backward()
        optimizer.step()


def adam(net: Net, made: Recipe) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=made.lr, weight_decay=made.decay)


class Verdict(NamedTuple):
    score: float  # accuracy, or ROC AUC
    loss: float


@torch.no_grad()
def judged(net: Net, name: str, parts: Sequence[Steps]) -> list[Verdict]:
    """Each part in evaluation mode; parts of one graph share one pass over it."""
    net.eval()
    known: dict[int, Tensor] = {}
    found = []
    for part in parts:
        pieces = []
        for step, mask in part():
            if id(step) not in known:
                known[id(step)] = net(step.graph, step.x, step.pool)
            kept = slice(None) if mask is None else mask
            pieces.append((known[id(step)][kept], step.labels[kept]))
        logits, labels = (torch.cat(tensors) for tensors in zip(*pieces))
        score = roc_auc(logits, labels) if name in BY_AREA else accuracy(logits, labels)
        found.append(Verdict(score, cross_entropy(logits, labels).item()))
    return found


def accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).double().mean().item()


def roc_auc(logits: Tensor, labels: Tensor) -> float:
    """The share of pairs of one node of each class that are in order, ties as half of one."""
    margin = (logits[:, 1] - logits[:, 0]).double().numpy()
    positive = (labels == 1).numpy()
    n, m = positive.sum(), (~positive).sum()
    return float((rankdata(margin)[positive].sum() - n * (n + 1) / 2) / (n * m))


def run(
    who: str, model: str, name: str, data: Path, seed: int, epochs: int | None = None
) -> dict[str, Any]:
    """Train; the scores of the epoch that validates best, of equal ones that of the least loss."""
    made = recipe(name, model)
    task = task_of(who, model, name, data, seed)
    net = network(who, model, name, task, seed)
    optimizer = adam(net, made)
    torch.manual_seed(seed)  # of the dropout, the same for every contender
    best, found = (-1.0, 0.0), {}
    for number in range(1, (epochs or made.epochs) + 1):
        epoch(net, optimizer, task)
        validation, test = judged(net, name, (task.validation, task.test))
        if (validation.score, -validation.loss) > best:
            best = (validation.score, -validation.loss)
            found = {"validation": validation.score, "test": test.score, "epoch": number}
        elif number - found["epoch"] >= made.patience:
            break
    return found
