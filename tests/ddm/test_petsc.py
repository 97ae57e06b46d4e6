"""Methods written for PETSc: what the files hold, and PETSc's iterations beside ours."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NoReturn, get_args

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from manufactured import square
from skfem import MeshTet
from small_problems import laplacian

from ddm.checkpoints import load_pretrained
from ddm.coarse import partition_of_unity, smooth
from ddm.enrichment import enriched
from ddm.multilevel import recursive
from ddm.partition import decompose, partition
from ddm.peers import Multigrid
from ddm.petsc import FORMS, SWEEPS, Operator, export, load
from ddm.problems import Problem, elasticity, poisson
from ddm.problems.petsc_binary import load_petsc
from ddm.schwarz import Levels, Schwarz, robin
from ddm.setup import set_up
from ddm.transfer import Form
from sparsetorch import CSRTensor
from sparsetorch.linalg import Solution, cg, fgmres

ROOT = Path(__file__).parents[2]
A = laplacian(30)
MATRIX = CSRTensor.from_scipy(A)


def method(
    theta: float | None, two_levels: bool, form: Form = "restricted", levels: Levels | None = None
) -> Schwarz:
    d = decompose(A, partition(A, 12))
    interface = None if theta is None else robin(d, theta)
    P = smooth(partition_of_unity(d), MATRIX) if two_levels else None
    levels = levels or "multiplicative"
    return Schwarz(MATRIX, d, interface=interface, P=P, form=form, levels=levels)


def learned(problem: Problem, name: str, symmetric: bool = False) -> Schwarz:
    net = load_pretrained(name)
    owner = partition(problem.A, 6, block_size=problem.block_size)
    with torch.no_grad():
        return set_up(problem, owner, symmetric=symmetric, **net.options).learned(net)


PLATE = elasticity(square(14), source=(0.0, -1.0), dirichlet={"left": 0.0})


def cancelling() -> Problem:
    """Quadratic elements in space: couplings of elements that cancel are not stored in A."""
    return poisson(MeshTet().refined(3), degree=2)


SOLID = cancelling()


def convection() -> sp.csr_array:
    """A Laplacian with a wind across the grid: not symmetric."""
    L = laplacian(16)
    return sp.csr_array(L + 0.5 * (sp.tril(L, -1) - sp.triu(L, 1)))


WIND = convection()


def additive() -> Schwarz:
    d = decompose(WIND, partition(WIND, 4))
    return Schwarz(CSRTensor.from_scipy(WIND), d, form="additive")


COMBINED = {
    f"{form}_{levels}": method(0.5, levels is not None, form, levels)
    for form, levels in product(get_args(Form), (None, *get_args(Levels)))
    if (form, levels) != ("restricted", "symmetric")  # there is no such method
}
SYMMETRIC = [
    f"{form}_{levels}"
    for form in ("additive", "symmetric")
    for levels in (None, "additive", "balanced", "symmetric")
]
METHODS = {
    "ras1": method(None, False),
    "oras1": method(0.5, False),
    "ras2": method(None, True),
    "oras2": method(0.5, True),
    "enriched2": enriched(method(0.5, True), 2),
    "elasticity": learned(PLATE, "elasticity_2d"),
    "elasticity_cg": learned(PLATE, "elasticity_2d", symmetric=True),
    "quadratic": set_up(SOLID, partition(SOLID.A, 6)).classical(0.5),
    "wind": additive(),
    **COMBINED,
}


@pytest.mark.parametrize("M", METHODS.values(), ids=METHODS)
def test_a_file_holds_the_method(M, tmp_path):
    export(M, tmp_path / "method.npz")
    o, d = load(tmp_path / "method.npz"), M.decomposition
    assert (o.n, o.n_subdomains) == (d.n, d.n_subdomains)
    for s in range(d.n_subdomains):
        assert np.array_equal(o.unknowns(s), d.node[d.subdomain == s])
        own = d.node[(d.subdomain == s) & d.own]
        assert np.array_equal(o.own_unknowns(np.array([s])), own)
        # The local matrix of PETSc plus the values is ours.
        size = d.sizes[s]
        added = np.zeros((size, size))
        part = slice(o.entries[s], o.entries[s + 1])
        np.add.at(added, (o.row[part], o.col[part]), o.value[part])
        ours = np.zeros((size, size))
        if M.interface is not None:
            here = d.subdomain[d.block_row[d.interface]] == s
            first = np.flatnonzero(d.subdomain == s)[0]
            block = d.interface[here]
            ours[d.block_row[block] - first, d.block_col[block] - first] = M.interface[here]
        assert np.array_equal(added, ours)
    assert o.n_coarse == (0 if M.P is None else M.P.shape[1])
    if M.P is not None:
        assert np.array_equal(o.P_data, M.P.values.numpy())
    levels = None if M.P is None else M.levels
    assert (o.form, o.levels, o.damping) == (M.form, levels, M.damping)
    assert o.is_symmetric == M.is_symmetric


def test_every_form_and_every_kind_of_levels_has_its_name():
    assert get_args(Form) == FORMS
    assert set(get_args(Levels)) == set(SWEEPS)


def test_methods_are_symmetric_by_form_and_levels_and_interface_values(tmp_path):
    path = tmp_path / "method.npz"

    def is_symmetric(M: Schwarz) -> bool:
        export(M, path)
        return load(path).is_symmetric

    assert [name for name, M in COMBINED.items() if is_symmetric(M)] == SYMMETRIC
    M = method(0.5, True, "symmetric", "balanced")
    assert M.interface is not None
    d, M.interface = M.decomposition, M.interface.clone()
    row, col = d.block_row[d.interface], d.block_col[d.interface]
    # One value off the diagonal with nothing across it: by rounding, and by more.
    place = np.flatnonzero((row != col) & (M.interface.numpy() == 0))[0]
    M.interface[place] = 1e-14
    assert is_symmetric(M)
    M.interface[place] = 1e-6
    assert not is_symmetric(M)


def operator(tmp_path: Path) -> Operator:
    export(METHODS["oras2"], tmp_path / "method.npz")
    return load(tmp_path / "method.npz")


@pytest.mark.parametrize("processes", [1, 2, 5, 12])
def test_processes_share_the_subdomains(processes, tmp_path):
    o = operator(tmp_path)
    shares = o.shares(processes)
    assert sorted(np.concatenate(shares)) == list(range(12))
    assert {len(share) for share in shares} <= {12 // processes, 12 // processes + 1}
    rows = np.concatenate([o.own_unknowns(share) for share in shares])
    assert sorted(rows) == list(range(o.n))


@pytest.mark.parametrize(
    "damage",
    [
        {"start": 1},
        {"node": -1},
        {"node": 10**6},
        {"own": True},
        {"entries": 10**6},
        {"row": 10**6},
        {"col": -1},
        {"value": np.nan},
        {"P_indptr": 7},
        {"P_indices": 12},
        {"P_data": np.inf},
        {"form": "multiplicative"},
        {"form": "symmetrical"},
        {"levels": ""},
        {"levels": "symmetric"},
        {"levels": "deflated"},
        {"damping": 0.0},
        {"damping": np.nan},
    ],
    ids=str,
)
def test_damaged_files_are_refused(damage, tmp_path):
    path = tmp_path / "method.npz"
    export(METHODS["oras2"], path)
    arrays = dict(np.load(path))
    for name, value in damage.items():
        if arrays[name].ndim == 0:
            arrays[name] = np.array(value)
        else:
            place = np.flatnonzero(arrays[name] != value)[0]
            arrays[name][place] = value
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"the arrays of .*method.npz do not fit together"):
        load(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(ValueError, match=r"other.npz .*ddm.petsc.export did not write it"):
        load(tmp_path / "other.npz")
    np.savez(tmp_path / "old.npz", format="sparsetorch Schwarz operator 1", n=3)
    with pytest.raises(ValueError, match=r"old.npz .*another version .*: export the method anew"):
        load(tmp_path / "old.npz")
    (tmp_path / "text.npz").write_text("PETSc")
    with pytest.raises(ValueError, match=r"text.npz is damaged or of another kind"):
        load(tmp_path / "text.npz")
    export(METHODS["ras1"], tmp_path / "method.npz")
    whole = (tmp_path / "method.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.npz is damaged or of another kind"):
        load(tmp_path / "cut.npz")


@pytest.mark.filterwarnings("ignore")  # of a reader that guesses
def test_a_byte_that_changes_anywhere_is_noticed_or_does_no_harm(tmp_path):
    path = tmp_path / "method.npz"
    export(METHODS["oras2"], path)
    whole, first = path.read_bytes(), load(path)
    rng = np.random.default_rng(0)
    messages = []
    for place in rng.integers(len(whole), size=300):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read = vars(load(path))
        except ValueError as error:
            messages.append(str(error))
        else:  # a byte without meaning, such as one of a date
            assert all(np.array_equal(array, vars(first)[name]) for name, array in read.items())
    assert all(str(path) in message for message in messages)
    assert len(messages) > 200


@pytest.mark.parametrize(
    "change",
    [
        {"n": np.zeros(2)},
        {"own": np.zeros(3)},
        {"start": np.ones(0)},
        {"form": np.array(1)},
        {"levels": np.array(["multiplicative"])},
        {"damping": np.ones(1)},
    ],
)
def test_arrays_of_another_kind_are_refused(change, tmp_path):
    path = tmp_path / "method.npz"
    export(METHODS["oras2"], path)
    np.savez(path, **(dict(np.load(path)) | change))
    with pytest.raises(ValueError, match=r"the arrays of .*method.npz do not fit together"):
        load(path)


def test_values_that_are_not_finite_are_not_written(tmp_path):
    M = method(0.5, False)
    assert M.interface is not None
    M.interface[3] = torch.nan
    with pytest.raises(ValueError, match="value: expected finite numbers"):
        export(M, tmp_path / "method.npz")


def test_other_methods_are_not_written(tmp_path):
    d = decompose(A, partition(A, 12))
    P = partition_of_unity(d)
    singular = CSRTensor.from_scipy(sp.csr_array(A - sp.diags_array(A.sum(axis=1))))
    ones = np.ones((d.n, 1))
    for M in (Schwarz(MATRIX.to(torch.complex128), d), Schwarz(singular, d, nullspace=ones)):
        with pytest.raises(ValueError, match="method: expected a real matrix without null space"):
            export(M, tmp_path / "method.npz")
    deep = Schwarz(MATRIX, d, P=P, coarse=recursive(P, direct_up_to=3, subdomain=4))
    with pytest.raises(ValueError, match="method: its coarse problem is solved by a method of its"):
        export(deep, tmp_path / "method.npz")
    cycle = Multigrid(MATRIX, np.ones((d.n, 1)), block_size=1, symmetric=True)
    with pytest.raises(TypeError, match=r"method: expected a ddm\.Schwarz, got Multigrid; PETSc"):
        export(cycle, tmp_path / "method.npz")  # type: ignore


def test_a_file_has_the_name_that_it_is_given(tmp_path):
    export(METHODS["ras1"], tmp_path / "method")
    assert load(tmp_path / "method").n == A.shape[0]
    assert [path.name for path in tmp_path.iterdir()] == ["method"]


def test_a_file_stays_whole_where_writing_fails(tmp_path, monkeypatch):
    export(METHODS["ras1"], tmp_path / "method.npz")

    def fail(file: Any, **arrays: Any) -> NoReturn:
        file.write(b"PK")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="No space left"):
        export(METHODS["oras2"], tmp_path / "method.npz")
    assert load(tmp_path / "method.npz").n_coarse == 0
    assert [path.name for path in tmp_path.iterdir()] == ["method.npz"]


def test_reading_needs_no_pytorch():
    code = "import sys, ddm.petsc; assert not {'torch', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def missing(what: str) -> NoReturn:
    """Skip, or fail where SPARSETORCH_PETSC=require, as .ci/run sets it once PETSc is installed."""
    if os.environ.get("SPARSETORCH_PETSC") == "require":
        pytest.fail(what)
    pytest.skip(what)


def petsc() -> tuple[str, dict[str, str]]:
    """A Python with petsc4py, and the environment that it needs: this one's, or the system's."""
    systems = sorted(Path("/usr/lib/petscdir").glob("*/*-real/lib/python3/dist-packages"))
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    for python, paths in ((sys.executable, []), ("/usr/bin/python3", systems)):
        path = os.pathsep.join([str(ROOT), *map(str, paths)])
        environment = {**os.environ, **root, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        found = shutil.which(python) and subprocess.run(
            [python, "-c", "import petsc4py.PETSc"], env=environment, capture_output=True
        )
        if found and found.returncode == 0:
            return python, environment
    missing("needs petsc4py: apt-get install python3-petsc4py-real openmpi-bin")


def test_what_is_missing_fails_where_it_is_required(monkeypatch):
    monkeypatch.setenv("SPARSETORCH_PETSC", "require")
    with pytest.raises(pytest.fail.Exception):
        missing("needs mpirun")
    monkeypatch.delenv("SPARSETORCH_PETSC")
    with pytest.raises(pytest.skip.Exception):
        missing("needs mpirun")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("petsc")
    for name, M in METHODS.items():
        export(M, folder / f"{name}.npz")
    systems = {"grid": A, "plate": PLATE.A, "solid": SOLID.A, "stream": WIND}
    for name, matrix in systems.items():
        arrays = {"indptr": matrix.indptr, "indices": matrix.indices, "data": matrix.data}
        np.savez(folder / f"{name}.npz", b=right_hand_side(matrix.shape[0]), **arrays)
    return folder


def right_hand_side(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(n)


def launch(processes: int) -> list[str]:
    if processes > 1 and shutil.which("mpirun") is None:
        missing("needs mpirun: apt-get install openmpi-bin")
    return [] if processes == 1 else ["mpirun", "--oversubscribe", "-n", str(processes)]


def output_of(command: Sequence[str | Path], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(files: list[Path], processes: int) -> str:
    python, environment = petsc()
    script = ROOT / "examples" / "petsc_solve.py"
    return output_of([*launch(processes), python, script, *files], environment)


def solved(M: Schwarz, A: CSRTensor, krylov: str) -> Solution:
    """Our solution by the Krylov method of that name."""
    b = torch.from_numpy(right_hand_side(M.shape[0]))
    if krylov == "CG":
        return cg(A, b, preconditioner=M, rtol=1e-8)
    return fgmres(A, b, preconditioner=M, rtol=1e-8, restart=500)


GRID = (*(name for name in METHODS if name[-1] in "12"), *COMBINED)


@pytest.mark.parametrize(
    ("processes", "system", "names"),
    [
        (1, "grid", GRID),
        (2, "grid", GRID),
        (3, "grid", GRID),
        (2, "plate", ("elasticity", "elasticity_cg")),
        (2, "solid", ("quadratic",)),
        (2, "stream", ("wind",)),
    ],
)
def test_petsc_needs_our_iterations_for_our_solution(processes, system, names, files):
    paths = [files / f"{name}.npz" for name in (system, *names)]
    output = run(paths, processes)
    for name in names:
        M = METHODS[name]
        krylov = "CG" if M.is_symmetric and system != "stream" else "FGMRES"
        ours = solved(M, M.A, krylov)
        found = re.search(
            rf"^{name}: (\d+) iterations of {krylov}, \|x\| = (\S+),", output, re.MULTILINE
        )
        assert found is not None, output
        assert int(found[1]) == ours.iterations
        # Without the weights of SORAS, or a coarse sweep, some norms change by 1e-9 alone.
        assert float(found[2]) == pytest.approx(float(ours.x.norm()), rel=1e-10)


def test_more_processes_than_subdomains_are_refused(files, tmp_path):
    d = decompose(A, partition(A, 2))
    export(Schwarz(MATRIX, d), tmp_path / "two.npz")
    with pytest.raises(AssertionError, match="expected at most 2 processes, one for each"):
        run([files / "grid.npz", tmp_path / "two.npz"], 3)


SHIFT = """
import sys, runpy
solve = runpy.run_path(sys.argv[1])
PETSc, A, b = solve["PETSc"], *solve["read"](sys.argv[2])
systems = [A, A.duplicate(copy=True)]
systems[1].shift(0.5)
for path in sys.argv[3:]:
    ksp, operator = PETSc.KSP().create(), solve["load"](path)
    ksp.setType("cg" if operator.is_symmetric else "fgmres")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=1e-8)
    solve["install"](ksp.getPC(), operator)
    for system in systems:
        ksp.setOperators(system)
        x = b.duplicate()
        ksp.solve(b, x)
        PETSc.Sys.Print(ksp.getIterationNumber(), f"{x.norm():.10e}")
    ksp.view()
    ksp.destroy()
"""


def test_new_values_of_the_matrix_are_taken(files):
    python, environment = petsc()
    script, names = ROOT / "examples" / "petsc_solve.py", ("oras2", "symmetric_balanced")
    paths = [files / f"{name}.npz" for name in ("grid", *names)]
    output = output_of([*launch(2), python, "-c", SHIFT, script, *paths], environment)
    found = re.findall(r"^(\d+) (\S+)$", output, re.MULTILINE)
    shifted = CSRTensor.from_scipy(sp.csr_array(A + 0.5 * sp.eye_array(A.shape[0])))
    for number, name in enumerate(names):
        M = METHODS[name]
        options: Any = {"interface": M.interface, "P": M.P, "form": M.form, "levels": M.levels}
        for count, matrix in enumerate((MATRIX, shifted)):
            changed = Schwarz(matrix, M.decomposition, **options)
            ours = solved(changed, matrix, "CG" if M.is_symmetric else "FGMRES")
            iterations, norm = found[2 * number + count]
            assert int(iterations) == ours.iterations
            assert float(norm) == pytest.approx(float(ours.x.norm()), rel=1e-10)
    assert output.count("type: asm") == output.count("type: redundant") == len(names)


SRUN = '#!/bin/sh\nexec mpirun --oversubscribe -n 2 "$@"\n'


def test_the_batch_script_solves(files, tmp_path):
    python, environment = petsc()
    script = ROOT / "examples" / "petsc.slurm"
    subprocess.run(["bash", "-n", script], check=True)
    named = re.findall(r"examples/[\w.]+", script.read_text())
    assert named
    assert all((ROOT / name).is_file() for name in named)
    launch(2)
    for name, text in (("srun", SRUN), ("python3", f'#!/bin/sh\nexec {python} "$@"\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    environment |= {"PATH": path, "SLURM_SUBMIT_DIR": str(ROOT)}
    options = ["-oras2_ksp_type", "gmres", "-oras2_ksp_pc_side", "right"]
    command = ["bash", script, files / "grid.npz", files / "oras2.npz", *options]
    ours = solved(METHODS["oras2"], MATRIX, "FGMRES")
    expected = f"oras2: {ours.iterations} iterations of GMRES, "
    assert output_of(command, environment).startswith(expected)


WRITE = """
import sys, numpy as np
from petsc4py import PETSc
with np.load(sys.argv[1]) as f:
    n = len(f["b"])
    csr = f["indptr"].astype(PETSc.IntType), f["indices"].astype(PETSc.IntType), f["data"]
    A = PETSc.Mat().createAIJ((n, n), csr=csr, comm=PETSc.COMM_SELF)
A.view(PETSc.Viewer().createBinary(sys.argv[2], "w", comm=PETSc.COMM_SELF))
"""


def test_matrices_that_petsc_wrote_are_read(files, tmp_path):
    python, environment = petsc()
    command = [python, "-c", WRITE, str(files / "grid.npz"), str(tmp_path / "A.petsc")]
    subprocess.run(command, env=environment, check=True, timeout=60)
    (read,) = load_petsc(tmp_path / "A.petsc")
    assert not isinstance(read, np.ndarray)
    assert np.array_equal(read.toarray(), A.toarray())


@pytest.mark.usefixtures("gmsh")
def test_the_example_writes_what_petsc_solves(tmp_path):
    script = ROOT / "examples" / "petsc_export.py"
    command = [sys.executable, str(script), "--nodes", "1500", "--folder", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    done = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=120
    )
    names = ("ras", "oras", "mggnn", "as")
    output = run([tmp_path / f"{name}.npz" for name in ("system", *names)], 2)
    counts = re.compile(r"(\w+): (\d+) iterations of (\w+)")
    assert counts.findall(output) == counts.findall(done.stdout)
    assert [name for name, _, _ in counts.findall(output)] == list(names)
    assert [krylov for _, _, krylov in counts.findall(output)] == ["FGMRES"] * 3 + ["CG"]
