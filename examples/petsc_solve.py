"""Solve a system in PETSc by a method that was tuned in PyTorch: needs NumPy and petsc4py alone.

    PYTHONPATH=. mpirun -n 2 python3 examples/petsc_solve.py SYSTEM METHOD [METHOD ...] [OPTIONS]

SYSTEM and METHOD are the files of examples/petsc_export.py, or your own: `ddm.petsc.export` writes
a METHOD. A METHOD may also be the name of one of PETSc's own preconditioners, such as asm, gamg or
hypre. Symmetric methods are solved with by CG, the others by FGMRES, both to a residual of 1e-8
relative to the right-hand side. PETSc's options come last, with the prefix of the method's name:
-mggnn_ksp_monitor -mggnn_ksp_rtol 1e-6.
"""

from __future__ import annotations

import sys
import time
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import petsc4py

petsc4py.init(sys.argv)
from petsc4py import PETSc  # noqa: E402

from ddm.petsc import install, load  # noqa: E402


def read(path: str) -> tuple[Any, Any]:
    """The matrix and the right-hand side, each process with its rows."""
    with np.load(path) as file:
        n, b = len(file["b"]), PETSc.Vec().createMPI(len(file["b"]))
        first, end = b.getOwnershipRange()
        pointers = file["indptr"][first : end + 1].astype(PETSc.IntType)
        part = slice(pointers[0], pointers[-1])
        A = PETSc.Mat().createAIJ(
            size=((end - first, n), (end - first, n)),
            csr=(
                pointers - pointers[0],
                file["indices"][part].astype(PETSc.IntType),
                file["data"][part],
            ),
        )
        b.setArray(file["b"][first:end])
    return A, b


def is_symmetric(A: Any) -> bool:
    """Whether A equals its transpose, up to rounding."""
    return A.isSymmetric(1e-10 * A.norm(PETSc.NormType.INFINITY))


def main() -> None:
    """Solve with each method and print what it took."""
    names = list(takewhile(lambda name: not name.startswith("-"), sys.argv[1:]))
    if len(names) < 2:
        raise SystemExit(__doc__)
    A, b = read(names[0])
    for method in names[1:]:
        start = time.perf_counter()
        ksp = PETSc.KSP().create()
        ksp.setOperators(A)
        ksp.setType("fgmres")
        ksp.setTolerances(rtol=1e-8, max_it=500)
        prefix = Path(method).stem
        PETSc.Options().setValue(f"{prefix}_ksp_gmres_restart", 500)
        ksp.setOptionsPrefix(f"{prefix}_")
        if Path(method).suffix == ".npz":
            operator = load(method)
            install(ksp.getPC(), operator)
            if operator.is_symmetric and is_symmetric(A):
                ksp.setType("cg")
                ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)  # as FGMRES has it
        else:
            ksp.getPC().setType(method)
        ksp.setFromOptions()
        ksp.setUp()
        ready = time.perf_counter()
        x = b.duplicate()
        ksp.solve(b, x)
        done = time.perf_counter()
        PETSc.Sys.Print(
            f"{prefix}: {ksp.getIterationNumber()} iterations of {ksp.getType().upper()}, "
            f"|x| = {x.norm():.10e}, "
            f"set up in {ready - start:.2f} s, solved in {done - ready:.2f} s"
        )
        if ksp.getConvergedReason() <= 0:
            PETSc.Sys.Print(f"{prefix}: not converged, reason {ksp.getConvergedReason()}")
        ksp.destroy()  # before Python ends: PETSc then cannot call the preconditioner any more


if __name__ == "__main__":
    main()
