"""Problems: finite elements on meshes, graphs, and users' own matrices.

problem                                 Problem, Elements
boundary, values, space, system         boundary parts, coefficients, elements, assembly
singular                                pure Neumann problems and their like
diffusion, convection, elasticity, helmholtz, graph, matrix, petsc_binary
fields, samples                         synthetic random coefficients and problems
"""

from ddm.problems.convection import convection_diffusion, peclet
from ddm.problems.diffusion import diffusion, poisson
from ddm.problems.elasticity import elasticity, rigid_body_modes
from ddm.problems.fields import channels, checkerboard, inclusions, rotated_anisotropy
from ddm.problems.graph import graph_laplacian
from ddm.problems.helmholtz import helmholtz
from ddm.problems.matrix import from_matrix
from ddm.problems.petsc_binary import load_petsc
from ddm.problems.problem import Elements, Kind, Problem
from ddm.problems.samples import random_problem
from ddm.problems.values import Source

__all__ = [
    "Elements",
    "Kind",
    "Problem",
    "Source",
    "channels",
    "checkerboard",
    "convection_diffusion",
    "diffusion",
    "elasticity",
    "from_matrix",
    "graph_laplacian",
    "helmholtz",
    "inclusions",
    "load_petsc",
    "peclet",
    "poisson",
    "random_problem",
    "rigid_body_modes",
    "rotated_anisotropy",
]
