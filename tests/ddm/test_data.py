"""Training data: made once, kept, and made again alike."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from ddm.data import MeshDataset, Recipe, generate

TINY = Recipe(count=4, nodes=(80, 120), subdomain=(10, 20))


@pytest.mark.usefixtures("gmsh")
def test_an_interrupted_generation_goes_on_and_gives_the_same_files(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert list(generate(TINY, whole)) == [1, 2, 3, 4]
    assert list(islice(generate(TINY, broken), 2)) == [1, 2]
    with pytest.raises(FileNotFoundError, match="lacks 2 of 4 meshes"):
        MeshDataset(TINY, broken)
    kept = (broken / TINY.key / "000000.npz").stat().st_mtime_ns
    assert list(generate(TINY, broken)) == [1, 2, 3, 4]
    assert (broken / TINY.key / "000000.npz").stat().st_mtime_ns == kept
    assert not list(broken.rglob("*.partial"))
    first, second = MeshDataset(TINY, whole), MeshDataset(TINY, broken)
    for a, b in ((first[i], second[i]) for i in range(4)):
        assert torch.equal(a.A.values, b.A.values)
        assert (a.decomposition.owner == b.decomposition.owner).all()


@pytest.mark.usefixtures("gmsh")
def test_a_kill_while_a_file_is_written_leaves_no_file(tmp_path, monkeypatch):
    def killed(file, **arrays):
        file.write(b"half a mesh")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez_compressed", killed)
        with pytest.raises(KeyboardInterrupt):
            list(generate(TINY, tmp_path))
    folder = tmp_path / TINY.key
    assert not list(folder.glob("*.npz"))
    with pytest.raises(FileNotFoundError, match="lacks 4 of 4 meshes"):
        MeshDataset(TINY, tmp_path)
    assert list(generate(TINY, tmp_path)) == [1, 2, 3, 4]
    assert not list(folder.glob("*.partial"))
    assert len(MeshDataset(TINY, tmp_path)) == 4


@pytest.mark.usefixtures("gmsh")
def test_setups_have_the_recipe_s_sizes_and_finite_features(tmp_path):
    list(generate(TINY, tmp_path))
    dataset = MeshDataset(TINY, tmp_path)
    for setup in (dataset[i] for i in range(len(dataset))):
        assert setup.A.dtype == torch.float32
        assert 20 < setup.A.shape[0] < 150
        graph = setup.inputs.graph
        for name in ("fine_nodes", "coarse_nodes", "fine_edges", "coarse_edges", "cross_edges"):
            assert getattr(graph, name).isfinite().all(), name
    assert dataset[0] is dataset[0]


def test_recipes_with_other_contents_have_other_folders(tmp_path):
    file = tmp_path / "a.msh"
    file.write_text("one")
    keys = {TINY.key, replace(TINY, seed=1).key, replace(TINY, files=(str(file),)).key}
    file.write_text("two")
    keys.add(replace(TINY, files=(str(file),)).key)
    assert len(keys) == 4
    assert replace(TINY, count=5).key == TINY.key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count: expected at least 1"),
        ({"nodes": (100, 80)}, "nodes: expected 50 <= smallest <= largest"),
        ({"subdomain": (2, 80)}, "subdomain: expected 4 <= smallest <= largest"),
    ],
)
def test_bad_recipes(options, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**options)


@pytest.mark.usefixtures("gmsh")
def test_a_damaged_file_is_named(tmp_path):
    list(generate(TINY, tmp_path))
    dataset = MeshDataset(TINY, tmp_path)
    path = dataset.paths[0]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{path.name} is damaged .*; delete it"):
        dataset[0]
