"""Logs in the format of CIKM Cup 2016, track 1 (cross-device entity linking)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from graphnets.matching.cikm.facts import read_facts
from graphnets.matching.cikm.pages import read_pages
from graphnets.matching.hashing import distinct, number_in_place
from graphnets.matching.logs import Logs
from graphnets.matching.pair_files import load_pairs, users_of_pairs
from graphnets.matching.text_blocks import Progress, find_file
from graphnets.ragged import Ragged


def load_cikm(
    folder: str | Path,
    *,
    pairs: str | None = "train.csv",
    titles: bool = True,
    levels: int = 4,
    progress: Progress | None = None,
) -> tuple[Logs, Tensor]:
    """Logs and known pairs from a folder in the format of the cup, which stream past.

    Nothing of the text is kept but 64-bit hashes of words (`graphnets.matching.hashing`). Random
    files of the cup's size, 339,405 devices with 66.9 million visits to 13.9 million pages with
    106 million words, took 4.8 GB of memory at most.

    Args:
        folder: of these files, each of which may be gzipped and then has .gz behind its name.
            facts.json: on each line a device, newest visit first,
            `{"uid": "...", "facts": [{"fid": 1, "ts": 1461500000}, ...]}`. A `ts` counts seconds,
            milliseconds or microseconds since 1970: each by itself is divided by 1000 until it is
            at most 9,999,999,999 s.
            urls.csv: `fid,hashed/parts/of/path?hashed`, at most one line a fid, in any order.
            titles.csv: `fid,words of the title`, the same.
            A file of pairs: `uid1,uid2`.
        pairs: the name of the file of pairs; None for a folder without, where no user is known.
        titles: whether to read titles.csv.
        levels: how many prefixes of an address to tell apart.
        progress: called now and then with a file's name, the bytes of it read and its size.

    Returns:
        The logs, and the pairs of the file, (k, 2) int64, each once. A device's name is its uid,
        its user its component in the graph of the pairs (-1 without a pair), its kind 0. Pages are
        the fids that are visited, by rising fid. Their words are the parts of the address and of
        the title; `?` divides parts as `/` does, and empty parts do not count.
        A device without facts has an empty log. Visits that are not newest first are sorted; those
        of one moment keep the order that newest first gives them. A fid without an address is a
        page of its own without prefixes. Lines of fids that nobody visits are skipped.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is there both gzipped and not, or is not a whole gzip file; a line is
            malformed; a uid comes twice, or a visited fid has two lines; a number is not a whole
            one, or negative; a pair has an unknown uid or twice the same. Where it is a line's, the
            message has file and line.
    """
    if levels < 1:
        raise ValueError(f"levels: expected 1 or more, got {levels}")
    folder = Path(folder)
    names = ["facts.json", "urls.csv", *(["titles.csv"] if titles else [])]
    paths = [find_file(folder, name) for name in names]
    pair_path = None if pairs is None else find_file(folder, pairs)
    facts = read_facts(paths[0], progress)
    n = len(facts.names)
    known = (
        torch.zeros((0, 2), dtype=torch.int64)
        if pair_path is None
        else load_pairs(pair_path, facts.names)
    )
    fids = distinct(facts.fids)
    number_in_place(facts.fids, fids)
    pages = read_pages(fids, paths[1], paths[2] if titles else None, levels, progress)
    logs = Logs(
        pages,
        Ragged.from_lengths(torch.from_numpy(facts.lengths), torch.from_numpy(facts.fids)),
        torch.from_numpy(facts.time),
        facts.names,
        users_of_pairs(known, n),
        torch.zeros(n, dtype=torch.int64),
        torch.zeros(n, dtype=torch.int64),
        torch.arange(n),
    )
    return logs, known
