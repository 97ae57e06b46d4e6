"""Two-level domain decomposition for partial differential equations, classical and learned.

    mesh -> problems -> partition -> coarse, interface, exterior, local -> schwarz
    schwarz -> multilevel, enrichment                               more levels, more coarse vectors
    features -> learned                                          MG-GNN's interface values and P
    checkpoints, scope, safeguard                                   what ships, and where it applies
    methods, search, comparison, tuning, table, plot                using and measuring them
    losses, data, lightning                                      training
    petsc                                                        the same methods over MPI

The names below are imported when they are first used, so that `import ddm` needs no extra.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddm.checkpoints import load_pretrained, pretrained_names
    from ddm.comparison import Comparison, compare
    from ddm.enrichment import enriched
    from ddm.finetuning import finetune
    from ddm.interface import robin
    from ddm.learned import InterfaceNet
    from ddm.mesh import (
        load_mesh,
        mesh_box,
        mesh_cad,
        mesh_domain,
        mesh_hull,
        random_mesh,
        random_solid,
        save_mesh,
    )
    from ddm.partition import Decomposition, decompose
    from ddm.problems import (
        Elements,
        Problem,
        convection_diffusion,
        diffusion,
        elasticity,
        from_matrix,
        graph_laplacian,
        helmholtz,
        load_petsc,
        poisson,
        random_problem,
        rigid_body_modes,
    )
    from ddm.safeguard import LearnedRefusedWarning, learned_schwarz
    from ddm.schwarz import Schwarz
    from ddm.search import Search, best_classical
    from ddm.setup import Setup, set_up
    from ddm.tuning import Tuned, tune

__all__ = [
    "Comparison",
    "Decomposition",
    "Elements",
    "InterfaceNet",
    "LearnedRefusedWarning",
    "Problem",
    "Schwarz",
    "Search",
    "Setup",
    "Tuned",
    "best_classical",
    "compare",
    "convection_diffusion",
    "decompose",
    "diffusion",
    "elasticity",
    "enriched",
    "finetune",
    "from_matrix",
    "graph_laplacian",
    "helmholtz",
    "learned_schwarz",
    "load_mesh",
    "load_petsc",
    "load_pretrained",
    "mesh_box",
    "mesh_cad",
    "mesh_domain",
    "mesh_hull",
    "poisson",
    "pretrained_names",
    "random_mesh",
    "random_problem",
    "random_solid",
    "rigid_body_modes",
    "robin",
    "save_mesh",
    "set_up",
    "tune",
]

_MODULES = {
    "checkpoints": ("load_pretrained", "pretrained_names"),
    "comparison": ("Comparison", "compare"),
    "enrichment": ("enriched",),
    "finetuning": ("finetune",),
    "interface": ("robin",),
    "learned": ("InterfaceNet",),
    "mesh": (
        "load_mesh",
        "mesh_box",
        "mesh_cad",
        "mesh_domain",
        "mesh_hull",
        "random_mesh",
        "random_solid",
        "save_mesh",
    ),
    "partition": ("Decomposition", "decompose"),
    "problems": (
        "Elements",
        "Problem",
        "convection_diffusion",
        "diffusion",
        "elasticity",
        "from_matrix",
        "graph_laplacian",
        "helmholtz",
        "load_petsc",
        "poisson",
        "random_problem",
        "rigid_body_modes",
    ),
    "safeguard": ("LearnedRefusedWarning", "learned_schwarz"),
    "schwarz": ("Schwarz",),
    "search": ("Search", "best_classical"),
    "setup": ("Setup", "set_up"),
    "tuning": ("Tuned", "tune"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from its module, or a module.

    Raises:
        ImportError: a package of the extra is missing.
    """
    if name not in _HOME and not (name.isidentifier() and find_spec(f"ddm.{name}")):
        raise AttributeError(f"module 'ddm' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"ddm.{_HOME.get(name, name)}")
        value = getattr(module, name) if name in _HOME else module
    except ModuleNotFoundError as error:
        raise ImportError(
            f"ddm.{name} needs {error.name}: pip install 'sparsetorch[ddm]'"
        ) from error
    globals()[name] = value
    return value
