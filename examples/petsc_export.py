"""Write Schwarz methods, MG-GNN's among them, with their linear system, for PETSc.

    python examples/petsc_export.py [--nodes 20000] [--theta 0.5] [--folder petsc]

Then, with the Python that has petsc4py (it needs no PyTorch, only this repository on its path):

    PYTHONPATH=. mpirun -n 2 python3 examples/petsc_solve.py petsc/system.npz petsc/mggnn.npz

The system is Poisson's equation on a random smooth domain, in METIS subdomains of 64 unknowns.
`ras.npz` and `oras.npz` are the classical methods beside the learned one, and `as.npz` is a
symmetric one, for CG: additive Schwarz with both levels balanced. The iterations of FGMRES and CG
that this script prints for all of them are those that PETSc needs, on any number of processes.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch

import ddm
from ddm.partition import partition
from ddm.petsc import export
from sparsetorch.linalg import cg, fgmres


def main() -> None:
    """Write the system and four methods."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=20_000, help="nodes of the mesh")
    parser.add_argument("--theta", type=float, default=0.5, help="Robin weight of oras.npz")
    parser.add_argument("--rtol", type=float, default=1e-8, help="relative residual")
    parser.add_argument("--folder", type=Path, default=Path("petsc"), help="where the files go")
    options = parser.parse_args()

    problem = ddm.poisson(ddm.random_mesh(seed=1, n_nodes=options.nodes))
    owner = partition(problem.A, max(2, problem.A.shape[0] // 64))
    # PETSc deals out rows in order: number the unknowns by subdomain.
    order = np.argsort(owner, kind="stable")
    A, b, owner = problem.A[order][:, order], problem.b[order], owner[order]
    A.sort_indices()
    net = ddm.load_pretrained("diffusion_2d")
    setup = ddm.set_up(A, owner, coordinates=problem.coordinates[order], **net.options)
    with torch.no_grad():
        methods = {
            "ras": setup.classical(),
            "oras": setup.classical(options.theta),
            "mggnn": setup.learned(net),
            "as": ddm.Schwarz(
                setup.A,
                setup.decomposition,
                P=setup.P,
                form="additive",
                levels="balanced",
                local=setup.local,
            ),
        }
    options.folder.mkdir(parents=True, exist_ok=True)
    np.savez(options.folder / "system.npz", indptr=A.indptr, indices=A.indices, data=A.data, b=b)
    print(f"{A.shape[0]} unknowns, {owner.max() + 1} subdomains, relative residual {options.rtol}")
    for name, method in methods.items():
        export(method, options.folder / f"{name}.npz")
        krylov = cg if method.is_symmetric else partial(fgmres, restart=500)
        solution = krylov(
            setup.A, torch.from_numpy(b), preconditioner=method, rtol=options.rtol
        ).checked()
        norm, krylov_name = float(solution.x.norm()), "CG" if method.is_symmetric else "FGMRES"
        print(f"{name}: {solution.iterations} iterations of {krylov_name}, |x| = {norm:.10e}")


if __name__ == "__main__":
    main()
