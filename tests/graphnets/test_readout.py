"""Readout against loops and PyG's, with derivatives."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from graphnets.readout import membership, readout

PTR = torch.tensor([0, 3, 3, 4, 9])  # the second graph is empty
F64 = torch.float64


def loop(x: torch.Tensor, reduce: str) -> torch.Tensor:
    rows = []
    for start, end in pairwise(PTR.tolist()):
        part = x[start:end]
        empty = x.new_zeros(x.shape[1])
        whole = {"sum": part.sum, "mean": part.mean, "max": part.amax, "min": part.amin}[reduce]
        rows.append(whole(0) if len(part) else empty)
    return torch.stack(rows)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
def test_each_graph_is_reduced(reduce):
    x = torch.randn(9, 3, dtype=F64, requires_grad=True)
    graphs = membership(PTR)
    torch.testing.assert_close(readout(graphs, x, reduce), loop(x, reduce))
    torch.testing.assert_close(
        readout(membership(PTR.int()), x.float(), reduce), loop(x.float(), reduce)
    )
    assert torch.autograd.gradcheck(lambda x: readout(graphs, x, reduce), x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: readout(graphs, x, reduce).square(), x)
    pair = torch.stack([x, -x])
    torch.testing.assert_close(readout(graphs, pair, reduce)[1], loop(-x, reduce))


def test_a_graph_alone_is_as_in_a_batch():
    x = torch.randn(9, 5)
    for reduce in ("sum", "mean", "max"):
        together = readout(membership(PTR), x, reduce)
        for i, (start, end) in enumerate(pairwise(PTR.tolist())):
            alone = readout(membership(torch.tensor([0, end - start])), x[start:end], reduce)
            assert torch.equal(alone[0], together[i])


def test_no_graphs_and_no_nodes():
    assert readout(membership(torch.tensor([0])), torch.zeros(0, 2)).shape == (0, 2)
    assert torch.equal(
        readout(membership(torch.tensor([0, 0])), torch.zeros(0, 2)), torch.zeros(1, 2)
    )


def test_it_is_pyg_s():
    pyg = pytest.importorskip("torch_geometric.nn", reason="needs sparsetorch[graph]")
    x, batch = torch.randn(9, 3, dtype=F64), torch.repeat_interleave(PTR.diff())
    pairs: list[tuple[Any, Any]] = [
        ("sum", pyg.global_add_pool),
        ("mean", pyg.global_mean_pool),
        ("max", pyg.global_max_pool),
    ]
    for reduce, theirs in pairs:
        torch.testing.assert_close(readout(membership(PTR), x, reduce), theirs(x, batch, 4))


def test_bad_input():
    with pytest.raises(ValueError, match=r"ptr: expected shape \(graphs \+ 1,\), got \(0,\)"):
        membership(torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="crow"):
        membership(torch.tensor([0, 3, 2]))
    with pytest.raises(ValueError, match="reduce: expected sum, mean, max or min, got 'median'"):
        readout(membership(PTR), torch.zeros(9, 1), "median")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="X: expected size 9"):
        readout(membership(PTR), torch.zeros(8, 1))
