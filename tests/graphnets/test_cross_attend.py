import pytest
import torch

from graphnets import cross_attend as module
from graphnets.cross_attend import cross_attend, cross_attend_reference
from graphnets.cross_attention import CrossAttention

PAIRS = torch.tensor([[0, 1], [2, 0], [3, 3], [1, 2], [0, 1]])


def problem(lengths=(3, 1, 17, 40), h=4, d=5, dtype=torch.float64):
    torch.manual_seed(0)
    ptr = torch.tensor([0, *lengths]).cumsum(0)
    n = int(ptr[-1])
    return (
        ptr,
        torch.randn(n, h, dtype=dtype, requires_grad=True),
        torch.randn(n, d, dtype=dtype, requires_grad=True),
    )


@pytest.fixture(params=["pair by pair", "buckets"])
def attend(request):
    if request.param == "buckets":
        return module._by_buckets

    def values(*arguments):
        found = cross_attend(*arguments)
        return found.first.values, found.second.values

    return values


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_values_and_derivatives_are_those_of_the_loop_over_pairs(attend, dtype, tolerance):
    ptr, keys, features = problem(dtype=dtype)
    found = attend(ptr, keys, features, PAIRS)
    expected = cross_attend_reference(ptr, keys, features, PAIRS)
    weights = [torch.randn_like(y) for y in expected]
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    gradients = [
        torch.autograd.grad(result, (keys, features), weights) for result in (found, expected)
    ]
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=10 * tolerance)


def test_nan_of_one_member_stays_in_its_pairs(attend):
    ptr, keys, features = problem()
    with torch.no_grad():
        keys[0], features[0] = torch.nan, torch.nan  # of member 0; padding might point there
    found = attend(ptr, keys, features, PAIRS)
    whole = []
    for side, result in enumerate(found):
        hurt = (PAIRS == 0).any(1).repeat_interleave(ptr.diff()[PAIRS[:, side]])
        assert bool(result[hurt].isnan().any())
        assert bool(result[~hurt].isfinite().all())
        whole.append(result[~hurt].sum())
    for gradient in torch.autograd.grad(whole, (keys, features)):
        assert bool(gradient[int(ptr[3]) :].isfinite().all())  # member 3 never met member 0


def test_nan_of_one_member_is_not_hidden(attend):
    ptr, keys, features = problem()
    with torch.no_grad():
        keys[0] = torch.nan
    first, second = attend(ptr, keys, features, PAIRS[:1])
    expected = cross_attend_reference(ptr, keys, features, PAIRS[:1])
    torch.testing.assert_close((first, second), expected, equal_nan=True)


@pytest.mark.parametrize("at_once", [1, 1500])
def test_buckets_are_split_and_keep_no_scores(monkeypatch, at_once):
    arguments = *problem(lengths=(3, 1, 17, 40)), PAIRS.repeat(4, 1)
    whole = module._by_buckets(*arguments)
    shapes, kept = [], []
    plain = module._padded

    def padded(keys, features, rows, present):
        v, w = rows[0].shape[1], rows[1].shape[1]
        width = keys.shape[1] + features.shape[1]
        shapes.append((len(rows[0]), max(v * w, (v + w) * width)))
        return plain(keys, features, rows, present)

    monkeypatch.setattr(module, "_padded", padded)
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        split = module._by_buckets(*arguments)
    assert sum(count for count, _ in shapes) == len(arguments[-1])
    assert all(count == 1 or count * numbers <= at_once for count, numbers in shapes)
    assert max(count for count, _ in shapes) == (1 if at_once == 1 else 5)
    assert all(x.ndim < 3 for x in kept)
    torch.testing.assert_close(split, whole, rtol=1e-13, atol=1e-13)
    gradients = [
        torch.autograd.grad([y.square().sum() for y in f], arguments[1:3]) for f in (whole, split)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_a_pair_does_not_know_the_others():
    ptr, keys, features = problem()
    alone = cross_attend(ptr, keys, features, PAIRS[1:2])
    together = cross_attend(ptr, keys, features, PAIRS)
    torch.testing.assert_close(together.first[1], alone.first[0], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(together.second[1], alone.second[0], rtol=1e-13, atol=1e-13)


def test_either_order_of_a_pair_gives_the_same():
    ptr, keys, features = problem()
    there, back = (cross_attend(ptr, keys, features, p) for p in (PAIRS, PAIRS.flip(1)))
    torch.testing.assert_close(there.first.values, back.second.values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(there.second.values, back.first.values, rtol=1e-12, atol=1e-12)


def test_no_pairs():
    ptr, keys, features = problem()
    found = cross_attend(ptr, keys, features, PAIRS[:0])
    assert found.first.values.shape == (0, 5)
    assert len(found.second) == 0


def test_wrong_arguments_are_named():
    ptr, keys, features = problem(lengths=(3, 0, 17, 40))
    with pytest.raises(ValueError, match=r"a member of \(0, 1\) has no row"):
        cross_attend(ptr, keys, features, PAIRS)
    with pytest.raises(ValueError, match="members from 0 to 3, got 0 to 4"):
        cross_attend(ptr, keys, features, torch.tensor([[0, 4]]))
    with pytest.raises(ValueError, match=r"pairs: expected int64 of shape \(k, 2\)"):
        cross_attend(ptr, keys, features, torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="one dtype"):
        cross_attend(ptr, keys.float(), features, PAIRS)
    with pytest.raises(ValueError, match="ptr: expected to rise from 0 to 60"):
        cross_attend(ptr[:-1], keys, features, PAIRS)


def test_autocast_changes_scores_by_its_rounding_alone():
    torch.manual_seed(0)
    module, x = CrossAttention(8, 16), torch.randn(9, 8)
    ptr, pairs = torch.tensor([0, 3, 4, 9]), torch.tensor([[0, 1], [2, 0], [1, 2]])
    want = module(ptr, x, pairs)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(ptr, x, pairs)
    torch.testing.assert_close(found.float(), want, atol=5e-2, rtol=0)
    nan = module(ptr, x.index_fill(0, torch.tensor([3]), torch.nan), pairs)
    assert nan.isnan().tolist() == [True, False, True]  # pairs with that graph, and no others
