import pickle

import numpy as np
import pytest
import torch

from graphnets.assignment import by_gap, by_labels, every_k
from graphnets.ragged import Ragged

SEQUENCES = Ragged(torch.tensor([0, 5, 5, 7]), torch.arange(7))
TIME = torch.tensor([0, 1, 10, 11, 30, 2, 3])


def test_every_k():
    chunk, count = every_k(2)(SEQUENCES, TIME)
    assert chunk.tolist() == [0, 0, 1, 1, 2, 3, 3]
    assert count == 4


def test_sessions_end_with_a_pause_and_with_a_sequence():
    chunk, count = by_gap(5)(SEQUENCES, TIME)
    assert chunk.tolist() == [0, 0, 1, 1, 2, 3, 3]
    assert count == 4
    chunk, count = by_gap(9)(SEQUENCES, TIME)  # a pause of 9 is not longer
    assert chunk.tolist() == [0, 0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize("assign", [every_k(2), by_gap(5)])
def test_an_assignment_can_be_pickled(assign):
    again = pickle.loads(pickle.dumps(assign))
    assert again == assign
    assert torch.equal(again(SEQUENCES, TIME)[0], assign(SEQUENCES, TIME)[0])


@pytest.mark.parametrize("k", [2.0, np.int64(2)])
def test_whole_numbers_of_any_type_make_whole_chunks(k):
    chunk, count = every_k(k)(SEQUENCES, TIME)
    assert chunk.dtype == torch.int64
    assert (chunk.tolist(), count) == ([0, 0, 1, 1, 2, 3, 3], 4)


def test_no_elements():
    none = Ragged(torch.tensor([0, 0]), torch.arange(0))
    for assign in (every_k(3), by_gap(1)):
        chunk, count = assign(none, torch.arange(0))
        assert (len(chunk), count) == (0, 0)


def test_labels_tie_each_node_to_one_coarse_node():
    pattern = by_labels(torch.tensor([1, 0, 1]))
    assert pattern.shape == (3, 2)
    assert pattern.col.tolist() == [1, 0, 1]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="k: expected at least 1"):
        every_k(0)
    with pytest.raises(ValueError, match=r"k: .*got 2\.5"):
        every_k(2.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="gap: expected at least 0"):
        by_gap(-1)
    with pytest.raises(ValueError, match=r"gap: .*got nan"):
        by_gap(float("nan"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no node belongs to coarse node 1"):
        by_labels(torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="labels: expected int64"):
        by_labels(torch.tensor([0, -2]))
