"""Synthetic logs as files in the format of CIKM Cup 2016."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from graphnets.matching.logs import Logs
from graphnets.matching.pair_files import save_pairs
from graphnets.matching.pairs import positive_pairs
from graphnets.matching.synthetic.settings import Synthetic
from graphnets.matching.synthetic.web import SyntheticWeb
from graphnets.matching.synthetic.world import synthetic_world
from graphnets.matching.text_blocks import whole_file

CHUNK = 1 << 16  # pages whose lines are made at a time
SEPARATORS = ("", "/", "/", "?")  # before each part of an address


def generate(
    folder: str | Path,
    n_devices: int,
    seed: int = 0,
    settings: Synthetic | None = None,
    *,
    test: float = 0.0,
    compress: bool = False,
) -> None:
    """Write the logs of `synthetic_logs` as files that `load_cikm` reads.

    facts.json is newest first with times in s, ms or us, each visit by itself. train.csv has all
    pairs of devices of one user, but for the users of the test, whose pairs are in test.csv.

    Args:
        folder: to write to; it is made if it is not there, and files of these names, also
            gzipped, are replaced.
        n_devices, seed, settings: as in `synthetic_logs`.
        test: the share of users that belong to the test, from 0 to 1.
        compress: whether to gzip facts.json, urls.csv and titles.csv.

    Raises:
        ValueError: a number of devices that is negative, or a share that is none.
    """
    if not 0 <= test <= 1:
        raise ValueError(f"test: expected a share from 0 to 1, got {test}")
    folder, end = Path(folder), ".gz" if compress else ""
    logs, web = synthetic_world(n_devices, seed, settings or Synthetic())
    rng = np.random.default_rng([seed, 2])
    fids = rng.permutation(2 * len(logs.pages))[: len(logs.pages)]  # some fids nobody visits
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "facts.json": _facts(logs, fids, rng),
        "urls.csv": _urls(web, fids),
        "titles.csv": _titles(web, fids),
    }
    for name, text in tables.items():
        with whole_file(folder / f"{name}{end}") as file:
            file.writelines(text)
        (folder / (name if compress else f"{name}.gz")).unlink(missing_ok=True)
    pairs = positive_pairs(logs.users)
    n_users = int(logs.users.max()) + 1 if len(logs) else 0
    held_out = torch.from_numpy(rng.random(n_users) < test)
    tested = held_out[logs.users[pairs[:, 0]]]
    save_pairs(folder / "train.csv", pairs[~tested], logs.names)
    save_pairs(folder / "test.csv", pairs[tested], logs.names)


def _facts(logs: Logs, fids: np.ndarray, rng: np.random.Generator) -> Iterator[str]:
    for device, name in enumerate(logs.names):
        visits = slice(int(logs.page.ptr[device]), int(logs.page.ptr[device + 1]))
        unit = 1000 ** rng.integers(0, 3, visits.stop - visits.start)
        stamps = logs.time[visits].numpy() // 1000 * unit
        pages = fids[logs.page.values[visits].numpy()]
        facts = ", ".join(
            f'{{"fid": {fid}, "ts": {ts}}}'
            for fid, ts in zip(pages[::-1].tolist(), stamps[::-1].tolist())
        )
        yield f'{{"facts": [{facts}], "uid": "{name}"}}\n'


def _urls(web: SyntheticWeb, fids: np.ndarray) -> Iterator[str]:
    parts, depth = web.parts()
    for start in range(0, len(fids), CHUNK):
        some = slice(start, start + CHUNK)
        for fid, part, n in zip(fids[some].tolist(), parts[some].tolist(), depth[some].tolist()):
            address = "".join(f"{mark}{word:016x}" for mark, word in zip(SEPARATORS, part[:n]))
            yield f"{fid},{address}\n"


def _titles(web: SyntheticWeb, fids: np.ndarray) -> Iterator[str]:
    titles = web.titles()
    words = titles.values.numpy().view(np.uint64)
    ptr = titles.ptr.tolist()
    for page in np.flatnonzero(titles.lengths.numpy()).tolist():
        title = " ".join(f"{word:016x}" for word in words[ptr[page] : ptr[page + 1]].tolist())
        yield f"{fids[page]},{title}\n"
