"""Tuned Schwarz methods in PETSc, over MPI: interface values in PCASM, interpolation in PCMG.

`export` writes a method to one file; `install` sets it up in a PETSc preconditioner. This module
needs NumPy and petsc4py alone, so that a cluster's own Python can run it without PyTorch.

PCASM, restricted, has `sum_i Rt_i^T (R_i A R_i^T + L_i)^-1 R_i`: the values `L_i` are added to its
local matrices once it has extracted them. With a coarse space, PCMG with two levels applies this
first and `P A0^-1 P^T` after it, as `ddm.Schwarz` does. (Smith, Bjørstad and Gropp, Domain
Decomposition, 1996.)
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ddm.schwarz import Schwarz

FORMAT = "sparsetorch Schwarz operator 1"
INTEGERS = ("n", "n_coarse")


@dataclass(frozen=True)
class Operator:
    """A Schwarz method as arrays: what is added to PETSc's own matrices.

    There are n unknowns, S subdomains that hold N unknowns in all, and S' coarse ones. Positions
    (start, entries) are those of the first item of each subdomain, and at last the number of items.

    Attributes:
        n: number of unknowns.
        start: (S + 1,), into `node` and `own`.
        node: (N,) the unknowns of each subdomain, increasing.
        own: (N,) whether the subdomain owns them; each unknown has one owner.
        entries: (S + 1,), into `row`, `col` and `value`.
        row, col: (m,) places in the subdomain's matrix, by rows.
        value: (m,) what is added there.
        P_indptr, P_indices, P_data: the (n, S') interpolation as CSR; all empty for one level.
        n_coarse: S', 0 for one level.
    """

    n: int
    start: np.ndarray
    node: np.ndarray
    own: np.ndarray
    entries: np.ndarray
    row: np.ndarray
    col: np.ndarray
    value: np.ndarray
    P_indptr: np.ndarray
    P_indices: np.ndarray
    P_data: np.ndarray
    n_coarse: int

    @property
    def n_subdomains(self) -> int:
        """S."""
        return len(self.start) - 1

    def shares(self, processes: int) -> list[np.ndarray]:
        """The subdomains of each process: as many for each, in the order of their unknowns."""
        subdomain = np.repeat(np.arange(self.n_subdomains), np.diff(self.start))[self.own]
        mean = np.bincount(subdomain, self.node[self.own]) / np.bincount(subdomain)
        return np.array_split(np.argsort(mean, kind="stable"), processes)

    def unknowns(self, subdomain: int) -> np.ndarray:
        """The unknowns of a subdomain, with its overlap, increasing."""
        return self.node[self.start[subdomain] : self.start[subdomain + 1]]

    def own_unknowns(self, subdomains: np.ndarray) -> np.ndarray:
        """The unknowns that some subdomains own, one subdomain after the other."""
        parts = [self.unknowns(s)[self.own[self.start[s] : self.start[s + 1]]] for s in subdomains]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def export(method: Schwarz, path: str | Path) -> None:
    """Write a restricted Schwarz method, one- or two-level, to a file of NumPy (.npz) for `load`.

    Raises:
        TypeError: not a `ddm.Schwarz`.
        ValueError: another form of Schwarz method, a coarse problem solved by a method of its own,
            complex values, or some that are not finite.
    """
    from ddm.schwarz import Schwarz  # not above: reading needs no PyTorch

    if not isinstance(method, Schwarz):
        raise TypeError(
            f"method: expected a ddm.Schwarz, got {type(method).__name__}; PETSc has its own "
            "multigrid and factorizations"
        )
    d, P = method.decomposition, method.P
    two_levels = P is not None
    if method.form != "restricted" or (two_levels and method.levels != "multiplicative"):
        raise ValueError(
            "method: expected form='restricted' and levels='multiplicative', got "
            f"{method.form!r} and {method.levels!r}"
        )
    if method.A.dtype.is_complex or method.null is not None:
        raise ValueError("method: expected a real matrix without null space")
    if two_levels and method.coarse.method is not None:
        raise ValueError(
            "method: its coarse problem is solved by a method of its own, and PETSc would solve it "
            "exactly; make it with coarse='auto'"
        )
    values = np.zeros(len(d.interface))
    if method.interface is not None:
        values = method.interface.detach().cpu().double().numpy()
    kept = np.flatnonzero(values)
    start = np.concatenate([[0], np.cumsum(d.sizes)])
    block = d.interface[kept]
    row, col = d.block_row[block], d.block_col[block]
    arrays: dict[str, Any] = {
        "n": d.n,
        "start": start,
        "node": d.node,
        "own": d.own,
        "entries": np.searchsorted(row, start),
        "row": row - start[d.subdomain[row]],
        "col": col - start[d.subdomain[row]],
        "value": values[kept],
        "P_indptr": np.zeros(0, dtype=np.int64),
        "P_indices": np.zeros(0, dtype=np.int64),
        "P_data": np.zeros(0),
        "n_coarse": 0,
    }
    if P is not None:
        arrays["P_indptr"] = P.pattern.crow.cpu().numpy()
        arrays["P_indices"] = P.pattern.col.cpu().numpy()
        arrays["P_data"] = P.values.detach().cpu().double().numpy()
        arrays["n_coarse"] = P.shape[1]
    for name in ("value", "P_data"):
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    with Path(path).open("wb") as file:  # given a name, NumPy would add a suffix to it
        np.savez_compressed(file, format=FORMAT, **arrays)


def load(path: str | Path) -> Operator:
    """Read what `export` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, or one whose arrays do not fit together.
    """
    Path(path).open("rb").close()  # what the system says of a file that cannot be read
    try:
        with np.load(path, allow_pickle=False) as file:
            if "format" not in file or str(file["format"]) != FORMAT:
                raise ValueError("ddm.petsc.export did not write it")
            arrays: dict[str, Any] = {field.name: file[field.name] for field in fields(Operator)}
    except Exception as error:  # the readers raise whatever they meet in a damaged file
        raise ValueError(f"path: {path} is damaged or of another kind ({error})") from error
    if not (_numbers(arrays) and _fit(operator := Operator(**_with_integers(arrays)))):
        raise ValueError(f"path: the arrays of {path} do not fit together")
    return operator


def _numbers(arrays: dict[str, Any]) -> bool:
    """Whether all are flat arrays of the right kind of numbers, or integers."""
    kinds = dict.fromkeys(arrays, "iu") | {"own": "b", "value": "f", "P_data": "f"}
    return all(
        array.dtype.kind in kinds[name] and array.ndim == (name not in INTEGERS)
        for name, array in arrays.items()
    )


def _with_integers(arrays: dict[str, Any]) -> dict[str, Any]:
    return arrays | {name: int(arrays[name]) for name in INTEGERS}


def _fit(o: Operator) -> bool:
    """Whether indices are in range, which PETSc would take on trust."""
    sizes = np.diff(o.start)
    good = (
        len(o.start) > 1
        and o.start[0] == 0
        and (sizes > 0).all()
        and o.start[-1] == len(o.node) == len(o.own)
        and bool(((o.node >= 0) & (o.node < o.n)).all())
        and np.count_nonzero(o.own) == o.n
        and np.array_equal(np.sort(o.node[o.own]), np.arange(o.n))
        and len(o.entries) == len(o.start)
        and o.entries[0] == 0
        and (np.diff(o.entries) >= 0).all()
        and o.entries[-1] == len(o.row) == len(o.col) == len(o.value)
        and np.isfinite(o.value).all()
    )
    if good:
        limit = np.repeat(sizes, np.diff(o.entries))
        good = all(((index >= 0) & (index < limit)).all() for index in (o.row, o.col))
    if good and o.n_coarse:
        good = (
            len(o.P_indptr) == o.n + 1
            and o.P_indptr[0] == 0
            and (np.diff(o.P_indptr) >= 0).all()
            and o.P_indptr[-1] == len(o.P_indices) == len(o.P_data)
            and bool(((o.P_indices >= 0) & (o.P_indices < o.n_coarse)).all())
            and np.isfinite(o.P_data).all()
        )
    return bool(good)


def install(pc: Any, operator: Operator) -> None:
    """Make a petsc4py PC the exported method, for the matrix that it was exported for.

    pc: of a KSP or PC whose operator is an assembled AIJ matrix over any number of processes. Its
    rows are dealt out anew, so that each process has whole subdomains; unknowns that are numbered
    subdomain by subdomain stay where they are. Set up again when the matrix has new values. The
    method is not symmetric: use FGMRES, or GMRES with preconditioning from the right.

    When it is set up it raises ValueError for a matrix of another size, and for more processes than
    subdomains.
    """
    pc.setType("python")
    pc.setPythonContext(Preconditioner(operator))


class Preconditioner:
    """The context of a PETSc PC of type "python": the method on rows in another order."""

    def __init__(self, operator: Operator):
        self.operator = operator

    def setUp(self, pc: Any) -> None:
        """Deal out the rows, and build PCASM or PCMG on them."""
        from petsc4py import PETSc

        self.destroy(pc)
        A, o = pc.getOperators()[1], self.operator
        rank, processes = A.getComm().getRank(), A.getComm().getSize()
        if tuple(A.getSize()) != (o.n, o.n):
            raise ValueError(f"A: expected shape {(o.n, o.n)}, got {tuple(A.getSize())}")
        if processes > o.n_subdomains:
            raise ValueError(
                f"A: expected at most {o.n_subdomains} processes, one for each subdomain, got "
                f"{processes}"
            )
        shares = o.shares(processes)
        rows = [o.own_unknowns(share) for share in shares]
        number = np.empty(o.n, dtype=PETSc.IntType)
        number[np.concatenate(rows)] = np.arange(o.n)
        mine = PETSc.IS().createGeneral(rows[rank].astype(PETSc.IntType), comm=A.getComm())
        matrix = A.createSubMatrix(mine, mine)
        self.r, self.z = matrix.createVecs()
        given = A.createVecLeft()
        self.scatter = PETSc.Scatter().create(given, mine, self.r, None)
        self.inner = PETSc.PC().create(A.getComm())
        self.inner.setOperators(matrix, matrix)
        if o.n_coarse:
            P = _interpolation(matrix, o, rows[rank])
            _two_levels(self.inner, matrix, P, o, shares[rank], number)
        else:
            _one_level(self.inner, matrix, o, shares[rank], number)

    def apply(self, pc: Any, x: Any, y: Any) -> None:
        """y = M x."""
        from petsc4py import PETSc

        self.scatter.scatter(x, self.r)
        self.inner.apply(self.r, self.z)
        self.scatter.scatter(self.z, y, mode=PETSc.ScatterMode.REVERSE)

    def destroy(self, pc: Any) -> None:
        """Free PETSc's objects with the PC, on all processes at once."""
        for name in ("inner", "scatter", "r", "z"):
            made = self.__dict__.pop(name, None)
            if made is not None:
                made.destroy()

    def view(self, pc: Any, viewer: Any) -> None:
        """Show the PC behind it."""
        self.inner.view(viewer)


def _interpolation(matrix: Any, o: Operator, rows: np.ndarray) -> Any:
    """P as a PETSc matrix, with this process's rows in their new order."""
    from petsc4py import PETSc

    lengths = np.diff(o.P_indptr)[rows]
    pointers = np.concatenate([[0], np.cumsum(lengths)])
    places = np.repeat(o.P_indptr[rows] - pointers[:-1], lengths) + np.arange(pointers[-1])
    return PETSc.Mat().createAIJ(
        size=((len(rows), o.n), (None, o.n_coarse)),
        csr=(
            pointers.astype(PETSc.IntType),
            o.P_indices[places].astype(PETSc.IntType),
            o.P_data[places],
        ),
        comm=matrix.getComm(),
    )


def _two_levels(
    pc: Any, A: Any, P: Any, o: Operator, subdomains: np.ndarray, number: np.ndarray
) -> None:
    pc.setType("mg")
    pc.setMGLevels(2)
    pc.setMGInterpolation(1, P)
    coarse, coarse_matrix = pc.getMGCoarseSolve(), A.ptap(P)
    coarse.setType("preonly")
    coarse.setOperators(coarse_matrix, coarse_matrix)
    coarse.getPC().setType("redundant")  # LU on every process
    before, after = pc.getMGSmootherDown(1), pc.getMGSmootherUp(1)
    for sweep, count in ((before, 1), (after, 0)):
        sweep.setType("richardson")
        sweep.setTolerances(max_it=count)
        sweep.setOperators(A, A)
    after.getPC().setType("none")
    _one_level(before.getPC(), A, o, subdomains, number)


def _one_level(pc: Any, A: Any, o: Operator, subdomains: np.ndarray, number: np.ndarray) -> None:
    """PCASM, with the interface values added to its local matrices.

    It keeps of each solution what its process owns: hence rows in the order of `number`.
    """
    from petsc4py import PETSc

    def index_set(nodes: np.ndarray) -> Any:
        return PETSc.IS().createGeneral(np.sort(number[nodes]), comm=PETSc.COMM_SELF)

    pc.setType("asm")
    pc.setOperators(A, A)
    pc.setASMType(PETSc.PC.ASMType.RESTRICT)
    pc.setASMOverlap(0)  # the subdomains have it already
    pc.setASMLocalSubdomains(
        len(subdomains),
        [index_set(o.unknowns(s)) for s in subdomains],
        [index_set(o.own_unknowns(np.array([s]))) for s in subdomains],
    )
    pc.setUp()
    for s, ksp in zip(subdomains, pc.getASMSubKSP()):
        matrix = ksp.getOperators()[1]
        part = slice(o.entries[s], o.entries[s + 1])
        if part.start < part.stop:
            place = np.argsort(np.argsort(number[o.unknowns(s)]))  # of each unknown, in PETSc's
            row, col = place[o.row[part]], place[o.col[part]]
            by_rows = np.argsort(row, kind="stable")
            pointers = np.searchsorted(row[by_rows], np.arange(len(place) + 1))
            # Where couplings of elements cancel, A may lack entries that the ring has.
            matrix.setOption(PETSc.Mat.Option.NEW_NONZERO_LOCATIONS, True)
            matrix.setOption(PETSc.Mat.Option.NEW_NONZERO_LOCATION_ERR, False)
            matrix.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
            matrix.setValuesIJV(
                pointers.astype(PETSc.IntType),
                col[by_rows].astype(PETSc.IntType),
                o.value[part][by_rows],
                addv=True,
            )
            matrix.assemble()
        ksp.setOperators(matrix, matrix)
        ksp.setType("preonly")
        ksp.getPC().setType("lu")
        ksp.setUp()
