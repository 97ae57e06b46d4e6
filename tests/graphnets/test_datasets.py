"""Readers of benchmark graphs: small files of each kind, damaged ones, and the real sets."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graph_files import node_arrays, save, tu_files, write_heterophilous, write_planetoid, write_tu

from graphnets.datasets import (
    NodeGraph,
    load_heterophilous,
    load_planetoid,
    load_tu,
    stratified_fold,
)
from sparsetorch import CSRTensor

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def real() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"no {DATA}: the real sets are not part of the project")
    return DATA


def test_planetoid_s_files(tmp_path):
    write_planetoid(tmp_path, "tiny")
    graph = load_planetoid(tmp_path, "tiny")
    expected = torch.zeros(6, 6)
    expected[[0, 1, 2, 5], [1, 0, 5, 2]] = 1  # each edge once, no self-loop
    assert torch.equal(graph.adjacency.to_dense(), expected)
    words = [[1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 1, 1]]
    assert graph.features.to_dense().tolist() == words
    assert graph.labels.tolist() == [0, 1, 1, 0, 0, 1]
    assert graph.train[0].nonzero().flatten().tolist() == [0, 1]
    assert graph.test[0].nonzero().flatten().tolist() == [3, 5]
    (tmp_path / "ind.tiny.ty").write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match=r"ind\.tiny\.ty: not a file of Planetoid"):
        load_planetoid(tmp_path, "tiny")


def test_planetoid_s_files_that_are_not_there_or_would_run_code(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no ind\.citeseer\.graph in .*planetoid"):
        load_planetoid(tmp_path, "citeseer")
    (tmp_path / "ind.evil.graph").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match=r"expected arrays and lists, got \w+\.system"):
        load_planetoid(tmp_path, "evil")


def test_heterophilous_files(tmp_path):
    path = tmp_path / "set.npz"
    write_heterophilous(path)
    graph, arrays = load_heterophilous(path), node_arrays()
    assert graph.adjacency.nnz == 2 * 40
    assert graph.adjacency.pattern.is_symmetric
    assert torch.equal(graph.features.to_dense(), torch.from_numpy(arrays["node_features"]))
    assert graph.train.shape == (2, 40)
    assert graph.classes == 2
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"not a whole \.npz file"):
        load_heterophilous(path)
    save(path, {k: v for k, v in arrays.items() if k != "val_masks"})
    with pytest.raises(ValueError, match="has no array 'val_masks'"):
        load_heterophilous(path)
    with pytest.raises(FileNotFoundError, match="heterophilous-graphs"):
        load_heterophilous(tmp_path / "absent.npz")
    save(path, arrays | {"edges": arrays["edges"] + 1})
    with pytest.raises(ValueError, match="expected indices from 0 to 39"):
        load_heterophilous(path)
    save(path, arrays | {"test_masks": arrays["train_masks"]})
    with pytest.raises(ValueError, match="a node is in two of them"):
        load_heterophilous(path)


@pytest.mark.parametrize(
    ("header", "at", "bit", "cause"),
    [
        (b"PK\3\4", 28, 1, zlib.error),  # where the first array begins
        (b"PK\1\2", 6, 64, NotImplementedError),  # the version of zip that it needs
        (b"PK\1\2", 8, 1, RuntimeError),  # whether it is encrypted
    ],
)
def test_a_flipped_bit_is_a_damaged_heterophilous_file(tmp_path, header, at, bit, cause):
    path = tmp_path / "set.npz"
    arrays: dict[str, Any] = node_arrays()
    np.savez_compressed(path, **arrays)  # as the public files are
    assert load_heterophilous(path).classes == 2
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(header) + at] ^= bit
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"set\.npz: not a whole \.npz file") as caught:
        load_heterophilous(path)
    assert type(caught.value.__cause__) is cause


@pytest.mark.parametrize("unpacked", [False, True])
def test_the_files_of_tu(tmp_path, unpacked):
    path = tmp_path / "TINY.zip"
    write_tu(path, tu_files(3) | {"node_attributes": "".join(f"{i}.5, 1\n" for i in range(9))})
    if unpacked:
        zipfile.ZipFile(path).extractall(tmp_path)
        path = tmp_path / "TINY"
    graphs = load_tu(path)
    assert graphs.nodes.ptr.tolist() == [0, 2, 5, 9]
    assert graphs.labels is not None
    assert graphs.labels.tolist() == [0, 1, 0]
    assert graphs.nodes.values[:3].tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert graphs.adjacency.to_dense()[2:5, 2:5].tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert load_tu(path, attributes=True).nodes.values[1].tolist() == [0, 0, 1, 1.5, 1]


def test_sets_without_features_get_degrees(tmp_path):
    files = tu_files(2) | {"A": "1, 2\n2, 1\n2, 1\n"}  # an edge twice; the second graph has none
    del files["node_labels"]
    write_tu(tmp_path / "T.zip", files)
    graphs = load_tu(tmp_path / "T.zip")
    assert graphs.adjacency.values.tolist() == [1, 1]
    assert graphs.nodes.values.tolist() == [[0, 1], [0, 1], [1, 0], [1, 0], [1, 0]]


def test_damaged_files_of_tu(tmp_path):
    path, files = tmp_path / "T.zip", tu_files(3)

    def wrong(error: type[Exception], match: str, **changed: str) -> None:
        write_tu(path, files | changed)
        with pytest.raises(error, match=match):
            load_tu(path)

    wrong(ValueError, r"T\.zip: A names node 10; there are 9", A="1, 10\n")
    wrong(ValueError, "an edge leads from one graph to another", A="1, 3\n")
    wrong(ValueError, "expected 0 to 1, got 0 to 2", graph_labels="1\n1\n")
    wrong(ValueError, "T_A.txt: ", A="1, two\n")
    wrong(ValueError, "expected 9 rows for the nodes, got 1", node_labels="1\n")
    write_tu(path, {k: v for k, v in files.items() if k != "graph_labels"})
    with pytest.raises(FileNotFoundError, match=r"has no T_graph_labels\.txt"):
        load_tu(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"not a whole \.zip file"):
        load_tu(path)
    with pytest.raises(FileNotFoundError, match=r"no .*absent\.zip; get"):
        load_tu(tmp_path / "absent.zip")


def test_folds_share_out_every_class():
    labels = torch.tensor([0] * 33 + [1] * 12 + [2] * 3)[torch.randperm(48)]
    tested = torch.zeros(48)
    for number in range(10):
        fold = stratified_fold(labels, number)
        parts = torch.cat(fold)
        assert sorted(parts.tolist()) == list(range(48))
        for label, count in enumerate((33, 12, 3)):
            assert abs(int((labels[fold.test] == label).sum()) - count / 10) < 1
        tested[fold.test] += 1
        following = stratified_fold(labels, (number + 1) % 10)
        assert torch.equal(fold.validation, following.test)
    assert bool((tested == 1).all())
    assert not torch.equal(stratified_fold(labels, 0, seed=1).test, stratified_fold(labels, 0).test)
    with pytest.raises(ValueError, match="folds: expected 3 to 48"):
        stratified_fold(labels, 0, folds=2)
    with pytest.raises(ValueError, match="fold: expected 0 to 9, got 10"):
        stratified_fold(labels, 10)


def test_node_graphs_whose_parts_do_not_fit():
    n, mask = 3, torch.zeros(1, 3, dtype=torch.bool)
    parts = (CSRTensor.eye(n), torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"train: expected bool \(splits, 3\)"):
        NodeGraph(*parts, mask.int(), mask, mask)
    with pytest.raises(ValueError, match=r"test: expected bool \(splits, 3\), .* \(1, 2\)"):
        NodeGraph(*parts, mask, mask, mask[:, :2])
    with pytest.raises(ValueError, match=r"adjacency: expected \(3, 3\)"):
        NodeGraph(CSRTensor.eye(2), *parts[1:], mask, mask, mask)


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "words"),
    [("Cora", 2708, 5278, 1433), ("CiteSeer", 3327, 4552, 3703)],
)
def test_the_citation_graphs(real, name, nodes, edges, words):
    graph = load_planetoid(real / "planetoid" / name / "raw", name.lower())
    assert graph.adjacency.nnz == 2 * edges  # without self-loops and repeated edges
    assert graph.features.shape == (nodes, words)
    assert torch.bincount(graph.labels[graph.train[0]]).tolist() == [20] * graph.classes
    assert (int(graph.validation.sum()), int(graph.test.sum())) == (500, 1000)


def test_the_heterophilous_graphs(real):
    graph = load_heterophilous(real / "heterophilous" / "minesweeper.npz")
    assert graph.adjacency.shape == (10_000, 10_000)
    assert graph.adjacency.nnz == 2 * 39_402  # the paper's table 2
    assert len(graph.train) == 10


@pytest.mark.parametrize(("name", "graphs", "features"), [("MUTAG", 135, 6), ("PROTEINS", 975, 3)])
def test_the_sets_of_graphs(real, name, graphs, features):
    got = load_tu(real / "tu" / f"{name}.zip")
    assert (len(got), got.nodes.values.shape[1]) == (graphs, features)
    assert got.adjacency.pattern.is_symmetric


def test_they_are_pyg_s(real, tmp_path):
    pyg = pytest.importorskip("torch_geometric.datasets", reason="needs sparsetorch[graph]")
    (tmp_path / "Cora").mkdir()
    (tmp_path / "Cora" / "raw").symlink_to(real / "planetoid" / "Cora" / "raw")
    theirs = pyg.Planetoid(str(tmp_path), "Cora")[0]
    ours = load_planetoid(real / "planetoid" / "Cora" / "raw", "cora")
    assert torch.equal(ours.features.to_dense(), theirs.x)
    assert torch.equal(ours.labels, theirs.y)
    assert torch.equal(ours.test[0], theirs.test_mask)
    A = CSRTensor.from_edge_index(theirs.edge_index, n_nodes=2708)
    assert torch.equal(ours.adjacency.to_dense(), A.to_dense())
