"""The losses against dense computations."""

import pytest
import torch
from small_problems import random_interface, random_matrix, small_setup

from ddm.losses import coarse_energy, random_vectors, stochastic_norm


def dense_propagator(setup, interface, P):
    """T as a matrix, from its definition."""
    A = setup.A.to_dense()
    d, n = setup.decomposition, setup.A.shape[0]
    L = torch.zeros(len(d.node), len(d.node), dtype=A.dtype)
    rows, cols = d.block_row[d.interface], d.block_col[d.interface]
    L = L.index_put((torch.as_tensor(rows), torch.as_tensor(cols)), interface)
    M = torch.zeros_like(A)
    for part in range(d.n_subdomains):
        members = torch.as_tensor((d.subdomain == part).nonzero()[0])
        nodes = torch.as_tensor(d.node)[members]
        R = torch.eye(n, dtype=A.dtype)[nodes]
        keep = torch.as_tensor(d.own)[members].to(A.dtype)
        local = R @ A @ R.T + L[members][:, members]
        M = M + (R * keep[:, None]).T @ torch.linalg.inv(local) @ R
    eye = torch.eye(n, dtype=A.dtype)
    Q = P.to_dense()
    coarse = Q @ torch.linalg.inv(Q.T @ A @ Q) @ Q.T
    return (eye - coarse @ A) @ (eye - M @ A)


@pytest.mark.parametrize(("warmup", "sharpness"), [(0, 1.0), (2, 5.0)])
def test_stochastic_norm_is_the_dense_one(warmup, sharpness):
    setup = small_setup(8, 4)
    interface = random_interface(setup).requires_grad_()
    values = setup.P.values.clone().requires_grad_()
    start = random_matrix(setup.A.shape[0], 3)

    method = setup.with_values(interface, values - setup.P.values)
    loss = stochastic_norm(method.propagate, start, steps=4, warmup=warmup, sharpness=sharpness)
    T = dense_propagator(setup, interface, setup.P.with_values(values))
    e = torch.linalg.matrix_power(T, warmup).detach() @ start
    if warmup:
        e = e / e.norm(dim=0)
    z = torch.stack(
        [(torch.linalg.matrix_power(T, k) @ e).norm(dim=0).max() ** (1 / k) for k in range(1, 5)]
    )
    expected = torch.softmax(sharpness * z, 0) @ z
    torch.testing.assert_close(loss, expected)
    for got, want in zip(
        torch.autograd.grad(loss, (interface, values)),
        torch.autograd.grad(expected, (interface, values)),
    ):
        torch.testing.assert_close(got, want)


def test_coarse_energy_is_the_quotient_of_the_traces():
    setup = small_setup(8, 4)
    A, P0 = setup.A, setup.P
    values = (P0.values + 0.1 * torch.rand_like(P0.values)).requires_grad_()
    P = P0.with_values(values)
    energy = coarse_energy(A, P, P0)
    traces = [(Q.to_dense().T @ A.to_dense() @ Q.to_dense()).trace() for Q in (P, P0)]
    torch.testing.assert_close(energy, traces[0] / traces[1])
    assert torch.autograd.gradcheck(lambda v: coarse_energy(A, P0.with_values(v), P0), values)


def test_random_vectors():
    normal = random_vectors(50, 4, generator=torch.Generator().manual_seed(0))
    uniform = random_vectors(50, 4, kind="uniform")
    torch.testing.assert_close(normal.norm(dim=0), torch.ones(4))
    torch.testing.assert_close(uniform.norm(dim=0), torch.ones(4))
    assert (uniform >= 0).all()
    assert (normal < 0).any()
    with pytest.raises(ValueError, match="kind: expected 'normal' or 'uniform', got 'box'"):
        random_vectors(5, 1, kind="box")
