"""The published parametrisation against dense formulas, its features, losses and grids."""

import math
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from dense_schwarz import propagator, restrictions
from small_problems import delaunay, laplacian, random_matrix

from ddm.exterior import interface_room
from ddm.local import SingularError
from ddm.losses import coarse_energy
from ddm.partition import decompose, partition
from ddm.published import Grid, GridDataset, GridRecipe, PublishedSetup, published_graph
from ddm.published.counts import fgmres_iterations, stationary_iterations
from ddm.published.grids import dirichlet
from ddm.published.losses import LOSSES, worst_error
from ddm.published.weights import load_network, make_network, save_network
from ddm.rates import iterations_to_reduce
from graphnets.published import graph_unet, mggnn
from sparsetorch import CSRTensor

TINY = GridRecipe(count=2, nodes=(80, 100), subdomain=(10, 12))


def small(n_side: int = 8, n_parts: int = 5, seed: int = 0) -> PublishedSetup:
    """A small irregular mesh with its boundary nodes, without gmsh."""
    A, seen = dirichlet(delaunay(n_side, seed))
    return PublishedSetup.of(Grid(A, partition(A, n_parts, method="lloyd", seed=seed), seen))


def rings(setup: PublishedSetup) -> list[set[Any]]:
    """Nodes of each subdomain's ring, by a breadth of one layer in the dense matrix."""
    d = setup.decomposition
    coupled = np.zeros((d.n, d.n), dtype=bool)
    coupled[np.repeat(np.arange(d.n), np.diff(d.indptr)), d.indices] = True
    owned = [np.flatnonzero(d.owner == k) for k in range(d.n_subdomains)]
    return [set(np.flatnonzero(coupled[own].any(0))) - set(own) for own in owned]


def test_features_and_patterns_are_the_published_ones():
    setup = small()
    d, inputs = setup.decomposition, setup.inputs
    graph, seen = inputs.graph, setup.seen
    assert seen is not None
    row, col = graph.fine.row.tolist(), graph.fine.col.tolist()
    ring = rings(setup)
    masked = {(i, j) for i, j in zip(row, col) if any({i, j} <= r for r in ring)}
    assert list(zip(inputs.row.tolist(), inputs.col.tolist())) == sorted(masked)
    expected = torch.tensor([[float((i, j) in masked)] for i, j in zip(row, col)])
    expected = torch.cat([seen[:, None].float(), expected], dim=1)
    torch.testing.assert_close(graph.fine_edges, expected)
    in_ring = torch.tensor([[float(any(i in r for r in ring))] for i in range(d.n)])
    assert torch.equal(graph.fine_nodes, in_ring)
    members = [set(d.node[d.subdomain == k]) for k in range(d.n_subdomains)]
    P0 = torch.tensor(
        [[1 / sum(i in m for m in members) if i in m else 0.0 for m in members] for i in range(d.n)]
    )
    torch.testing.assert_close(graph.coarse_nodes, P0.T @ in_ring)
    A0 = P0.T @ setup.A.to_dense().float() @ P0
    there = A0[graph.coarse.row.long(), graph.coarse.col.long()]
    torch.testing.assert_close(graph.coarse_edges[:, 0], there, rtol=1e-4, atol=1e-5)
    owned = [set(np.flatnonzero(d.owner == k)) for k in range(d.n_subdomains)]
    near = [
        {
            m
            for m, other in enumerate(owned)
            if any(i in own and j in other for i, j in zip(row, col))
        }
        for own in owned
    ]
    wide = {
        (i, m) for i in range(d.n) for k, held in enumerate(members) if i in held for m in near[k]
    }
    assert list(zip(graph.cross.row.tolist(), graph.cross.col.tolist())) == sorted(wide)


@pytest.mark.parametrize("pattern", ["neighbours", "smoothed"])
def test_edges_between_levels_know_the_partition_of_unity_and_its_smoothed_form(pattern):
    setup = replace(small(), pattern=pattern)
    A, P0 = setup.A.to_dense(), setup.P0.to_dense()
    smoothed = P0 - (2 / 3) * (A @ P0) / A.diagonal()[:, None]
    graph = setup.inputs.graph
    row, col = graph.cross.row.long(), graph.cross.col.long()
    for got, P in zip(graph.cross_edges.T, (P0, smoothed)):
        torch.testing.assert_close(got, P[row, col].float())
        assert torch.count_nonzero(P) == torch.count_nonzero(P[row, col])
    coupled = CSRTensor(setup.A.pattern, torch.ones_like(setup.A.values)).to_dense()
    narrow = int(torch.count_nonzero(coupled @ P0))
    assert (graph.cross.nnz == narrow) == (pattern == "smoothed")


def test_factors_of_the_smoothed_partition_of_unity_start_from_it_and_keep_its_row_sums():
    setup = replace(small(), pattern="smoothed")
    ring, cross = values(setup)
    smoothed = setup.classical(smoothing=1).P
    assert smoothed is not None
    plain = setup.with_values(0 * ring, torch.ones_like(cross)).P
    assert plain is not None
    torch.testing.assert_close(plain.to_dense(), smoothed.to_dense(), rtol=1e-6, atol=1e-6)
    P = setup.with_values(ring, cross).P
    assert P is not None
    torch.testing.assert_close(P.sum(-1), smoothed.sum(-1), rtol=1e-6, atol=1e-6)
    factors = P.values / smoothed.values / cross
    there = smoothed.values > 1e-3
    row = P.pattern.row.long()
    for i in range(setup.decomposition.n):
        same = factors[there & (row == i)]
        torch.testing.assert_close(same, same[:1].expand_as(same), rtol=1e-5, atol=1e-6)


def test_bounded_values_keep_local_matrices_diagonally_dominant():
    setup = replace(small(), bounded=True)
    d, (ring, cross) = setup.decomposition, values(setup)
    row = torch.from_numpy(d.block_row[d.interface])
    room = torch.from_numpy(interface_room(setup.A, d))

    def sums(scale):
        L = setup.with_values(scale * ring, cross).interface
        assert L is not None
        return torch.zeros_like(room).index_add(0, row, L.abs())

    touched = sums(1.0) > 0
    assert touched.any()
    assert (sums(1e6) < room)[touched].all()  # whatever the network says
    torch.testing.assert_close(sums(1e6)[touched], room[touched], rtol=1e-3, atol=1e-6)
    free = replace(setup, bounded=False).with_values(1e-6 * ring, cross).interface
    held = setup.with_values(1e-6 * ring, cross).interface
    assert free is not None
    assert held is not None
    torch.testing.assert_close(held[room[row] > 0.1], free[room[row] > 0.1], rtol=1e-4, atol=0)
    assert not held[room[row] == 0].any()


def test_what_the_network_sees_is_the_matrix_where_nothing_else_is_given():
    A = laplacian(7)
    setup = PublishedSetup.of(Grid(A, partition(A, 3, method="lloyd")))
    torch.testing.assert_close(setup.inputs.graph.fine_edges[:, 0], setup.A.values.float())


def dense_L_and_P(setup, ring, cross):
    """L, (n, n), and P with rows that sum to one, (n, S)."""
    d, inputs = setup.decomposition, setup.inputs
    L = torch.zeros(d.n, d.n, dtype=ring.dtype).index_put((inputs.row, inputs.col), ring)
    pattern = inputs.graph.cross
    P = torch.zeros(d.n, d.n_subdomains, dtype=ring.dtype)
    P = P.index_put((pattern.row.long(), pattern.col.long()), cross)
    return L, P / P.sum(1, keepdim=True)


def values(setup, seed=0):
    """Values of L that subdomains share, not symmetric, and of P, not normalised."""
    generator = torch.Generator().manual_seed(seed)
    inputs = setup.inputs
    ring = 0.2 * torch.randn(len(inputs.row), generator=generator, dtype=torch.float64)
    cross = torch.rand(inputs.graph.cross.nnz, generator=generator, dtype=torch.float64) + 0.1
    return ring.requires_grad_(), cross.requires_grad_()


def dense_T(setup, L, P):
    """T with `L_i = L[ring_i, ring_i]`, one subdomain at a time."""
    A, d = setup.A.to_dense(), setup.decomposition
    M = torch.zeros_like(A)
    for i, ring in enumerate(rings(setup)):
        R, owned = restrictions(d, i)
        on_ring = torch.zeros(d.n, dtype=A.dtype)
        on_ring[sorted(ring)] = 1.0
        local = R @ (A + L * on_ring[:, None] * on_ring) @ R.T
        M = M + owned.T @ torch.linalg.inv(local) @ R
    eye = torch.eye(d.n, dtype=A.dtype)
    return (eye - P @ torch.linalg.inv(P.T @ A @ P) @ P.T @ A) @ (eye - M @ A)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_a_singular_method(value):
    setup = small()
    ring, cross = (x.detach() for x in values(setup))
    bad = torch.full_like(ring[:1], value)
    with pytest.raises(SingularError, match=r"ring: .* has NaN or infinity"):
        setup.with_values(torch.cat([bad, ring[1:]]), cross)
    with pytest.raises(SingularError, match=r"cross: .* has NaN or infinity"):
        setup.with_values(ring, torch.cat([bad, cross[1:]]))
    with pytest.raises(SingularError, match=r"cross: .* has NaN or infinity"):  # rows sum to zero
        setup.with_values(ring, 0 * cross)


def test_the_operator_is_the_dense_formula_with_its_gradients():
    setup = small()
    ring, cross = values(setup)
    T = dense_T(setup, *dense_L_and_P(setup, ring, cross))
    e = random_matrix(setup.decomposition.n, 3)
    got = setup.with_values(ring, cross).propagate(e)
    torch.testing.assert_close(got, T @ e)
    weights = random_matrix(setup.decomposition.n, 3, seed=1)
    for a, b in zip(
        torch.autograd.grad((got * weights).sum(), (ring, cross)),
        torch.autograd.grad((T @ e * weights).sum(), (ring, cross)),
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_the_dense_formulas(name):
    setup = small(6, 4)
    ring, cross = values(setup)
    L, P = dense_L_and_P(setup, ring, cross)
    T = dense_T(setup, L, P)
    method = setup.with_values(ring, cross)
    got = LOSSES[name](method, setup.P0, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    if name == "mloras":
        u = torch.randn(len(T), 500, generator=generator, dtype=T.dtype)
        u = u / u.norm(dim=0)
        expected = (torch.linalg.matrix_power(T, 4) @ u).norm(dim=0).max()
    else:
        u = torch.rand(len(T), 100, generator=generator, dtype=T.dtype)
        u = u / u.norm(dim=0)
        z = [
            (torch.linalg.matrix_power(T, k) @ u).norm(dim=0).max() ** (1 / k) for k in range(1, 11)
        ]
        z = torch.stack(z)
        A, P0 = setup.A.to_dense(), setup.P0.to_dense()
        energy = (P.T @ A @ P).trace() / (P0.T @ A @ P0).trace()
        expected = torch.softmax(z, 0) @ z + 5 * energy
    torch.testing.assert_close(got, expected)
    for a, b in zip(
        torch.autograd.grad(got, (ring, cross)), torch.autograd.grad(expected, (ring, cross))
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)


def test_ras_is_without_values_and_smoothing_lowers_the_energy():
    setup = small()
    e = random_matrix(setup.decomposition.n, 2)
    T = propagator(setup.A.to_dense(), setup.decomposition, None, setup.P0.to_dense())
    torch.testing.assert_close(setup.classical().propagate(e), T @ e)
    smoothed = setup.classical(0.5, 1).P
    assert smoothed is not None
    assert coarse_energy(setup.A, smoothed, setup.P0) < 0.6


def test_boundary_nodes_have_rows_of_the_identity_and_the_network_does_not_see_it():
    mesh = delaunay(6)
    A, seen = dirichlet(mesh)
    fixed = np.isin(np.arange(A.shape[0]), mesh.boundary_nodes())
    full = A.toarray()
    np.testing.assert_array_equal(full[fixed], np.eye(len(full))[fixed])
    np.testing.assert_array_equal(full[:, fixed], np.eye(len(full))[:, fixed])
    np.testing.assert_allclose(full[~fixed][:, ~fixed], laplacian(6).toarray(), atol=1e-14)
    neumann = A.copy()
    neumann.data = seen
    np.testing.assert_allclose(neumann.sum(1), 0, atol=1e-12)
    assert A.nnz == np.count_nonzero(seen)


def test_iterations_count_until_the_worst_error_has_fallen():
    method = small().classical()
    count = stationary_iterations(method, 1e-6, vectors=3, seed=2)
    assert count is not None
    generator = torch.Generator().manual_seed(2)
    e = torch.rand(method.shape[0], 3, generator=generator, dtype=torch.float64)
    e = e / e.norm(dim=0)
    T = method.propagate(torch.eye(method.shape[0], dtype=torch.float64))
    norms = [(torch.linalg.matrix_power(T, k) @ e).norm(dim=0).max() for k in (count - 1, count)]
    assert norms[0] > 1e-6 >= norms[1]
    assert stationary_iterations(method, 1e-6, maxiter=count - 1) is None
    diverging = small().classical()
    diverging.propagate = lambda e: 2 * e  # type: ignore[method-assign]
    assert stationary_iterations(diverging) is None
    krylov = fgmres_iterations(method, 1e-10)
    assert krylov is not None
    assert 1 < krylov <= iterations_to_reduce(method, 1e-10) + 5
    assert fgmres_iterations(method, 1e-10, maxiter=2) is None


def test_worst_error():
    T = torch.tensor([[0.5, 0.0], [0.0, -0.25]])
    u = torch.eye(2)
    assert worst_error(lambda e: T @ e, u, 3).item() == 0.125


def test_inputs_that_do_not_fit():
    setup = small()
    with pytest.raises(ValueError, match=r"seen: expected shape \(\d+,\), got \(3,\)"):
        published_graph(setup.A, setup.decomposition, torch.ones(3))
    with pytest.raises(ValueError, match="pattern: expected 'neighbours' or 'smoothed', got 'all'"):
        published_graph(setup.A, setup.decomposition, pattern="all")  # type: ignore[arg-type]
    other = CSRTensor.from_scipy(laplacian(7))
    with pytest.raises(ValueError, match="A: expected shape"):
        published_graph(other, setup.decomposition)
    A = laplacian(6)
    A[0, 1] = 0.0
    A.eliminate_zeros()
    owner = np.arange(16) // 8
    with pytest.raises(ValueError, match="A: its pattern is not symmetric"):
        published_graph(CSRTensor.from_scipy(A), decompose(A, owner))


@pytest.mark.usefixtures("gmsh")
@pytest.mark.parametrize("boundary", ["kept", "eliminated"])
def test_grids_are_kept_and_made_again_alike(tmp_path, boundary):
    recipe = replace(TINY, boundary=boundary)
    first, again = GridDataset(recipe, tmp_path / "a"), GridDataset(recipe, tmp_path / "b")
    for index in range(2):
        made, read, other = first.grid(index), first.grid(index), again.grid(index)
        for grid in (read, other):
            assert abs(grid.A - made.A).sum() == 0
            assert (grid.owner == made.owner).all()
            assert (grid.seen is None) == (boundary == "eliminated")
            if made.seen is not None:
                assert (grid.seen == made.seen).all()
        n = made.A.shape[0]
        assert 0.5 * 80 < n < 1.1 * 110
        assert n / 16 < made.owner.max() + 1 < n / 7
    assert not list(tmp_path.rglob("*.partial"))
    assert first[0] is first[0]
    with pytest.raises(IndexError, match="expected 0 to 1, got 2"):
        first[2]
    path = first.folder / "000001.npz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"000001\.npz is damaged .*; delete it"):
        first.grid(1)


@pytest.mark.parametrize(
    ("header", "at", "bit", "cause"),
    [
        (b"PK\3\4", 28, 1, zlib.error),  # where the first array begins
        (b"PK\1\2", 6, 64, NotImplementedError),  # the version of zip that it needs
        (b"PK\1\2", 8, 1, RuntimeError),  # whether it is encrypted
    ],
)
def test_a_flipped_bit_is_a_damaged_file(tmp_path, header, at, bit, cause):
    dataset, A = GridDataset(TINY, tmp_path), laplacian(4)
    dataset.folder.mkdir()
    path = dataset.folder / "000000.npz"
    arrays = {"data": A.data, "indices": A.indices, "indptr": A.indptr}
    np.savez_compressed(path, **arrays, owner=np.zeros(4, dtype=int))
    assert abs(dataset.grid(0).A - A).sum() == 0
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(header) + at] ^= bit
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"000000\.npz is damaged .*; delete it") as caught:
        dataset.grid(0)
    assert type(caught.value.__cause__) is cause


def test_recipes():
    test = GridRecipe.test(4000)
    assert test.subdomain == (math.sqrt(4000),) * 2
    assert replace(TINY, count=5).key == TINY.key
    assert len({TINY.key, replace(TINY, boundary="eliminated").key, replace(TINY, seed=1).key}) == 3
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"count": 0}, "count: expected at least 1"),
        ({"nodes": (100, 80)}, "nodes: expected 50 <= smallest <= largest"),
        ({"subdomain": (2, 80)}, "subdomain: expected 4 <= smallest <= largest"),
        ({"boundary": "hidden"}, "boundary: expected 'kept' or 'eliminated', got 'hidden'"),
    )
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            GridRecipe(**options)


@pytest.mark.parametrize("make", [mggnn, graph_unet])
def test_a_network_makes_a_method_on_a_setup(make):
    torch.manual_seed(0)
    setup = small()
    net = make(width=8, layers=2)
    method = setup.learned(net)
    loss = LOSSES["mggnn"](method, setup.P0)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert method.P is not None
    torch.testing.assert_close(method.P.sum(-1), torch.ones(setup.decomposition.n).double())


def test_networks_are_kept_in_files(tmp_path):
    path = tmp_path / "net.safetensors"
    config = {"network": "graph_unet", "width": 8, "layers": 1, "hops": 2}
    net = make_network(**config)
    save_network(net, config, path, {"seed": 3})
    found = load_network(path)
    assert found.record == {"seed": 3}
    for name, weight in net.state_dict().items():
        assert torch.equal(found.net.state_dict()[name], weight)
    with torch.no_grad():
        next(net.parameters())[0] = math.nan
    with pytest.raises(ValueError, match="has NaN or infinity, nothing is written"):
        save_network(net, config, path, {})
    assert load_network(path).record == {"seed": 3}
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"net\.safetensors is not a whole network"):
        load_network(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        load_network(tmp_path / "none")
    with pytest.raises(ValueError, match="network: expected one of"):
        make_network("transformer")
