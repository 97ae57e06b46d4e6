"""Training data from the mesh files of the repository, which needs no gmsh."""

from pathlib import Path

from ddm.data import MeshDataset, Recipe, generate

MESHES = sorted((Path(__file__).parents[2] / "examples" / "meshes").glob("*.msh"))


def test_mesh_files_in_turn(tmp_path):
    recipe = Recipe(count=3, subdomain=(20, 40), files=tuple(map(str, MESHES[:2])))
    list(generate(recipe, tmp_path))
    sizes = [setup.A.shape[0] for setup in MeshDataset(recipe, tmp_path)]
    assert len(MESHES) == 5
    # The third mesh is the first one again, distorted and refined: about four times the nodes.
    assert sizes[0] != sizes[1]
    assert 3 * sizes[0] < sizes[2] < 5.5 * sizes[0]
