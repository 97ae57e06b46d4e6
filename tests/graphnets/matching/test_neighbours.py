import numpy as np
import pytest
import scipy.sparse as sp
import torch

import sparsetorch.extras
from graphnets.matching import neighbours
from graphnets.matching.neighbours import nearest


def unit(n, d=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=g), dim=1)


def sparse_rows(n, d=25, seed=0):
    found = sp.random_array((n, d), density=0.15, rng=np.random.default_rng(seed), format="csr")
    return sp.csr_array(found)


def brute(scores, k, allowed, positive):
    """Lists of (neighbour, score), the nearest first."""
    found = []
    for i, row in enumerate(scores):
        others = [
            j for j in range(len(row)) if j != i and allowed(i, j) and (row[j] > 0 or not positive)
        ]
        others.sort(key=lambda j: -row[j])
        found.append([(j, row[j]) for j in others[:k]])
    return found


def check(found, expected, k):
    for i, row in enumerate(expected):
        absent = k - len(row)
        assert found.index[i].tolist() == [j for j, _ in row] + [-1] * absent
        assert found.score[i, : len(row)].tolist() == pytest.approx([s for _, s in row], abs=1e-6)
        assert bool(found.score[i, len(row) :].isnan().all())


@pytest.mark.parametrize("n", [1, 2, 7, 63])
@pytest.mark.parametrize("among", [None, "other", "same"])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_neighbours_are_those_of_brute_force(monkeypatch, n, among, kind):
    monkeypatch.setattr(neighbours, "SCORES", 100)  # several blocks
    kinds = torch.arange(n) % 3
    vectors = unit(n) if kind == "dense" else sparse_rows(n)
    dense = vectors if isinstance(vectors, torch.Tensor) else torch.from_numpy(vectors.toarray())
    scores = (dense @ dense.T).tolist()

    def allowed(i, j):
        return among is None or (i % 3 == j % 3) == (among == "same")

    found = nearest(vectors, 5) if among is None else nearest(vectors, 5, kinds, among)
    check(found, brute(scores, 5, allowed, kind == "sparse"), 5)


def test_no_devices_and_empty_rows():
    assert nearest(torch.zeros(0, 3), 2).index.shape == (0, 2)
    assert nearest(sp.csr_array((0, 3)), 2).index.shape == (0, 2)
    found = nearest(sp.csr_array((4, 3)), 2)
    assert found.index.tolist() == [[-1, -1]] * 4
    assert bool(found.score.isnan().all())


@pytest.mark.parametrize("among", [None, "other"])
def test_faiss_finds_most_and_never_the_device_itself(among):
    pytest.importorskip("faiss", reason="needs sparsetorch[graph]")
    centres = unit(40, 8).repeat_interleave(25, 0)
    vectors = torch.nn.functional.normalize(centres + unit(1000, 8, seed=1), dim=1)
    kinds = None if among is None else torch.arange(1000) % 2
    exact = nearest(vectors, 10, kinds, exact=True)
    found = nearest(vectors, 10, kinds, exact=False)
    assert not bool((found.index == torch.arange(1000)[:, None]).any())
    common = (found.index[:, :, None] == exact.index[:, None, :]).any(2).double().mean()
    assert common > 0.8
    row, place = (found.index >= 0).nonzero().unbind(1)
    product = (vectors[row] * vectors[found.index[row, place]]).sum(1)
    assert found.score[row, place].tolist() == pytest.approx(product.tolist(), abs=1e-5)
    if kinds is not None:
        assert bool((kinds[row] != kinds[found.index[row, place]]).all())


def test_without_faiss_the_extra_is_named(monkeypatch):
    def missing(module):
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(sparsetorch.extras.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"faiss is not installed: pip install 'sparsetorch\[gr"):
        nearest(unit(50), 3, exact=False)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="k: expected at least one neighbour, got 0"):
        nearest(unit(4), 0)
    with pytest.raises(ValueError, match=r"kinds: expected shape \(4,\), got \(3,\)"):
        nearest(unit(4), 1, torch.arange(3))
    with pytest.raises(ValueError, match="vectors: expected finite"):
        nearest(unit(4) / 0, 1)
    with pytest.raises(ValueError, match="exact: sparse"):
        nearest(sparse_rows(4), 1, exact=False)
