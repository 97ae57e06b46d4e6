import pytest
import torch

from graphnets.ragged import Ragged

ROWS = Ragged(torch.tensor([0, 2, 2, 5]), torch.tensor([10, 11, 20, 21, 22]))


def test_rows_lengths_and_owners():
    assert [ROWS[i].tolist() for i in range(len(ROWS))] == [[10, 11], [], [20, 21, 22]]
    assert ROWS.lengths.tolist() == [2, 0, 3]
    assert ROWS.row.tolist() == [0, 0, 2, 2, 2]


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
