import numpy as np
import pytest

from graphnets.matching import hashing
from graphnets.matching.hashing import distinct, hashed_runs, mixed, number_in_place


def hashes_of(text):
    data = np.frombuffer(text, np.uint8)
    return hashed_runs(data, data == ord("/"))


def test_runs_have_equal_hashes_exactly_where_they_are_equal():
    rng = np.random.default_rng(0)
    words = [bytes(rng.choice([97, 98], size=n)) for n in rng.integers(0, 7, 500)]
    words += [b"x" * 600, b"x" * 601, b"x" * 600]
    ends, lengths, hashes = hashes_of(b"/".join(words) + b"/")
    assert lengths.tolist() == [len(word) for word in words]
    assert ends.tolist() == (np.cumsum(lengths) + np.arange(len(words))).tolist()
    pairs = {(word, value) for word, value in zip(words, hashes.tolist())}
    assert len(pairs) == len(set(words)) == len(set(hashes.tolist()))


def test_a_hash_does_not_depend_on_what_stands_beside():
    alone = hashes_of(b"word/")[2][0]
    assert len(hashes_of(b"")[2]) == 0
    assert alone == hashes_of(b"//a/word/much-longer-than-that/")[2][3]


def test_mixing_is_that_of_splitmix64():
    # the first numbers of SplitMix64 seeded with 1234567 are published with it
    state = np.array([1234567], np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.arange(
        3, dtype=np.uint64
    )
    assert mixed(state).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@pytest.mark.parametrize("n", [0, 1, 7, 1000])
def test_numbering_in_chunks_is_that_of_unique(n, monkeypatch):
    monkeypatch.setattr(hashing, "CHUNK", 7)
    values = np.random.default_rng(n).integers(-300, 300, n) << 50
    expected, inverse = np.unique(values, return_inverse=True)
    vocabulary = distinct(values)
    number_in_place(values, vocabulary)
    assert vocabulary.tolist() == expected.tolist()
    assert values.tolist() == inverse.tolist()
