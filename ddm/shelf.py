"""Things made once and used by several methods, with what each method would have spent on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class _Frame:
    """Something being made: the shelved things that it uses, and the seconds spent on new ones."""

    keys: set[Hashable] = field(default_factory=set)
    inner: float = 0.0


class Shelf:
    """Keeps what `keep` makes; `timed` charges in full for what was lying there already.

    So that a method's set-up time is that of the method alone, whichever came before it.

    Args:
        limit: number of things that are kept, those used last.
    """

    def __init__(self, limit: int = 64) -> None:
        self.limit = limit
        self._values: dict[Hashable, Any] = {}  # the one used last at the end
        self._seconds: dict[Hashable, tuple[float, frozenset[Hashable]]] = {}
        self._frames = [_Frame()]

    def keep(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value under a key, made by `make` if there is none."""
        if key in self._values:
            value = self._values.pop(key)
        else:
            value, own, keys, passed = self._made(make)
            self._frames[-1].inner += passed
            self._seconds[key] = (own, keys | {key})
        self._values[key] = value
        while len(self._values) > self.limit:
            del self._values[next(iter(self._values))]
        self._frames[-1].keys |= self._seconds[key][1]
        return value

    def timed(self, make: Callable[[], T]) -> tuple[T, float]:
        """What `make` returns, and the seconds that it takes where nothing is on the shelf."""
        value, own, keys, _ = self._made(make)
        return value, own + sum(self._seconds[key][0] for key in keys)

    def _made(self, make: Callable[[], T]) -> tuple[T, float, frozenset[Hashable], float]:
        frame = _Frame()
        self._frames.append(frame)
        start = time.perf_counter()
        try:
            value = make()
        finally:
            self._frames.pop()
        passed = time.perf_counter() - start
        return value, passed - frame.inner, frozenset(frame.keys), passed
