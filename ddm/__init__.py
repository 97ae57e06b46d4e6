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

if TYPE_CHECKING:  # for type checkers, which take `X as X` for public
    from ddm.checkpoints import load_pretrained as load_pretrained
    from ddm.checkpoints import pretrained_names as pretrained_names
    from ddm.choice import NoNetworkError as NoNetworkError
    from ddm.classical import Classical as Classical
    from ddm.comparison import Comparison as Comparison
    from ddm.comparison import compare as compare
    from ddm.enrichment import enriched as enriched
    from ddm.finetuning import finetune as finetune
    from ddm.interface import robin as robin
    from ddm.learned import InterfaceNet as InterfaceNet
    from ddm.local import SingularError as SingularError
    from ddm.mesh import load_mesh as load_mesh
    from ddm.mesh import mesh_box as mesh_box
    from ddm.mesh import mesh_cad as mesh_cad
    from ddm.mesh import mesh_domain as mesh_domain
    from ddm.mesh import mesh_hull as mesh_hull
    from ddm.mesh import random_mesh as random_mesh
    from ddm.mesh import random_solid as random_solid
    from ddm.mesh import save_mesh as save_mesh
    from ddm.partition import Decomposition as Decomposition
    from ddm.partition import decompose as decompose
    from ddm.problems import Elements as Elements
    from ddm.problems import Problem as Problem
    from ddm.problems import convection_diffusion as convection_diffusion
    from ddm.problems import diffusion as diffusion
    from ddm.problems import elasticity as elasticity
    from ddm.problems import from_matrix as from_matrix
    from ddm.problems import graph_laplacian as graph_laplacian
    from ddm.problems import helmholtz as helmholtz
    from ddm.problems import load_petsc as load_petsc
    from ddm.problems import poisson as poisson
    from ddm.problems import random_problem as random_problem
    from ddm.problems import rigid_body_modes as rigid_body_modes
    from ddm.safeguard import LearnedRefusedWarning as LearnedRefusedWarning
    from ddm.safeguard import learned_schwarz as learned_schwarz
    from ddm.schwarz import Schwarz as Schwarz
    from ddm.search import Search as Search
    from ddm.search import best_classical as best_classical
    from ddm.setup import Setup as Setup
    from ddm.setup import set_up as set_up
    from ddm.tuning import Tuned as Tuned
    from ddm.tuning import TuningError as TuningError
    from ddm.tuning import tune as tune

_MODULES = {
    "checkpoints": ("load_pretrained", "pretrained_names"),
    "choice": ("NoNetworkError",),
    "classical": ("Classical",),
    "comparison": ("Comparison", "compare"),
    "enrichment": ("enriched",),
    "finetuning": ("finetune",),
    "interface": ("robin",),
    "learned": ("InterfaceNet",),
    "local": ("SingularError",),
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
    "tuning": ("Tuned", "TuningError", "tune"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    """The public names, also those that are not imported yet."""
    return sorted({*globals(), *__all__})


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
        package = str(error.name).partition(".")[0]
        extra = "train" if package == "lightning" else "ddm"
        raise ImportError(
            f"ddm.{name} needs {package}: pip install 'sparsetorch[{extra}]'"
        ) from error
    globals()[name] = value
    return value
