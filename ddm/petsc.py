"""Tuned Schwarz methods in PETSc, over MPI: interface values in PCASM, a coarse space around it.

`export` writes a method to one file; `install` sets it up in a PETSc preconditioner. This module
needs NumPy and petsc4py alone, so that a cluster's own Python can run it without PyTorch.

The fine level F is PCASM. The values L_i are added to its local matrices A_i once it has extracted
them, and the forms of `ddm.Schwarz` are

    restricted   type RESTRICT    sum_i Rt_i^T (A_i + L_i)^-1 R_i, Rt_i the owned unknowns
    additive     type BASIC       sum_i R_i^T (A_i + L_i)^-1 R_i
    symmetric    type BASIC       sum_i R_i^T (D_i^-1 (A_i + L_i) D_i^-1)^-1 R_i

where D_i is the partition of unity, 1 / multiplicity: the last is SORAS, whose local solves D_i
weights on both sides. With a coarse space and `Q = P (P^T A P)^-1 P^T`, levels are sweeps
`z <- z + S (r - A z)` from z = 0 with the following S in turn:

    multiplicative   F, Q         PCMG with two levels
    adef1            Q, F
    balanced         Q, F, Q      (I - Q A) F (I - A Q) + Q, since Q A Q = Q
    symmetric        w F, Q, w F  a V-cycle with damping w

and additive is F + Q. (Smith, Bjørstad and Gropp, Domain Decomposition, 1996.)
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ddm.schwarz import Schwarz

FORMAT = "sparsetorch Schwarz operator 2"
FORMS = ("restricted", "additive", "symmetric")
SWEEPS = {
    "multiplicative": "FQ",
    "adef1": "QF",
    "additive": "FQ",
    "balanced": "QFQ",
    "symmetric": "FQF",
}
"""The fine level F and the coarse one Q, in turn, of each kind of two levels."""
SCALARS = {"n": int, "n_coarse": int, "form": str, "levels": str, "damping": float}
ROUNDING = 1e-10
"""Of the largest values of two rows: by so much interface values that are symmetric may differ."""


@dataclass(frozen=True, eq=False)
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
        form: "restricted", "additive" or "symmetric", see above.
        levels: "multiplicative", "adef1", "additive", "balanced" or "symmetric", see above; None
            for one level.
        damping: w of levels="symmetric", 1 for the others.
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
    form: str
    levels: str | None
    damping: float

    @property
    def n_subdomains(self) -> int:
        """S."""
        return len(self.start) - 1

    @property
    def is_symmetric(self) -> bool:
        """Whether the method is symmetric for a symmetric matrix, so that CG may be used."""
        return (
            self.form != "restricted"
            and self.levels in (None, "additive", "balanced", "symmetric")
            and self._symmetric_values()
        )

    def _symmetric_values(self) -> bool:
        """Whether what is added to each subdomain's matrix is symmetric, up to rounding."""
        first = np.repeat(self.start[:-1], np.diff(self.entries))
        row, col, N = first + self.row, first + self.col, len(self.node)
        size = np.zeros(N)
        np.maximum.at(size, row, abs(self.value))
        pairs, place = np.unique(
            np.concatenate([row * N + col, col * N + row]), return_inverse=True
        )
        difference = np.bincount(place, np.concatenate([self.value, -self.value]))
        allowed = ROUNDING * np.sqrt(size[pairs // N]) * np.sqrt(size[pairs % N])
        return bool((abs(difference) <= allowed).all())

    @property
    def multiplicity(self) -> np.ndarray:
        """(n,) number of subdomains that hold each unknown."""
        return np.bincount(self.node, minlength=self.n)

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
    """Write a Schwarz method, one- or two-level, of any form, to a file of NumPy (.npz) for `load`.

    An older file of that name stays whole until the new one is.

    Raises:
        TypeError: not a `ddm.Schwarz`.
        ValueError: a coarse problem solved by a method of its own, complex values, a null space, or
            values that are not finite.
    """
    from ddm.schwarz import Schwarz  # not above: reading needs no PyTorch
    from sparsetorch.whole_files import replacing

    if not isinstance(method, Schwarz):
        raise TypeError(
            f"method: expected a ddm.Schwarz, got {type(method).__name__}; PETSc has its own "
            "multigrid and factorizations"
        )
    d, P = method.decomposition, method.P
    if method.A.dtype.is_complex or method.null is not None:
        raise ValueError("method: expected a real matrix without null space")
    if P is not None and method.coarse.method is not None:
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
        "form": method.form,
        "levels": "" if P is None else method.levels,
        "damping": float(method.damping),
    }
    if P is not None:
        arrays["P_indptr"] = P.pattern.crow.cpu().numpy()
        arrays["P_indices"] = P.pattern.col.cpu().numpy()
        arrays["P_data"] = P.values.detach().cpu().double().numpy()
        arrays["n_coarse"] = P.shape[1]
    for name in ("value", "P_data"):
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    # Given a name, NumPy would add a suffix to it.
    with replacing(Path(path)) as partial, partial.open("wb") as file:
        np.savez_compressed(file, format=FORMAT, **arrays)


def load(path: str | Path) -> Operator:
    """Read what `export` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, one of another version of this library, or one whose
            arrays do not fit together.
    """
    Path(path).open("rb").close()  # what the system says of a file that cannot be read
    try:
        with np.load(path, allow_pickle=False) as file:
            _check_format(str(file["format"]) if "format" in file else "")
            arrays: dict[str, Any] = {field.name: file[field.name] for field in fields(Operator)}
    except Exception as error:  # the readers raise whatever they meet in a damaged file
        raise ValueError(f"path: {path} is damaged or of another kind ({error})") from error
    if not (_right_kinds(arrays) and _fit(operator := Operator(**_with_scalars(arrays)))):
        raise ValueError(f"path: the arrays of {path} do not fit together")
    return operator


def _check_format(found: str) -> None:
    if found == FORMAT:
        return
    if found.startswith(FORMAT.rstrip("0123456789")):
        raise ValueError("another version of ddm.petsc.export wrote it: export the method anew")
    raise ValueError("ddm.petsc.export did not write it")


def _right_kinds(arrays: dict[str, Any]) -> bool:
    """Whether all are flat arrays of the right kind of numbers, or one number or name."""
    kinds = dict.fromkeys(arrays, "iu") | {"own": "b", "value": "f", "P_data": "f"}
    kinds |= {"form": "U", "levels": "U", "damping": "f"}
    return all(
        array.dtype.kind in kinds[name] and array.ndim == (name not in SCALARS)
        for name, array in arrays.items()
    )


def _with_scalars(arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays, with numbers and names as Python's own."""
    scalars = {name: kind(arrays[name]) for name, kind in SCALARS.items()}
    return arrays | scalars | {"levels": scalars["levels"] or None}


def _fit(o: Operator) -> bool:
    """Whether indices are in range, which PETSc would take on trust, and names are known."""
    sizes = np.diff(o.start)
    good = (
        o.form in FORMS
        and (o.levels in SWEEPS if o.n_coarse else o.levels is None)
        and not (o.form == "restricted" and o.levels == "symmetric")
        and 0 < o.damping < np.inf
        and len(o.start) > 1
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
    subdomain by subdomain stay where they are. Set up again when the matrix has new values. Use CG
    where `operator.is_symmetric` and the matrix is symmetric and positive definite; otherwise
    FGMRES, or GMRES with preconditioning from the right.

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
        """Deal out the rows, and build the levels on them."""
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
        if o.levels is None:
            _one_level(self.inner, matrix, o, shares[rank], number)
        else:
            build = _multigrid if o.levels == "multiplicative" else _sweeps
            build(self.inner, matrix, o, shares[rank], number)
        self.inner.setUp()

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


def _interpolation(matrix: Any, o: Operator, subdomains: np.ndarray) -> Any:
    """P as a PETSc matrix, with this process's rows in their new order."""
    from petsc4py import PETSc

    rows = o.own_unknowns(subdomains)
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


def _multigrid(pc: Any, A: Any, o: Operator, subdomains: np.ndarray, number: np.ndarray) -> None:
    """PCMG: one fine sweep before the coarse correction, and none after it."""
    P = _interpolation(A, o, subdomains)
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


def _sweeps(pc: Any, A: Any, o: Operator, subdomains: np.ndarray, number: np.ndarray) -> None:
    """The other kinds of two levels: sweeps in Python, of PCASM and a coarse LU."""
    from petsc4py import PETSc

    fine = PETSc.PC().create(A.getComm())
    _one_level(fine, A, o, subdomains, number)
    pc.setType("python")
    pc.setPythonContext(TwoLevels(A, fine, _interpolation(A, o, subdomains), o))


class TwoLevels:
    """The context of a PETSc PC of type "python": sweeps of both levels, see above."""

    def __init__(self, A: Any, fine: Any, P: Any, operator: Operator):
        from petsc4py import PETSc

        self.A, self.fine, self.P, self.operator = A, fine, P, operator
        coarse_matrix = A.ptap(P)
        self.coarse = PETSc.PC().create(A.getComm())
        self.coarse.setOperators(coarse_matrix, coarse_matrix)
        self.coarse.setType("redundant")  # LU on every process
        self.coarse.setUp()
        self.left, self.step = A.createVecs()
        self.coarse_r, self.coarse_z = coarse_matrix.createVecs()

    def apply(self, pc: Any, r: Any, z: Any) -> None:
        """z = M r."""
        levels = self.operator.levels
        assert levels is not None
        z.set(0.0)
        left = r
        for count, level in enumerate(SWEEPS[levels]):
            if count and levels != "additive":
                left = self.left
                self.A.mult(z, left)
                left.aypx(-1.0, r)  # r - A z
            if level == "F":
                self.fine.apply(left, self.step)
                z.axpy(self.operator.damping, self.step)
            else:
                self.P.multTranspose(left, self.coarse_r)
                self.coarse.apply(self.coarse_r, self.coarse_z)
                self.P.multAdd(self.coarse_z, z, z)

    def destroy(self, pc: Any) -> None:
        """Free PETSc's objects with the PC, on all processes at once."""
        for name in ("fine", "coarse", "P", "left", "step", "coarse_r", "coarse_z"):
            getattr(self, name).destroy()

    def view(self, pc: Any, viewer: Any) -> None:
        """Show the PCs behind it."""
        self.fine.view(viewer)
        self.coarse.view(viewer)


def _one_level(pc: Any, A: Any, o: Operator, subdomains: np.ndarray, number: np.ndarray) -> None:
    """PCASM, with its local matrices made those of the method.

    Where it is restricted it keeps of each solution what its process owns: hence rows in the order
    of `number`.
    """
    from petsc4py import PETSc

    def index_set(nodes: np.ndarray) -> Any:
        return PETSc.IS().createGeneral(np.sort(number[nodes]), comm=PETSc.COMM_SELF)

    restricted = o.form == "restricted"
    pc.setType("asm")
    pc.setOperators(A, A)
    pc.setASMType(PETSc.PC.ASMType.RESTRICT if restricted else PETSc.PC.ASMType.BASIC)
    pc.setASMOverlap(0)  # the subdomains have it already
    pc.setASMLocalSubdomains(
        len(subdomains),
        [index_set(o.unknowns(s)) for s in subdomains],
        [index_set(o.own_unknowns(np.array([s]))) for s in subdomains] if restricted else None,
    )
    pc.setUp()
    multiplicity = o.multiplicity
    for s, ksp in zip(subdomains, pc.getASMSubKSP()):
        matrix, nodes = ksp.getOperators()[1], o.unknowns(s)
        place = np.argsort(np.argsort(number[nodes]))  # of each unknown, in PETSc's
        _add_values(matrix, o, s, place)
        if o.form == "symmetric":
            inverse = matrix.createVecLeft()  # of D_i
            inverse.array[place] = multiplicity[nodes]
            matrix.diagonalScale(inverse, inverse)
        ksp.setOperators(matrix, matrix)
        ksp.setType("preonly")
        ksp.getPC().setType("lu")
        ksp.setUp()


def _add_values(matrix: Any, o: Operator, subdomain: int, place: np.ndarray) -> None:
    """Add the interface values of a subdomain to its matrix, whose order `place` gives."""
    from petsc4py import PETSc

    part = slice(o.entries[subdomain], o.entries[subdomain + 1])
    if part.start == part.stop:
        return
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
