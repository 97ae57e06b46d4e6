"""Block matrices: batches broadcast, and blocks that do not fit are named. Values: OPERATIONS."""

from typing import Any

import pytest
import torch
from random_matrices import dense, random_csr
from torch.utils.data import DataLoader

from sparsetorch import CSRTensor, Pattern, block_diag, bmat, hstack, kron, stack, vstack


def test_batches_broadcast():
    A, B = random_csr(3, 4, batch=(2,), seed=1), random_csr(2, 4, seed=2)
    stacked = vstack([A, B])
    assert stacked.shape == (2, 5, 4)
    torch.testing.assert_close(stacked.to_dense()[:, :3], dense(A))
    torch.testing.assert_close(stacked.to_dense()[1, 3:], dense(B))


def test_many_blocks_on_a_diagonal_solve_as_one():
    blocks = [random_csr(n, n + 1, 0.5, seed=n) for n in (1, 2, 3, 40)]
    whole = block_diag(blocks)
    assert whole.nnz == sum(b.nnz for b in blocks)
    torch.testing.assert_close(whole.to_dense(), torch.block_diag(*map(dense, blocks)))


def test_one_block_with_int64_indices_makes_them_all_long():
    A, B = random_csr(3, 3), random_csr(3, 3, index_dtype=torch.int64)
    assert hstack([A, A]).pattern.dtype == torch.int32
    assert hstack([A, B]).pattern.dtype == torch.int64
    assert kron(A, B).pattern.dtype == torch.int64


def test_torch_cat():
    A, B = random_csr(3, 4, seed=1), random_csr(3, 4, seed=2)
    for dim in (0, 1, -1, -2):
        joined = torch.cat([A, B], dim)  # pyright: ignore
        torch.testing.assert_close(joined.to_dense(), torch.cat([dense(A), dense(B)], dim))
    with pytest.raises(ValueError, match="dim: expected 0 or 1"):
        torch.cat([A, B], 2)  # pyright: ignore


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_loader_makes_batches(workers):
    A = random_csr(3, 4, seed=1).detach()
    own = Pattern(A.pattern.crow.long(), A.pattern.col.long(), (3, 4), torch.int64)  # equal to A's
    matrices = [A, 2 * A, CSRTensor(own, 3 * A.values), 4 * A]
    data: Any = [{"matrix": M, "vector": M @ torch.ones(4).double()} for M in matrices]
    batches = list(DataLoader(data, batch_size=2, num_workers=workers))
    assert [b["matrix"].shape for b in batches] == [(2, 3, 4)] * 2
    for k, M in enumerate(matrices):
        batch, place = batches[k // 2], k % 2
        torch.testing.assert_close(batch["matrix"].to_dense()[place], dense(M))
    product = batches[1]["matrix"].matvec(torch.ones(4).double())
    torch.testing.assert_close(product, batches[1]["vector"])
    assert workers or batches[0]["matrix"].pattern is A.pattern
    assert torch.utils.data.default_collate([(A, 1), (A, 2)])[0].shape == (2, 3, 4)  # type: ignore


def test_stacked_batches_are_batches_of_batches():
    A = random_csr(3, 4, batch=(2,), seed=1)
    twice = stack(M for M in (A, A * 2.0))
    assert twice.shape == (2, 2, 3, 4)
    torch.testing.assert_close(twice.to_dense(), torch.stack([dense(A), 2 * dense(A)]))


A, B = random_csr(3, 4), random_csr(2, 4)
BAD = [
    (lambda: hstack([A, B]), ValueError, r"block \(0, 1\): expected 3 rows"),
    (lambda: vstack([A, B.T]), ValueError, r"block \(1, 0\): expected 4 columns"),
    (lambda: vstack([]), ValueError, "blocks: expected rows of one length"),
    (lambda: block_diag([]), ValueError, "blocks: expected at least one matrix"),
    (lambda: bmat([[A, None], [B]]), ValueError, "blocks: expected rows of one length"),
    (lambda: bmat([[A, None], [B, None]]), ValueError, "column 1 has only None"),
    (lambda: vstack([A, B.to(torch.float32)]), TypeError, "is torch.float32 and the first"),
    (lambda: vstack([A, dense(B)]), TypeError, "expected a CSRTensor, got Tensor"),  # type: ignore
    (lambda: stack([]), ValueError, "blocks: expected at least one matrix"),
    (lambda: stack([A, B]), ValueError, r"matrix 1: expected the shape \(3, 4\) and the"),
    (
        lambda: torch.utils.data.default_collate([A, random_csr(3, 4, seed=9)]),
        ValueError,
        r"matrix 1: .*entries that differ; put matrices on one pattern .*collate_fn=list",
    ),
    (lambda: stack([A, A.to(torch.float32)]), TypeError, "is torch.float32 and the first"),
    (lambda: stack([A, dense(A)]), TypeError, "expected a CSRTensor, got Tensor"),  # type: ignore
    (lambda: kron(A, dense(B)), TypeError, "expected a CSRTensor, got Tensor"),  # type: ignore
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_blocks_that_do_not_fit(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("join", [vstack, hstack, block_diag])
def test_blocks_may_come_one_by_one(join):
    blocks = [random_csr(3, 3, seed=i).detach() for i in range(3)]
    assert torch.equal(join(b for b in blocks).to_dense(), join(blocks).to_dense())
