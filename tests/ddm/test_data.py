"""Training data: made once, kept, and made again alike."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from ddm.data import MeshDataset, Recipe, generate
from ddm.partition import partition
from ddm.problems import random_problem
from ddm.setup import set_up

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
def test_a_kill_while_the_recipe_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    assert len(list(generate(TINY, tmp_path))) == 4
    path = tmp_path / TINY.key / "recipe.json"
    before = path.read_text()

    def killed(self, text):
        with self.open("w") as file:
            file.write(text[:9])
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        list(generate(replace(TINY, count=5), tmp_path))
    assert path.read_text() == before
    assert not list(tmp_path.rglob("*.partial*"))


def test_a_count_is_a_whole_number():
    assert type(replace(TINY, count=np.int64(4)).count) is int
    assert replace(TINY, count=4.0) == TINY  # pyright: ignore[reportArgumentType]
    for count in (0, 2.5, float("nan")):
        with pytest.raises(ValueError, match=f"count: expected at least 1 mesh, got {count}"):
            replace(TINY, count=count)  # pyright: ignore[reportArgumentType]


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


KINDS = ("poisson", "diffusion", "anisotropic")
MIXED = replace(TINY, kinds=KINDS, count=12)


@pytest.mark.usefixtures("gmsh")
def test_kinds_come_in_turn_each_with_both_partitioners(monkeypatch):
    asked: list[str] = []
    kinds: list[tuple[str, int]] = []

    def recorded(A, n_parts, **options):
        asked.append(options["method"])
        return partition(A, n_parts, **options)

    def drawn(kind, seed, n):
        kinds.append((kind, seed))
        return random_problem(kind, seed, n)

    monkeypatch.setattr("ddm.data.partition", recorded)
    monkeypatch.setattr("ddm.data.random_problem", drawn)
    recipe = replace(MIXED, seed=7)
    for index in range(6):
        problem, owner = recipe.draw(index)
        assert owner.shape == problem.b.shape
        assert 50 < len(problem.b) < 160
        assert len(np.unique(owner)) == owner.max() + 1 > 1
    assert kinds == [("diffusion", 8), ("anisotropic", 9), ("diffusion", 11), ("anisotropic", 12)]
    assert asked == ["metis"] * 3 + ["lloyd"] * 3


@pytest.mark.usefixtures("gmsh")
def test_files_hold_all_that_a_setup_needs(tmp_path):
    recipe = replace(TINY, kinds=("poisson", "anisotropic", "elasticity"), count=3)
    list(generate(recipe, tmp_path))
    dataset = MeshDataset(recipe, tmp_path, torch.float64, smoothing=2)
    for index in range(3):
        expected = set_up(*recipe.draw(index), smoothing=2)
        found = dataset[index]
        assert torch.equal(found.A.values, expected.A.values)
        assert torch.equal(found.exterior, expected.exterior)
        torch.testing.assert_close(found.P.to_dense(), expected.P.to_dense())
    assert dataset[2].decomposition.block_size == 2


@pytest.mark.usefixtures("gmsh")
def test_fresh_subdomains_differ_at_each_visit_of_the_same_matrix(tmp_path):
    recipe = replace(TINY, kinds=("poisson", "elasticity"), count=2)
    list(generate(recipe, tmp_path))
    dataset = MeshDataset(recipe, tmp_path, fresh=True)
    for index in range(2):
        torch.manual_seed(0)
        first, second = dataset[index], dataset[index]
        assert first.key == second.key == index
        assert torch.equal(first.A.values, second.A.values)
        assert not np.array_equal(first.decomposition.owner, second.decomposition.owner)
        torch.manual_seed(0)
        again = dataset[index]
        assert np.array_equal(first.decomposition.owner, again.decomposition.owner)
        mean = first.A.shape[0] / first.decomposition.n_subdomains
        low, high = recipe.subdomain
        assert low / 2 < mean < 2 * high
    kept = MeshDataset(recipe, tmp_path)
    assert kept[0] is kept[0]


@pytest.mark.usefixtures("gmsh")
def test_variants_come_in_turn_once_all_kinds_and_partitioners_had_one(tmp_path):
    recipe = replace(MIXED, count=30)
    list(generate(recipe, tmp_path))
    dataset = MeshDataset(recipe, tmp_path, overlaps=(1, 2), linear=(True, False))
    overlaps, rich = [], []
    for index in range(len(dataset)):
        setup = dataset[index]
        overlaps.append(setup.decomposition.overlap)
        rich.append(setup.unity.shape[1] > setup.decomposition.n_subdomains)
    assert overlaps == ([1] * 6 + [2] * 6) * 2 + [1] * 6
    assert rich == [True] * 12 + [False] * 12 + [True] * 6


def test_recipes_with_other_contents_have_other_folders(tmp_path):
    file = tmp_path / "a.msh"
    file.write_text("one")
    keys = {TINY.key, MIXED.key, replace(TINY, seed=1).key, replace(TINY, files=(str(file),)).key}
    file.write_text("two")
    keys.add(replace(TINY, files=(str(file),)).key)
    assert len(keys) == 5
    assert replace(TINY, count=5).key == TINY.key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count: expected at least 1"),
        ({"nodes": (100, 80)}, "nodes: expected 50 <= smallest <= largest"),
        ({"kinds": ()}, "kinds: expected one at least"),
        ({"kinds": ("poisson", "diffusion"), "files": ("a.msh",)}, "'poisson' with files; got"),
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


def test_ranges_and_kinds_of_another_form_are_refused():
    with pytest.raises(ValueError, match=r"nodes: expected 50 <= smallest <= largest, got .*300"):
        Recipe(nodes=(100, 200, 300))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="kinds: expected a tuple of names, got 'poisson'"):
        Recipe(kinds="poisson")  # type: ignore[arg-type]
