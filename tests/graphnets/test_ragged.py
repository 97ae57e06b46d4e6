import pytest
import torch

from graphnets.ragged import Ragged, blocks, concatenate, segment_max

ROWS = Ragged(torch.tensor([0, 2, 2, 5]), torch.tensor([10, 11, 20, 21, 22]))


def test_rows_lengths_and_owners():
    assert [ROWS[i].tolist() for i in range(len(ROWS))] == [[10, 11], [], [20, 21, 22]]
    assert ROWS.lengths.tolist() == [2, 0, 3]
    assert ROWS.row.tolist() == [0, 0, 2, 2, 2]


def test_rows_count_from_the_end_too_and_others_are_refused():
    assert [ROWS[i].tolist() for i in (-1, -2, -3)] == [[20, 21, 22], [], [10, 11]]
    assert [row.tolist() for row in ROWS] == [[10, 11], [], [20, 21, 22]]
    for i in (3, -4):
        with pytest.raises(IndexError, match=f"i: expected a row from -3 to 2 of 3 rows, got {i}"):
            ROWS[i]


def test_select_says_where_values_were():
    chosen, positions = ROWS.select(torch.tensor([2, 1, 0, 2]))
    assert [chosen[i].tolist() for i in range(4)] == [[20, 21, 22], [], [10, 11], [20, 21, 22]]
    assert ROWS.values[positions].tolist() == chosen.values.tolist()


def test_from_rows_keeps_empty_rows():
    found = Ragged.from_rows(ROWS.row, ROWS.values, 3)
    assert found.ptr.tolist() == ROWS.ptr.tolist()
    assert len(Ragged.from_rows(torch.tensor([], dtype=torch.int64), torch.tensor([]), 4)) == 4


@pytest.mark.parametrize(
    ("ptr", "message"),
    [
        (torch.tensor([0, 2, 1, 5]), "rise"),
        (torch.tensor([0, 4]), "rise"),
        (torch.tensor([1, 5]), "rise"),
        (torch.tensor([0.0, 5.0]), "int64"),
    ],
)
def test_wrong_pointers_are_refused(ptr, message):
    with pytest.raises(ValueError, match=f"ptr: .*{message}"):
        Ragged(ptr, ROWS.values)


def test_rows_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="rows: expected 0 to 2, got 0 to 3"):
        ROWS.select(torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="row: expected 0 to 1"):
        Ragged.from_rows(torch.tensor([0, 2]), torch.zeros(2), 2)
    with pytest.raises(ValueError, match="sort first"):
        Ragged.from_rows(torch.tensor([1, 0]), torch.zeros(2), 2)


def test_blocks_hold_whole_rows():
    lengths = torch.tensor([3, 1, 0, 9, 2, 2])
    found = [block.tolist() for block in blocks(lengths, 4)]
    assert found == [[0, 1, 2], [3], [4, 5]]
    assert list(blocks(lengths[:0], 4)) == []


def test_rows_are_put_together_and_their_largest_found():
    twice = concatenate([ROWS, ROWS])
    assert [twice[i].tolist() for i in range(6)] == 2 * [ROWS[i].tolist() for i in range(3)]
    with pytest.raises(ValueError, match="blocks: expected at least one"):
        concatenate([])
    values = torch.tensor([1.0, 3.0, 2.0, 5.0, 4.0], requires_grad=True)
    largest = segment_max(ROWS.with_values(values))
    assert largest.tolist() == [3, -torch.inf, 5]
    largest[[0, 2]].sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 0, 1, 0]
