"""Inverses of batches of dense matrices, also where PyTorch's batched LU fails."""

import pytest
import torch

from sparsetorch.dense_inverse import SAFE_SIZE, inverses


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("m", [0, 1, SAFE_SIZE, SAFE_SIZE + 1, 213])
@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_matrix_is_inverted_whatever_the_threads(threads, m, count, dtype):
    gen = torch.Generator().manual_seed(m)
    blocks = torch.randn(count, m, m, generator=gen, dtype=dtype) / max(m, 1) ** 0.5
    blocks += 3 * torch.eye(m, dtype=dtype)
    inverse, info = inverses(blocks)
    assert info.shape == (count,)
    assert not info.any()
    expected = torch.eye(m, dtype=dtype).expand(count, m, m)
    torch.testing.assert_close(inverse @ blocks, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("m", [5, SAFE_SIZE + 1])
def test_singular_ones_are_named_and_the_rest_has_gradients(m):
    blocks = torch.eye(m, dtype=torch.float64).repeat(3, 1, 1).requires_grad_()
    with torch.no_grad():
        blocks[1, 2, 2] = 0
    inverse, info = inverses(blocks)
    assert info.tolist() == [0, 3, 0]
    inverse[0].sum().backward()
    # d sum(B^-1) = -sum(B^-1 dB B^-1), all ones at B = I
    torch.testing.assert_close(blocks.grad[0], -torch.ones(m, m, dtype=torch.float64))
