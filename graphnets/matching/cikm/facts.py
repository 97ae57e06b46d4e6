"""facts.json of CIKM Cup 2016: the visits of each device."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphnets.matching.text_blocks import GrowingArray, Progress, line_error, lines

LATEST = 9_999_999_999  # s; a larger number is in a smaller unit
CHUNK = 1 << 20  # visits that are converted and sorted at a time


@dataclass(frozen=True, eq=False)
class Facts:
    """Visits, device after device, each from the oldest to the newest.

    Attributes:
        names: the uid of each device.
        lengths: (n,) int64, the number of its visits.
        fids: (n_visits,) int64.
        time: (n_visits,) int64, ms.
    """

    names: list[str]
    lengths: np.ndarray
    fids: np.ndarray
    time: np.ndarray


def read_facts(path: Path, progress: Progress | None = None) -> Facts:
    """The visits of a facts.json, in which line d + 1 is device d.

    Raises:
        ValueError: a line is not as `load_cikm` says, or a device comes twice.
    """
    lines_of: dict[str, int] = {}
    chunk, fids, time = _Chunk(path), GrowingArray(np.int64), GrowingArray(np.int64)
    lengths = array("q")
    for number, text in enumerate(lines(path, progress), 1):
        uid, facts = _parsed(path, number, text)
        if uid in lines_of:
            raise line_error(
                path, number, f"the device {uid!r} of line {lines_of[uid]} comes again"
            )
        lines_of[uid] = number
        chunk.add(number, facts)
        lengths.append(len(facts))
        if len(chunk.fids) >= CHUNK:
            chunk.flush(fids, time)
    chunk.flush(fids, time)
    return Facts(list(lines_of), np.array(lengths, np.int64), fids.finish(), time.finish())


def milliseconds(stamps: np.ndarray) -> np.ndarray:
    """Times in ms, (n,) int64, of numbers that are each in s, ms, us or ns, (n,) int64.

    What is at most 9,999,999,999 is in seconds, what is at most 1000 times as much in
    milliseconds, and so on. Parts of a millisecond are dropped.
    """
    beyond = (LATEST + 1) * 1000
    finer = np.where(stamps < beyond * 1000, stamps // 1000, stamps // 1_000_000)
    return np.where(stamps <= LATEST, stamps * 1000, np.where(stamps < beyond, stamps, finer))


def _parsed(path: Path, number: int, text: bytes) -> tuple[str, list[dict[str, int]]]:
    try:
        record = json.loads(text)
        uid, facts = record["uid"], record["facts"]
    except (ValueError, KeyError, TypeError) as error:
        raise line_error(
            path, number, f'expected {{"uid": ..., "facts": [...]}}, got {text[:60]!r} ({error!r})'
        ) from None
    if not isinstance(uid, str) or not isinstance(facts, list):
        raise line_error(path, number, f"expected uid a string and facts a list, got {text[:60]!r}")
    return uid, facts


class _Chunk:
    """Some lines of facts, as they are in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines, self.lengths = array("q"), array("q")
        self.fids, self.stamps = array("q"), array("q")

    def add(self, number: int, facts: list[dict[str, int]]) -> None:
        """Add a line."""
        try:
            self.fids.extend([fact["fid"] for fact in facts])
            self.stamps.extend([fact["ts"] for fact in facts])
        except (KeyError, TypeError, OverflowError) as error:
            raise line_error(
                self.path,
                number,
                f'expected facts {{"fid": ..., "ts": ...}} of whole 64-bit numbers ({error!r})',
            ) from None
        self.lines.append(number)
        self.lengths.append(len(facts))

    def flush(self, fids: GrowingArray, time: GrowingArray) -> None:
        """Convert and sort the lines, add them to `fids` and `time`, and begin anew."""
        found = np.array(self.fids, np.int64)
        stamps = np.array(self.stamps, np.int64)
        row = np.repeat(np.arange(len(self.lines)), self.lengths)
        for name, values in (("fid", found), ("ts", stamps)):
            if len(values) and values.min() < 0:
                at = int(np.argmax(values < 0))
                raise line_error(
                    self.path,
                    self.lines[row[at]],
                    f"{name}: expected 0 or more, got {values[at]}",
                )
        moment = milliseconds(stamps)
        # the file is newest first: backwards, so that visits of one moment keep their order
        order = len(row) - 1 - np.lexsort((moment[::-1], row[::-1]))
        fids.extend(found[order])
        time.extend(moment[order])
        self.__init__(self.path)
