"""Orderings, colourings and traversals, against SciPy and plain loops."""

from typing import Any

import numpy as np
import pytest
import torch
from random_matrices import random_pattern
from scipy.sparse.csgraph import connected_components as scipy_components
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import splu
from torch import Tensor

from sparsetorch import CSRTensor, Pattern, graph, ordering, poisson
from sparsetorch.graph.coloring import _greedy, _largest_first
from sparsetorch.graph.traversal import levels_by_frontiers

ORDERINGS = [graph.reverse_cuthill_mckee, graph.minimum_degree]
PATTERNS = {
    "no rows": random_pattern(0, 0, 1.0, 0),
    "one node": random_pattern(1, 1, 1.0, 0),
    "no entries": random_pattern(5, 5, 0.0, 0),
    "full": random_pattern(6, 6, 1.0, 0),
    "sparse": random_pattern(60, 60, 0.02, 1),
    "directed": random_pattern(40, 40, 0.1, 2),
    "long indices": random_pattern(30, 30, 0.1, 3, torch.int64),
    "grid": poisson(7, 9).pattern,
}
every_pattern = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)


def matrix(pattern: Pattern):
    return CSRTensor(pattern, torch.ones(pattern.nnz)).to_scipy()


def fill(A: CSRTensor) -> int:
    options = {"SymmetricMode": True}
    factors = splu(A.to_scipy().tocsc(), "NATURAL", diag_pivot_thresh=0.0, options=options)
    return factors.L.nnz


@every_pattern
@pytest.mark.parametrize("ordering", ORDERINGS)
def test_an_ordering_is_a_permutation(ordering, pattern):
    order = ordering(pattern)
    assert order.dtype == torch.int64
    assert order.sort().values.tolist() == list(range(pattern.shape[0]))


def test_minimum_degree_saves_fill():
    A = poisson(40, 40, dtype=torch.float64)
    shuffled = torch.randperm(1600, generator=torch.Generator().manual_seed(0))
    A = A.submatrix(shuffled, shuffled)
    reordered, by_superlu = (
        fill(A.submatrix(order, order))
        for order in (graph.minimum_degree(A.pattern), ordering.by_superlu(A.pattern))
    )
    theirs = splu(
        A.to_scipy().tocsc(),
        "MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    assert by_superlu == theirs.L.nnz
    assert reordered <= 1.15 * by_superlu
    natural = poisson(40, 40, dtype=torch.float64)  # a band of width 40, all of which fills
    assert reordered < 0.5 * fill(natural)


def test_cuthill_mckee_recovers_a_narrow_band():
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    A = poisson(300).submatrix(shuffled, shuffled)
    order = graph.reverse_cuthill_mckee(A.pattern)
    narrow = A.submatrix(order, order).pattern
    assert int((narrow.row - narrow.col).abs().max()) == 1


def test_orderings_serve_unsymmetric_patterns():
    # An arrow: eliminated from the point, it does not fill; from the corner, it fills completely.
    n = 30
    row = torch.cat([torch.arange(n), torch.zeros(n - 1, dtype=torch.int64)])
    col = torch.cat([torch.arange(n), torch.arange(1, n)])
    A = CSRTensor.from_coo(row, col, torch.ones(2 * n - 1, dtype=torch.float64), (n, n))
    order = graph.minimum_degree(A.pattern)
    assert int(torch.argsort(order)[0]) >= n - 2
    symmetric = A + A.T.mul(1e-3)
    assert fill(symmetric.submatrix(order, order)) == 2 * n - 1


def clashes(pattern: Pattern, colors: Tensor, distance: int) -> int:
    """Pairs of columns that must not share a colour and do, from the dense matrix."""
    dense = matrix(pattern).toarray() != 0
    near = dense.T.astype(int) @ dense if distance == 2 else dense | dense.T
    same = colors[:, None].numpy() == colors[None].numpy()
    return int((same & (near != 0) & ~np.eye(len(colors), dtype=bool)).sum())


@every_pattern
@pytest.mark.parametrize("distance", [1, 2])
def test_no_two_neighbours_share_a_colour(pattern, distance):
    colors = graph.coloring(pattern, distance)
    assert colors.shape == (pattern.shape[1],)
    assert colors.dtype == torch.int64
    assert clashes(pattern, colors, distance) == 0
    assert colors.unique().tolist() == list(range(int(colors.max()) + 1 if len(colors) else 0))


@pytest.mark.parametrize("seed", range(4))
def test_parallel_rounds_give_the_greedy_colouring(seed):
    pattern = random_pattern(50, 50, 0.06, seed)
    pattern = pattern.union(pattern.T).pattern
    expected = np.full(50, -1)
    neighbours = matrix(pattern).toarray() != 0
    for node in torch.argsort(_largest_first(pattern)).tolist():
        taken = set(expected[neighbours[node] & (np.arange(50) != node)])
        expected[node] = next(color for color in range(51) if color not in taken)
    assert _greedy(pattern, _largest_first(pattern)).tolist() == expected.tolist()
    degrees = pattern.crow.diff()[torch.argsort(_largest_first(pattern))]
    assert degrees.tolist() == sorted(degrees.tolist(), reverse=True)


def test_known_numbers_of_colours():
    assert int(graph.coloring(poisson(20, 30).pattern).max()) + 1 == 2  # red and black
    tridiagonal = poisson(50).pattern
    assert graph.coloring(tridiagonal, 2, torch.arange(50)).tolist() == [i % 3 for i in range(50)]
    assert int(graph.coloring(tridiagonal, 2).max()) <= 4  # the largest degree of A^T A
    assert graph.coloring(poisson(9).pattern.with_diagonal.pattern, 1).tolist() == [0, 1] * 4 + [0]
    assert int(graph.coloring(PATTERNS["full"]).max()) + 1 == 6


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (0, 3), (3, 0)])
def test_a_jacobian_of_any_shape_is_read_off_few_products(shape):
    n_rows, n_cols = shape
    pattern = random_pattern(n_rows, n_cols, 0.2, 5)
    colors = graph.coloring(pattern, distance=2)
    values = torch.randn(pattern.nnz, dtype=torch.float64)
    seeds = (colors[:, None] == torch.arange(n_cols)).double()
    products = CSRTensor(pattern, values).matmul(seeds)
    read = products[pattern.row.long(), colors[pattern.col.long()]]
    torch.testing.assert_close(read, values)


@every_pattern
def test_components_are_scipy_s(pattern):
    count, labels = graph.connected_components(pattern)
    if pattern.shape[0] == 0:
        assert (count, labels.tolist()) == (0, [])
        return
    expected, theirs = scipy_components(matrix(pattern), directed=False)
    assert count == expected
    assert labels.tolist() == theirs.tolist()


@every_pattern
@pytest.mark.parametrize("levels", [graph.breadth_first_levels, levels_by_frontiers])
def test_levels_are_shortest_paths(pattern, levels):
    n = pattern.shape[0]
    for sources in ([], [0], [n - 1, 0, 0], list(range(n))):
        sources = [s for s in sources if 0 <= s < n]
        got = levels(pattern, torch.tensor(sources, dtype=torch.int64))
        assert got.dtype == torch.int64
        if not sources:
            assert got.tolist() == [-1] * n
            continue
        distance = dijkstra(matrix(pattern), unweighted=True, indices=sources, min_only=True)
        assert got.tolist() == np.where(np.isinf(distance), -1, distance).tolist()


def test_a_deep_graph():
    levels = graph.breadth_first_levels(poisson(5000).pattern, torch.tensor([0]))
    assert levels.tolist() == list(range(5000))


@every_pattern
@pytest.mark.parametrize("k", [0, 1, 3])
def test_k_hop_is_where_a_power_is_stored(pattern, k):
    n = pattern.shape[0]
    nodes = torch.tensor([4, 0, 4] if n > 4 else [0] * min(n, 1), dtype=torch.int64)
    found = graph.k_hop(pattern, nodes, k)
    reach = np.linalg.matrix_power(matrix(pattern).toarray() + np.eye(n), k) if n else np.eye(0)
    expected = np.flatnonzero(reach[nodes.numpy()].sum(0)) if len(nodes) else []
    assert found.tolist() == list(expected)


def test_the_induced_subgraph_gives_the_same_rows():
    A = CSRTensor(PATTERNS["directed"], torch.randn(PATTERNS["directed"].nnz, dtype=torch.float64))
    x, nodes = torch.randn(40, dtype=torch.float64), torch.tensor([7, 3])
    found = graph.k_hop(A.pattern, nodes, 2)
    assert len(found) < 40
    small = A.submatrix(found, found)
    place = torch.searchsorted(found, nodes)
    torch.testing.assert_close((small @ (small @ x[found]))[place], (A @ (A @ x))[nodes])


def test_results_do_not_depend_on_a_transform_around_them():
    A = poisson(5, 5, dtype=torch.float64)

    def energy(values):
        colors = graph.coloring(poisson(5, 5).pattern)
        order = graph.minimum_degree(poisson(5, 5).pattern)
        return (values * values).sum() + 0 * (colors.sum() + order.sum())

    torch.testing.assert_close(torch.func.grad(energy)(A.values), 2 * A.values)


def test_bad_input():
    square, wide = PATTERNS["grid"], random_pattern(3, 4, 0.5, 0)
    matrix: Any = poisson(3)
    not_square = r"pattern: expected a square one, got shape \(3, 4\)"
    for function in (*ORDERINGS, graph.coloring, graph.connected_components):
        with pytest.raises(ValueError, match=not_square):
            function(wide)
        with pytest.raises(TypeError, match=r"a CSRTensor has one in A\.pattern"):
            function(matrix)
    with pytest.raises(ValueError, match=not_square):
        graph.k_hop(wide, torch.tensor([0]), 1)
    with pytest.raises(ValueError, match="distance: expected 1 or 2, got 3"):
        graph.coloring(square, 3)
    for order in (torch.arange(62), torch.zeros(63, dtype=torch.int64)):
        with pytest.raises(ValueError, match="order: expected each of 0 to 62 once"):
            graph.coloring(square, order=order)
    with pytest.raises(ValueError, match="sources: expected indices from 0 to 62, got 63 to 63"):
        graph.breadth_first_levels(square, torch.tensor([63]))
    with pytest.raises(ValueError, match="nodes: expected indices from 0"):
        graph.k_hop(square, torch.tensor([-1]), 1)
    with pytest.raises(ValueError, match="k: expected at least 0 edges"):
        graph.k_hop(square, torch.tensor([1]), -1)
