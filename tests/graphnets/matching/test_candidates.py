import math

import pytest
import torch

from graphnets.matching.candidates import Candidates
from graphnets.matching.neighbours import Neighbours, nearest
from graphnets.matching.pairs import positive_pairs

NAN = float("nan")
NEAR = Neighbours(  # 0 finds 2 and 1; 1 finds 0; 2 finds 1; 3 finds nobody
    torch.tensor([[2, 1], [0, -1], [1, -1], [-1, -1]]),
    torch.tensor([[0.9, 0.5], [0.5, NAN], [0.4, NAN], [NAN, NAN]]),
)
FAR = Neighbours(
    torch.tensor([[3, -1], [-1, -1], [-1, -1], [0, 2]]),
    torch.tensor([[0.3, NAN], [NAN, NAN], [NAN, NAN], [0.3, 0.1]]),
)
FOUND = Candidates.from_neighbours({"near": NEAR, "far": FAR})


def test_union_ranks_and_scores():
    assert FOUND.sources == ("near", "far")
    assert FOUND.pairs.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [2, 3]]
    assert FOUND.rank[:, 0].tolist() == [[1, 0], [0, -1], [-1, -1], [-1, 0], [-1, -1]]
    assert FOUND.rank[:, 1].tolist() == [[-1, -1], [-1, -1], [0, 0], [-1, -1], [-1, 1]]
    expected = torch.tensor([[0.5, NAN], [0.9, NAN], [NAN, 0.3], [0.4, NAN], [NAN, 0.1]])
    assert torch.equal(FOUND.score.nan_to_num(-1), expected.nan_to_num(-1))


def test_nearest_and_select():
    first = FOUND.select(FOUND.nearest(1))
    assert first.pairs.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2]]
    assert FOUND.select(FOUND.nearest(1, "far")).pairs.tolist() == [[0, 3]]
    assert not FOUND.nearest(0).any()
    with pytest.raises(ValueError, match=r"source: expected one of \('near', 'far'\), got 'new'"):
        FOUND.nearest(1, "new")


def test_recall_by_kind_of_pair():
    positives = torch.tensor([[0, 1], [0, 3], [1, 3]])
    kinds = torch.tensor([0, 0, 0, 1])
    recall = FOUND.recall(positives, kinds)
    assert recall == {"all": pytest.approx(2 / 3), "same_kind": 1.0, "cross_kind": 0.5}
    nothing = FOUND.recall(positives[:0], kinds)
    assert all(math.isnan(share) for share in nothing.values())


def test_table_counts_what_each_source_finds():
    positives = torch.tensor([[0, 1], [0, 3], [1, 3]])
    table = FOUND.table(positives, (0, 1, 2))
    found = {(row["source"], row["k"]): row for row in table}
    assert len(table) == len(found) == 9
    assert found["near", 2]["pairs"] == 3
    assert found["near", 2]["recall"] == pytest.approx(1 / 3)
    assert found["far", 1]["precision"] == 1
    assert found["union", 2]["recall"] == pytest.approx(2 / 3)
    assert math.isnan(float(found["union", 0]["precision"]))


def test_all_neighbours_are_all_pairs():
    users = torch.arange(7) // 3
    kinds = torch.arange(7) % 2
    vectors = torch.rand(7, 4, generator=torch.Generator().manual_seed(0))
    positives = positive_pairs(users)
    whole = Candidates.from_neighbours({"a": nearest(vectors, 6), "b": nearest(vectors, 1)})
    assert len(whole) == 21
    assert whole.recall(positives, kinds)["all"] == 1
    cross = Candidates.from_neighbours({"a": nearest(vectors, 6, kinds)})
    assert bool((kinds[cross.pairs[:, 0]] != kinds[cross.pairs[:, 1]]).all())
    recall = cross.recall(positives, kinds)
    assert (recall["same_kind"], recall["cross_kind"]) == (0, 1)


@pytest.mark.parametrize("n", [0, 1])
def test_no_pairs(n):
    found = Candidates.from_neighbours({"a": nearest(torch.zeros(n, 3), 2)})
    assert len(found) == 0
    assert found.table(found.pairs, (1,))[0]["pairs"] == 0


def test_wrong_sources_are_refused():
    short = Neighbours(NEAR.index[:2], NEAR.score[:2])
    with pytest.raises(ValueError, match=r"found: .*\{'a': 4, 'b': 2\}"):
        Candidates.from_neighbours({"a": NEAR, "b": short})
    with pytest.raises(ValueError, match="found"):
        Candidates.from_neighbours({})
    with pytest.raises(ValueError, match="smaller number first"):
        FOUND.contain(torch.tensor([[1, 0]]))
