"""Methods written for PETSc: what the files hold, and PETSc's iterations beside ours."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
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
from ddm.petsc import Operator, export, load
from ddm.problems import Problem, elasticity, poisson
from ddm.problems.petsc_binary import load_petsc
from ddm.schwarz import Schwarz, robin
from ddm.setup import set_up
from sparsetorch import CSRTensor
from sparsetorch.linalg import fgmres

ROOT = Path(__file__).parents[2]
A = laplacian(30)
MATRIX = CSRTensor.from_scipy(A)


def method(theta: float | None, two_levels: bool) -> Schwarz:
    d = decompose(A, partition(A, 12))
    interface = None if theta is None else robin(d, theta)
    P = smooth(partition_of_unity(d), MATRIX) if two_levels else None
    return Schwarz(MATRIX, d, interface=interface, P=P)


def learned(problem: Problem, name: str) -> Schwarz:
    net = load_pretrained(name)
    owner = partition(problem.A, 6, block_size=problem.block_size)
    with torch.no_grad():
        return set_up(problem, owner, **net.options).learned(net)


PLATE = elasticity(square(14), source=(0.0, -1.0), dirichlet={"left": 0.0})


def cancelling() -> Problem:
    """Quadratic elements in space: couplings of elements that cancel are not stored in A."""
    return poisson(MeshTet().refined(3), degree=2)


SOLID = cancelling()


METHODS = {
    "ras1": method(None, False),
    "oras1": method(0.5, False),
    "ras2": method(None, True),
    "oras2": method(0.5, True),
    "enriched2": enriched(method(0.5, True), 2),
    "elasticity": learned(PLATE, "elasticity_2d"),
    "quadratic": set_up(SOLID, partition(SOLID.A, 6)).classical(0.5),
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
    ],
    ids=str,
)
def test_damaged_files_are_refused(damage, tmp_path):
    path = tmp_path / "method.npz"
    export(METHODS["oras2"], path)
    arrays = dict(np.load(path))
    for name, value in damage.items():
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
    "change", [{"n": np.zeros(2)}, {"own": np.zeros(3)}, {"start": np.ones(0)}]
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
    options: Any
    for options in ({"form": "additive"}, {"P": P, "levels": "adef1"}):
        with pytest.raises(ValueError, match="expected form='restricted' and levels="):
            export(Schwarz(MATRIX, d, **options), tmp_path / "method.npz")
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
    for name, matrix in (("grid", A), ("plate", PLATE.A), ("solid", SOLID.A)):
        arrays = {"indptr": matrix.indptr, "indices": matrix.indices, "data": matrix.data}
        np.savez(folder / f"{name}.npz", b=right_hand_side(matrix.shape[0]), **arrays)
    return folder


def right_hand_side(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(n)


def run(files: list[Path], processes: int) -> str:
    python, environment = petsc()
    if processes > 1 and shutil.which("mpirun") is None:
        missing("needs mpirun: apt-get install openmpi-bin")
    launch = [] if processes == 1 else ["mpirun", "--oversubscribe", "-n", str(processes)]
    command = [*launch, python, str(ROOT / "examples" / "petsc_solve.py"), *map(str, files)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


GRID = tuple(name for name in METHODS if name[-1] in "12")


@pytest.mark.parametrize(
    ("processes", "system", "names"),
    [
        (1, "grid", GRID),
        (2, "grid", GRID),
        (3, "grid", GRID),
        (2, "plate", ("elasticity",)),
        (2, "solid", ("quadratic",)),
    ],
)
def test_petsc_needs_our_iterations_for_our_solution(processes, system, names, files):
    paths = [files / f"{name}.npz" for name in (system, *names)]
    output = run(paths, processes)
    for name in names:
        M = METHODS[name]
        b = torch.from_numpy(right_hand_side(M.shape[0]))
        ours = fgmres(M.A, b, preconditioner=M, rtol=1e-8, restart=500)
        found = re.search(rf"{name}: (\d+) iterations of FGMRES, \|x\| = (\S+),", output)
        assert found is not None, output
        assert int(found[1]) == ours.iterations
        assert float(found[2]) == pytest.approx(float(ours.x.norm()), rel=1e-6)


def test_more_processes_than_subdomains_are_refused(files, tmp_path):
    d = decompose(A, partition(A, 2))
    export(Schwarz(MATRIX, d), tmp_path / "two.npz")
    with pytest.raises(AssertionError, match="expected at most 2 processes, one for each"):
        run([files / "grid.npz", tmp_path / "two.npz"], 3)


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
    names = ("ras", "oras", "mggnn")
    output = run([tmp_path / f"{name}.npz" for name in ("system", *names)], 2)
    counts = re.compile(r"(\w+): (\d+) iterations of FGMRES")
    assert counts.findall(output) == counts.findall(done.stdout)
    assert [name for name, _ in counts.findall(output)] == list(names)
