"""What is made once and charged to everyone who uses it."""

import time

import pytest

from ddm.shelf import Shelf


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `spend` moves."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def spend(seconds, value=None):
        now[0] += seconds
        return value

    return spend


def chain(shelf, clock):
    """Makes "b" (3 s), which needs "a" (2 s), and then takes 1 s more."""
    b = shelf.keep("b", lambda: clock(3, shelf.keep("a", lambda: clock(2, "A")) + "B"))
    return clock(1, b + "C")


def test_a_second_user_is_charged_what_the_first_one_spent(clock):
    shelf = Shelf()
    first = shelf.timed(lambda: chain(shelf, clock))
    second = shelf.timed(lambda: chain(shelf, clock))
    assert first == second == ("ABC", 6.0)
    assert time.perf_counter() == 7.0  # the second spent one second


def test_nothing_is_charged_twice(clock):
    shelf = Shelf()

    def both():
        shelf.keep("a", lambda: clock(2, "A"))
        return chain(shelf, clock)

    assert shelf.timed(both)[1] == 6.0
    assert shelf.timed(both)[1] == 6.0


def test_the_last_used_things_are_kept(clock):
    shelf = Shelf(limit=2)
    for key in ("a", "b", "a", "c"):
        shelf.keep(key, lambda: clock(1, object()))
    spent = time.perf_counter()
    shelf.keep("a", lambda: clock(1))
    assert time.perf_counter() == spent
    shelf.keep("b", lambda: clock(1))
    assert time.perf_counter() == spent + 1


def test_what_fails_is_made_again(clock):
    shelf = Shelf()

    def broken():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        shelf.timed(lambda: shelf.keep("a", broken))
    assert shelf.timed(lambda: shelf.keep("a", lambda: clock(2, "A"))) == ("A", 2.0)
