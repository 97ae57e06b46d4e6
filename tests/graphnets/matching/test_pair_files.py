import pytest
import torch

from graphnets.matching.pair_files import load_pairs, save_pairs, users_of_pairs

NAMES = ["a", "b", "c", "d"]
PAIRS = torch.tensor([[0, 3], [1, 2]])


def test_saved_pairs_are_read_back(tmp_path):
    save_pairs(tmp_path / "pairs.csv", PAIRS.flip(0), NAMES)
    assert (tmp_path / "pairs.csv").read_text() == "b,c\na,d\n"
    assert load_pairs(tmp_path / "pairs.csv", NAMES).tolist() == PAIRS.tolist()
    save_pairs(tmp_path / "pairs.csv", PAIRS[:0], NAMES)
    assert load_pairs(tmp_path / "pairs.csv", NAMES).shape == (0, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.csv"]


def test_what_cannot_be_saved_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "pairs.csv"
    save_pairs(path, PAIRS, NAMES)
    with pytest.raises(ValueError, match="names: 'x,y' cannot be written"):
        save_pairs(path, PAIRS, ["x,y", "b", "c", "d"])
    with pytest.raises(ValueError, match="pairs: expected devices from 0 to 2, got 0 to 3"):
        save_pairs(path, PAIRS, NAMES[:3])
    assert load_pairs(path, NAMES).tolist() == PAIRS.tolist()


def test_a_missing_file_of_pairs(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*absent"):
        load_pairs(tmp_path / "absent.csv", NAMES)


@pytest.mark.parametrize(
    ("pairs", "n", "users"),
    [
        ([], 0, []),
        ([], 2, [-1, -1]),
        ([[0, 1]], 2, [0, 0]),
        ([[4, 5], [1, 2], [5, 2], [6, 3]], 8, [-1, 0, 0, 1, 0, 0, 1, -1]),
    ],
)
def test_users_are_components(pairs, n, users):
    found = users_of_pairs(torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2), n)
    assert found.tolist() == users
