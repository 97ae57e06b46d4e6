"""Web tracking data with readable domains, such as the sample of the R package webtrackR."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from graphnets.matching.logs import Logs, Pages
from graphnets.matching.text_blocks import line_error, lines
from graphnets.ragged import Ragged

COLUMNS = ("panelist_id", "device", "timestamp", "url")
KINDS = ("desktop", "mobile")
LEVELS = 3


def load_webtrack(path: str | Path) -> Logs:
    """Logs from a table of visits, whose pages have names for people to read.

    Args:
        path: of a .csv, gzipped if its name ends in .gz, with the columns `panelist_id`, `device`
            ("desktop" or "mobile"), `timestamp` (s since 1970, UTC) and `url` in any order, others
            not heeded, and visits in any order.

    Returns:
        Logs in which a device's name is "panelist/desktop" or "panelist/mobile". A page's name is
        its address without the scheme, "www." and a last "/". Its levels are the host, with the
        first part of the path, and with the second; its words the parts of host, path and query.
        An address without a host, such as of a file, has its scheme instead.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or a line is malformed; the message has file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: no file {path}; expected a table of visits")
    pages: dict[str, int] = {}
    page_of: dict[str, int] = {}  # by the address as it is in the file
    device_of: dict[tuple[str, int], int] = {}
    device, page, time = [], [], []
    for line, panelist, kind, moment, url in _rows(path):
        device.append(device_of.setdefault((panelist, kind), len(device_of)))
        time.append(moment)
        if url not in page_of:
            name = _name(url)
            if name is None:
                raise line_error(path, line, f"url: expected scheme://host/path, got {url!r}")
            page_of[url] = pages.setdefault(name, len(pages))
        page.append(page_of[url])
    devices = sorted(device_of)
    people = {name: i for i, name in enumerate(sorted({name for name, _ in devices}))}
    rank = torch.tensor([device_of[key] for key in devices], dtype=torch.int64).argsort()
    return Logs.from_visits(
        _described(list(pages)),
        rank[torch.tensor(device, dtype=torch.int64)],
        torch.tensor(page, dtype=torch.int64),
        torch.tensor(time, dtype=torch.int64),
        [f"{name}/{KINDS[kind]}" for name, kind in devices],
        torch.tensor([people[name] for name, _ in devices], dtype=torch.int64),
        torch.tensor([kind for _, kind in devices], dtype=torch.int64),
    )


def _rows(path: Path) -> Iterator[tuple[int, str, int, int, str]]:
    """Line, panelist, kind, time in ms and address of each visit."""
    text = (line.decode(errors="replace") + "\n" for line in lines(path))
    reader = csv.reader(text, strict=True)  # else an open quote swallows the lines behind it
    header = [name.removeprefix("\ufeff") for name in next(reader, [])]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise line_error(path, 1, f"no column {missing[0]!r}; found {header}")
    places = [header.index(name) for name in COLUMNS]
    for row in _whole(path, reader):
        line = reader.line_num
        if len(row) != len(header):
            raise line_error(path, line, f"expected {len(header)} fields, got {len(row)}")
        panelist, kind, moment, url = (row[place] for place in places)
        if not panelist.strip():
            raise line_error(path, line, "panelist_id: expected whose visit it is, got nothing")
        if kind not in KINDS:
            raise line_error(path, line, f"device: expected one of {KINDS}, got {kind!r}")
        yield line, panelist, KINDS.index(kind), _milliseconds(path, line, moment), url


def _whole(path: Path, reader: Any) -> Iterator[list[str]]:
    """The rows of a csv.reader, and its error with file and line, such as for an open quote."""
    try:
        yield from reader
    except csv.Error as error:
        raise line_error(path, reader.line_num, str(error)) from None


def _milliseconds(path: Path, line: int, moment: str) -> int:
    try:
        seconds = float(moment)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1e10:
        raise line_error(path, line, f"timestamp: expected seconds since 1970, got {moment!r}")
    return round(seconds * 1000)


def _name(url: str) -> str | None:
    """An address as people read it; None where it is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    host = parts.netloc.lower().removeprefix("www.") or parts.scheme
    if not host or "://" not in url:
        return None
    query = f"?{parts.query}" if parts.query else ""
    return f"{host}{parts.path.rstrip('/')}{query}"


def _described(names: list[str]) -> Pages:
    prefixes: dict[str, int] = {}
    words: dict[str, int] = {}
    levels = torch.full((len(names), LEVELS), -1)
    found: list[list[int]] = []
    for page, name in enumerate(names):
        host, *path = [part for part in re.split(r"[/?]", name) if part]
        for level, _ in zip(range(LEVELS), [host, *path]):
            prefix = "/".join([host, *path[:level]])
            levels[page, level] = prefixes.setdefault(prefix, len(prefixes))
        parts = [*host.split("."), *path]
        found.append([words.setdefault(part, len(words)) for part in parts])
    lengths = torch.tensor([len(ids) for ids in found], dtype=torch.int64)
    values = torch.tensor([i for ids in found for i in ids], dtype=torch.int64)
    return Pages(levels, Ragged.from_lengths(lengths, values), names)
