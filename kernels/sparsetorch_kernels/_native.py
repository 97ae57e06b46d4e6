"""Finds, or compiles once, and loads the C++ library.

Order: a library shipped beside this file, the user's cache, one direct call of a C++ compiler.
`SPARSETORCH_NATIVE` says what happens when none of these works:

    auto     (default) the PyTorch reference runs, and one warning says why
    require  RuntimeError with the same text
    off      the reference runs, and nothing is looked for

The cache is `$SPARSETORCH_CACHE`, or `sparsetorch` in `$XDG_CACHE_HOME` or `~/.cache`. A file in it
is named by a hash of everything that it depends on, is written under a temporary name and renamed,
and ends in a digest of its own contents: two processes may build at once, a build may be killed,
and a damaged file (which the dynamic loader would crash on) is noticed and built again. There are
no locks.
"""

import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
import warnings
from pathlib import Path
from types import ModuleType

import torch

_HERE = Path(__file__).parent
_SHIPPED = _HERE / "sparsetorch_native.so"
_SOURCES = _HERE / "csrc"
_MAIN = _SOURCES / "library.cpp"
_DIGEST_BYTES = 32

# The oldest supported PyTorch, 2.11: the library then loads in every later one.
_TARGET_VERSION = "-DTORCH_TARGET_VERSION=0x020b000000000000"
_FLAGS = (
    "-std=c++20",
    "-O3",
    # The loops that gain from vectors are written with vectors; vectorizing the rest makes short
    # rows slower.
    "-fno-tree-vectorize",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-Wno-psabi",
    _TARGET_VERSION,
    f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
)

_lock = threading.Lock()


class NativeUnavailableError(RuntimeError):
    """The C++ library could not be had; the message says why and what to do."""


def ops() -> ModuleType | None:
    """The library's operators (`torch.ops.sparsetorch_native`), or None where the reference runs.

    Loads the library on the first call. Raises RuntimeError under `SPARSETORCH_NATIVE=require` when
    it cannot, and ValueError when that variable holds anything but auto, require or off.
    """
    with _lock:
        return _load()[0]


def status() -> str:
    """One line: which library serves, or why none does."""
    with _lock:
        return _load()[1]


@functools.cache
def _load() -> tuple[ModuleType | None, str]:
    mode = os.environ.get("SPARSETORCH_NATIVE", "auto")
    if mode not in ("auto", "require", "off"):
        raise ValueError(f"SPARSETORCH_NATIVE is {mode!r}; expected 'auto', 'require' or 'off'")
    if mode == "off":
        return None, "reference (SPARSETORCH_NATIVE=off)"
    try:
        path = _shipped() or _cached_or_built()
    except NativeUnavailableError as reason:
        if mode == "require":
            raise
        warnings.warn(
            f"sparsetorch runs its slow PyTorch reference on CPU: {reason} "
            "(SPARSETORCH_NATIVE=off silences this warning.)",
            RuntimeWarning,
            stacklevel=2,
        )
        return None, f"reference ({reason})"
    return torch.ops.sparsetorch_native, f"native ({path})"


def _shipped() -> Path | None:
    """Load the library of a wheel; None where there is none or it is for another platform."""
    if not _SHIPPED.exists():
        return None
    try:
        torch.ops.load_library(str(_SHIPPED))
    except OSError:
        return None  # built for another platform: this machine can still build its own
    return _SHIPPED


def _cached_or_built() -> Path:
    compiler = _compiler()
    path = _cache_folder() / f"native-{_key(compiler)}.so"
    if not _is_whole(path):
        _build(compiler, path)
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise NativeUnavailableError(f"the library {path} does not load: {error}") from error
    return path


def _compiler() -> list[str]:
    """The C++ compiler's command: `$CXX`, or the first of g++, c++ and clang++ in the path."""
    named = os.environ.get("CXX")
    for command in [shlex.split(named)] if named else [["g++"], ["c++"], ["clang++"]]:
        if command and shutil.which(command[0]):
            return command
    what = f"CXX={named} is not a command" if named else "no C++ compiler (g++, c++, clang++) found"
    raise NativeUnavailableError(
        f"{what}. Install one (for example `apt install g++`) or set CXX to its path."
    )


def _cache_folder() -> Path:
    folder = os.environ.get("SPARSETORCH_CACHE")
    if folder:
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparsetorch"


def _key(compiler: list[str]) -> str:
    """A hash of all that the library's bytes depend on."""
    version = _run([*compiler, "--version"])
    if version.returncode != 0:
        raise NativeUnavailableError(f"`{compiler[0]} --version` fails: {_tail(version)}")
    parts = [*_FLAGS, *compiler, version.stdout, platform.platform(), _cpu()]
    digest = hashlib.sha256("\0".join(parts).encode())
    for source in sorted(_SOURCES.iterdir()):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:24]


def _cpu() -> str:
    """What `-march=native` depends on: a home folder may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    names = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(names)}))


def _build(compiler: list[str], path: Path) -> None:
    """Compile to a temporary name beside `path`, append the digest, and rename."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix="building-")
    except OSError as error:
        raise NativeUnavailableError(
            f"the cache cannot be written: {error}. Set SPARSETORCH_CACHE to a writable folder."
        ) from error
    os.close(handle)
    try:
        _compile(compiler, name)
        library = Path(name).read_bytes()
        with open(name, "ab") as file:
            file.write(hashlib.sha256(library).digest())
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _compile(compiler: list[str], output: str) -> None:
    torch_folder = Path(torch.__file__).parent
    command = [
        *compiler,
        *_FLAGS,
        f"-I{torch_folder / 'include'}",
        str(_MAIN),
        "-o",
        output,
        f"-L{torch_folder / 'lib'}",
        "-ltorch_cpu",
    ]
    # Some compilers do not know `-march=native`; the second attempt's message is the one to show.
    for extra in (["-march=native"], []):
        result = _run([*command, *extra])
        if result.returncode == 0:
            return
    raise NativeUnavailableError(
        f"{compiler[0]} could not compile the library (a compiler with C++20 is needed, such as "
        f"g++ 11 or clang 14): {_tail(result)}"
    )


def _run(command: list[str]) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NativeUnavailableError(f"{command[0]} cannot be run: {error}") from error


def _tail(result: subprocess.CompletedProcess) -> str:
    return result.stderr.strip()[-2000:]


def _is_whole(path: Path) -> bool:
    """Whether the file is there and ends in the digest of what precedes."""
    try:
        contents = path.read_bytes()
    except OSError:
        return False
    library, digest = contents[:-_DIGEST_BYTES], contents[-_DIGEST_BYTES:]
    return hashlib.sha256(library).digest() == digest
