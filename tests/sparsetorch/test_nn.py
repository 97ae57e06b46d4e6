"""The layers against dense formulas, and their derivatives."""

import pytest
import torch
from layers import IN, LAYERS, OUT, N, inputs, make
from random_matrices import random_csr, random_pattern
from torch import Tensor
from torch.func import functional_call

from sparsetorch import CSRTensor, Pattern, random
from sparsetorch.nn import GATConv, GCNConv, SparseLinear, TAGConv, gcn_normalize

every_layer = pytest.mark.parametrize("name", LAYERS)


# SparseLinear


def test_a_full_pattern_is_nn_linear():
    torch.manual_seed(0)
    dense = torch.nn.Linear(5, 3, dtype=torch.float64)
    layer = SparseLinear(random_pattern(3, 5, 1.0, 0), dtype=torch.float64)
    layer.load_state_dict(
        {
            "values": dense.weight.detach().flatten(),
            "bias": dense.bias.detach(),
            "crow": layer.crow,
            "col": layer.col,
        }
    )
    for shape in [(5,), (2, 5), (4, 2, 5), (0, 5), (2, 0, 5)]:
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(layer(x), dense(x))


@pytest.mark.parametrize(
    ("n_out", "n_in", "density"), [(1, 1, 1.0), (4, 6, 0.0), (9, 4, 0.3), (4, 9, 0.3), (0, 3, 1)]
)
def test_linear_is_a_product_with_the_transpose(n_out, n_in, density):
    layer = SparseLinear(random_pattern(n_out, n_in, density, 3), dtype=torch.float64)
    assert layer.bias is not None
    x = torch.randn(5, n_in, dtype=torch.float64)
    expected = x @ layer.weight.to_dense().T + layer.bias
    torch.testing.assert_close(layer(x), expected)
    assert (layer.in_features, layer.out_features) == (n_in, n_out)


def test_initial_values_keep_the_variance_of_sums():
    torch.manual_seed(0)
    layer = SparseLinear(random(2000, 500, density=0.1).pattern, dtype=torch.float64)
    lengths = layer.pattern.crow.diff()
    bounds = lengths[layer.pattern.row].double().rsqrt()
    assert bool((layer.values.abs() <= bounds).all())
    assert layer.values.abs().div(bounds).max() > 0.999
    x = torch.randn(200, 500, dtype=torch.float64)
    # Uniform in +-1/sqrt(m): each of m terms has the variance 1 / (3 m).
    assert layer(x).sub(layer.bias).var().item() == pytest.approx(1 / 3, rel=0.03)


def test_a_random_layer_is_reproducible():
    first, second = (
        SparseLinear.random(30, 20, 0.1, generator=torch.Generator().manual_seed(s)) for s in (4, 4)
    )
    assert first.pattern.nnz == 60
    assert first.pattern.shape == (20, 30)
    assert torch.equal(first.col, second.col)
    assert str(first) == "SparseLinear(in_features=30, out_features=20, nnz=60, bias=True)"


# Graph convolutions


def dense_gcn(A: Tensor) -> Tensor:
    looped = A + torch.eye(len(A), dtype=A.dtype)
    roots = looped.sum(1) ** -0.5
    return torch.diag(roots) @ looped @ torch.diag(roots)


def graph(seed: int = 0) -> CSRTensor:
    """Positive weights, a self-loop, isolated nodes."""
    A = random_csr(N, N, 0.25, seed=seed).detach()
    return A.with_values(A.values.abs().requires_grad_())


def test_normalization_is_the_paper_s():
    A = graph()
    D = A.to_dense().detach().requires_grad_()
    weights = torch.randn(N, N, dtype=torch.float64)
    normalized = gcn_normalize(A)
    torch.testing.assert_close(normalized.to_dense(), dense_gcn(D))
    assert gcn_normalize(2 * A).pattern is normalized.pattern
    (got,) = torch.autograd.grad((normalized.to_dense() * weights).sum(), A.values)
    (expected,) = torch.autograd.grad((dense_gcn(D) * weights).sum(), D)
    torch.testing.assert_close(got, A.from_dense(expected, A.pattern).values)
    normalize = lambda v: gcn_normalize(A.with_values(v)).values  # noqa: E731
    assert torch.autograd.gradcheck(normalize, A.values, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(normalize, A.values)
    pair = torch.stack([A.values, 2 * A.values]).detach()
    torch.testing.assert_close(torch.vmap(normalize)(pair)[1], normalize(pair[1]))
    torch.testing.assert_close(normalize(pair)[1], normalize(pair[1]))


def test_an_undirected_graph_has_spectral_radius_one():
    A = graph(4)
    normalized = gcn_normalize(A + A.T)
    assert torch.linalg.eigvalsh(normalized.to_dense()).max().item() == pytest.approx(1)


def test_a_node_of_degree_zero_gets_zeros():
    A = CSRTensor.from_dense(torch.tensor([[-1.0, 0.0], [0.0, 3.0]], requires_grad=True))
    normalized = gcn_normalize(A)
    assert normalized.to_dense().tolist() == [[0.0, 0.0], [0.0, 1.0]]
    (gradient,) = torch.autograd.grad(normalized.values.sum(), A.values)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("width_out", [2, 6])
def test_gcn_conv(width_out):
    A, x = inputs()
    layer = GCNConv(IN, width_out, dtype=torch.float64)
    assert layer.bias is not None
    torch.nn.init.uniform_(layer.bias)
    expected = A.to_dense() @ x @ layer.weight.T + layer.bias
    torch.testing.assert_close(layer(A, x), expected)
    sparse = CSRTensor.from_dense(x.detach() * (x.detach() > 0))
    torch.testing.assert_close(layer(A, sparse), layer(A, sparse.to_dense()))


@pytest.mark.parametrize("width_out", [1, 2, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_tag_conv_is_a_polynomial_of_the_matrix(width_out, bias):
    A, x = inputs()
    layer = TAGConv(IN, width_out, hops=2, bias=bias, dtype=torch.float64)
    D, W = A.to_dense(), layer.linear.weight.T.reshape(3, IN, width_out)
    expected = x @ W[0] + D @ x @ W[1] + D @ D @ x @ W[2]
    expected = expected + layer.linear.bias if bias else expected
    torch.testing.assert_close(layer(A, x), expected)


def dense_gat(layer: GATConv, stored: Tensor, x: Tensor) -> Tensor:
    """PyG's GATConv without self-loops, head by head on dense matrices."""
    outputs = []
    for W, target, source in zip(layer.weight.chunk(layer.heads), layer.target, layer.source):
        h = x @ W.T
        e = torch.nn.functional.leaky_relu((h @ target)[:, None] + (h @ source)[None], 0.2)
        alpha = e.masked_fill(~stored, float("-inf")).softmax(1).nan_to_num(0.0)
        outputs.append(alpha @ h)
    y = torch.cat(outputs, 1) if layer.concat else torch.stack(outputs).mean(0)
    return y if layer.bias is None else y + layer.bias


@pytest.mark.parametrize("concat", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_gat_conv(concat, bias):
    A, x = inputs()
    torch.manual_seed(1)
    layer = GATConv(IN, OUT, heads=3, concat=concat, bias=bias, dtype=torch.float64)
    if layer.bias is not None:
        torch.nn.init.uniform_(layer.bias)
    stored = A.to_dense() != 0
    assert bool((~stored).all(1).any()), "a node without neighbours is wanted"
    torch.testing.assert_close(layer(A.pattern, x), dense_gat(layer, stored, x))
    alpha = layer.attention(A.pattern, x)
    torch.testing.assert_close(alpha.sum(-1), stored.any(1).double().expand(3, -1))


def test_attention_that_is_dropped_is_dropped_while_training_only():
    A, x = inputs()
    layer = GATConv(IN, OUT, dropout=1.0, bias=False, dtype=torch.float64)
    assert bool((layer(A.pattern, x) == 0).all())
    layer.eval()
    torch.testing.assert_close(layer(A.pattern, x), dense_gat(layer, A.to_dense() != 0, x))


def test_renumbering_nodes_renumbers_outputs():
    A, x = inputs()
    p = torch.randperm(N)
    for name, layer in LAYERS.items():
        module = make(name)
        torch.testing.assert_close(
            layer.call(module, A.submatrix(p, p), x[p]), layer.call(module, A, x)[p]
        )


# All layers


@every_layer
def test_derivatives(name):
    """Of first and second order, in reverse and forward mode, in parameters, matrix and input."""
    module = make(name)
    A, x = inputs()
    names = [n for n, _ in module.named_parameters()]

    def function(values: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(
            Caller(name, module),
            {f"module.{n}": p for n, p in zip(names, parameters)},
            (A.with_values(values), x),
        )

    arguments = (A.values, x, *module.parameters())
    options = {"fast_mode": True, "atol": 1e-6}
    assert torch.autograd.gradcheck(function, arguments, check_forward_ad=True, **options)
    assert torch.autograd.gradgradcheck(function, arguments, check_fwd_over_rev=True, **options)


class Caller(torch.nn.Module):
    """A layer with its call as `forward`."""

    def __init__(self, name: str, module: torch.nn.Module):
        super().__init__()
        self.name, self.module = name, module

    def forward(self, A: CSRTensor, x: Tensor) -> Tensor:
        return LAYERS[self.name].call(self.module, A, x)


@every_layer
def test_vmap_over_values_features_and_parameters(name):
    module = make(name)
    A, x = inputs()

    def run(values, x, parameters):
        return functional_call(Caller(name, module), parameters, (A.with_values(values), x))

    parameters = {f"module.{n}": p.detach() for n, p in module.named_parameters()}
    values, x = A.values.detach(), x.detach()
    twice_values, twice_x = (torch.stack([v, 2 * v]) for v in (values, x))
    twice = {n: torch.stack([p, -p]) for n, p in parameters.items()}
    mapped = torch.vmap(run)(twice_values, twice_x, twice)
    for i in range(2):
        chosen = {n: p[i] for n, p in twice.items()}
        alone = run(twice_values[i], twice_x[i], chosen)
        torch.testing.assert_close(mapped[i], alone)
    mapped = torch.vmap(run, in_dims=(0, None, None))(twice_values, x, parameters)
    torch.testing.assert_close(mapped[1], run(2 * values, x, parameters))


@pytest.mark.parametrize("name", [n for n in LAYERS if not n.startswith("gat")])
def test_batches_of_features_and_of_matrices(name):
    module, call = make(name), LAYERS[name].call
    A, x = inputs()
    matrices = A.with_values(torch.stack([A.values, -A.values]))
    features = torch.stack([x, x**2])
    for i in range(2):
        one = A.with_values(matrices.values[i])
        torch.testing.assert_close(call(module, A, features)[i], call(module, A, features[i]))
        if not name.startswith("linear"):
            torch.testing.assert_close(call(module, matrices, x)[i], call(module, one, x))


def test_bad_input():
    A, x = inputs()
    with pytest.raises(TypeError, match=r"pattern: .* use SparseLinear\.random\("):
        SparseLinear(4)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"X: expected size 4 in dimension -2"):
        make("linear")(torch.ones(2, 5, dtype=torch.float64))
    with pytest.raises(TypeError, match="nothing is cast silently"):
        make("linear")(torch.ones(2, 4))
    with pytest.raises(ValueError, match="hops: expected at least 1 hop, got 0"):
        TAGConv(1, 1, hops=0)
    with pytest.raises(ValueError, match=r"A: expected a square matrix, got shape \(3, 4\)"):
        gcn_normalize(random_csr(3, 4))
    with pytest.raises(ValueError, match=r"x: expected \(n, 4\) .* got \(6, 4\) for \(7, 7\)"):
        make("gat")(A.pattern, x[:6])
    empty = Pattern(torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), (0, 0))
    assert make("gat")(empty, x[:0]).shape == (0, 2 * OUT)
