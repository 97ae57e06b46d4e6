"""Unstructured meshes of triangles and tetrahedra: random domains, files, CAD, and their checks.

build                        checked meshes from arrays, with named boundaries
gmsh_library                 gmsh's import and sessions
plane, solid, cad            regions, solids and CAD files that gmsh meshes
distort                      random distortion
files                        mesh files
"""

from ddm.mesh.build import build_mesh, check_mesh
from ddm.mesh.cad import mesh_cad
from ddm.mesh.distort import distort
from ddm.mesh.files import load_mesh, save_mesh
from ddm.mesh.gmsh_library import GmshUnavailableError, load_gmsh
from ddm.mesh.plane import mesh_domain, random_mesh, random_outline
from ddm.mesh.solid import mesh_box, mesh_hull, random_solid

__all__ = [
    "GmshUnavailableError",
    "build_mesh",
    "check_mesh",
    "distort",
    "load_gmsh",
    "load_mesh",
    "mesh_box",
    "mesh_cad",
    "mesh_domain",
    "mesh_hull",
    "random_mesh",
    "random_outline",
    "random_solid",
    "save_mesh",
]
