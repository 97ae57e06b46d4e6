"""All tables of docs/matching.md, by one configuration.

    python benchmarks/matching_tables.py --data xdt.npz [--config full|short] [--only NAME ...]
                                         [--out runs/matching]

Runs the scripts that benchmarks/matching_tables.yaml names, each in a process of its own (whose
memory is then its own, too); what each prints is kept in OUT/NAME.log, its tables and pictures
beside that. The first three go on where they were stopped. "full" takes many hours, most of them
for real logs with three seeds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CONFIGURATIONS = Path(__file__).with_suffix(".yaml")
READS_DATA = "matching_xdt"
KEEPS_NOTHING = ("load_logs",)  # but prints its results


def command(name: str, settings: Mapping[str, Any], data: Path, out: Path) -> list[str]:
    """The command line of a script."""

    def words() -> Iterator[str]:
        yield from (sys.executable, str(HERE / f"{name}.py"))
        for option, value in settings.items():
            yield f"--{option}"
            yield from map(str, value if isinstance(value, list) else [value])
        if name == READS_DATA:
            yield from ("--data", str(data))
        if name not in KEEPS_NOTHING:
            yield from ("--out", str(out / name))

    return list(words())


def run(name: str, line: Sequence[str], out: Path) -> None:
    """Run a script; what it prints is shown, and kept.

    Raises:
        SystemExit: it failed.
    """
    print(f"\n{name}: {' '.join(line)}\n", flush=True)
    with (out / f"{name}.log").open("w") as log:
        process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for text in process.stdout:
            print(text, end="", flush=True)
            log.write(text)
            log.flush()
    if process.wait():
        raise SystemExit(f"{name} ended with status {process.returncode}; see above")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    configurations = yaml.safe_load(CONFIGURATIONS.read_text())["configurations"]
    names = list(configurations["full"])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="an xdt.npz")
    parser.add_argument("--config", default="full", choices=list(configurations))
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("runs/matching"))
    options = parser.parse_args(arguments)
    if not options.data.is_file():
        parser.error(f"--data: no file {options.data}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name, settings in configurations[options.config].items():
        if name in options.only:
            run(name, command(name, settings, options.data, options.out), options.out)


if __name__ == "__main__":
    main()
