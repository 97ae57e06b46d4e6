"""Results that belong to two objects, kept on one of them while the other lives."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Generic, TypeVar

Result = TypeVar("Result")


class PerPartner(Generic[Result]):
    """Results kept per partner, compared by identity, and forgotten when the partner is.

    A plain dictionary keyed by id, because torch.compile can read one and not a WeakKeyDictionary.
    A result must not refer to its partner: that would keep the partner alive for ever.
    """

    def __init__(self) -> None:
        self._results: dict[int, Result] = {}
        # Only to hear of a partner's end; kept here, so that nothing of it outlives this object.
        self._partners: dict[int, weakref.ref] = {}

    def get(self, partner: object) -> Result | None:
        """The result kept for this partner, if any."""
        return self._results.get(id(partner))

    def put(self, partner: object, result: Result) -> None:
        """Keep a result for this partner."""
        key = id(partner)
        self._results[key] = result
        self._partners[key] = weakref.ref(partner, partial(_forget, weakref.ref(self), key))


def _forget(kept: weakref.ref[PerPartner], key: int, _: weakref.ref) -> None:
    alive = kept()
    if alive is not None:
        alive._results.pop(key, None)
        alive._partners.pop(key, None)
