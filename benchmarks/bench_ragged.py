"""Layers on ragged rows against padding: neighbours in order by a GRU, attention between graphs.

    python benchmarks/bench_ragged.py [--nodes 20000] [--pairs 256] [--repeats 3] [--out FILE]

Forward, and forward with backward, in float32; results and gradients are checked against a packed
sequence of torch, and a loop over pairs in float64, before anything is timed. The graph has 20 hubs
with 200 neighbours each beside nodes with about two; graphs of pairs have 80 nodes on average and
500 at most, as logs have. PyG's `GRUAggregation` pads each node to the largest degree and returns
the state behind the padding, which is another result for all other nodes: it is timed as it is, and
the table says for how many nodes it agrees. "padded" is the same with the right states taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from side_by_side import arguments, header, quartiles, report, require, times, to_best_peer
from torch import Tensor, nn
from torch_geometric.nn.aggr import GRUAggregation
from torch_geometric.utils import to_dense_batch

from graphnets.cross_attend import cross_attend, cross_attend_reference
from graphnets.ordered_gru import OrderedGRUConv
from graphnets.ragged import Ragged

HUBS, HUB_DEGREE = 20, 200
WIDTH = 64
OURS = "graphnets"
Layer = Callable[[Tensor], tuple[Tensor, ...]]


def skewed_graph(nodes: int) -> Ragged:
    """The sources of each node: 200 for hubs, else one to three."""
    generator = torch.Generator().manual_seed(0)
    degrees = torch.randint(1, 4, (nodes,), generator=generator)
    degrees[torch.randperm(nodes, generator=generator)[:HUBS]] = HUB_DEGREE
    sources = torch.randint(nodes, (int(degrees.sum()),), generator=generator)
    return Ragged.from_lengths(degrees, sources)


def same_weights(cell: nn.GRUCell, gru: nn.GRU) -> nn.GRU:
    """The sequence form of a cell."""
    gru.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    return gru


def gru_layers(graph: Ragged) -> dict[str, Layer]:
    """Each way to read the neighbours in order, by one set of weights."""
    torch.manual_seed(0)
    ours = OrderedGRUConv(WIDTH, WIDTH)
    gru = same_weights(ours.cell, nn.GRU(WIDTH, WIDTH, batch_first=True))
    pyg = GRUAggregation(WIDTH, WIDTH)
    same_weights(ours.cell, pyg.gru)
    lengths, row = graph.lengths, graph.row

    def padded(x: Tensor) -> tuple[Tensor, ...]:
        states = gru(to_dense_batch(x[graph.values], row)[0])[0]
        return (states[torch.arange(len(states)), lengths - 1],)

    def packed(x: Tensor) -> tuple[Tensor, ...]:
        sequences = nn.utils.rnn.pack_sequence(
            list(x[graph.values].split(lengths.tolist())), enforce_sorted=False
        )
        return (gru(sequences)[1][0],)

    return {
        OURS: lambda x: (ours(graph, x),),
        "packed": packed,
        "padded": padded,
        "PyG GRUAggregation": lambda x: (pyg(x[graph.values], row),),
    }


def attention_layers(ptr: Tensor, pairs: Tensor) -> dict[str, Layer]:
    """Each way to attend from either graph of a pair to the other; keys are the features."""
    graphs = [slice(a, b) for a, b in zip(ptr.tolist(), ptr[1:].tolist())]

    def ours(x: Tensor) -> tuple[Tensor, ...]:
        found = cross_attend(ptr, x, x, pairs)
        return found.first.values, found.second.values

    def padded(x: Tensor) -> tuple[Tensor, ...]:
        sides = []
        for side in pairs.T.tolist():
            rows = torch.cat([x[graphs[v]] for v in side])
            lengths = ptr.diff()[torch.tensor(side)]
            sides.append(to_dense_batch(rows, torch.arange(len(side)).repeat_interleave(lengths)))
        (v, in_v), (w, in_w) = sides
        attend = partial(nn.functional.scaled_dot_product_attention, scale=1.0)
        return (
            attend(v, w, w, attn_mask=in_w[:, None, :])[in_v],
            attend(w, v, v, attn_mask=in_v[:, None, :])[in_w],
        )

    return {
        OURS: ours,
        "loop": lambda x: cross_attend_reference(ptr, x, x, pairs),
        "padded": padded,
    }


def with_gradient(layer: Layer, x: Tensor) -> tuple[Tensor, ...]:
    """The results, and the derivative of the sum of their sines."""
    x = x.detach().requires_grad_()
    found = layer(x)
    torch.stack([y.sin().sum() for y in found]).sum().backward()
    assert x.grad is not None
    return (*(y.detach() for y in found), x.grad)


def check(name: str, got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> None:
    """End the run unless results and gradients agree."""
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        error = (a - b).norm() / b.norm()
        require(f"{name}, result {i}", float(error), 1e-5)


def rows(
    what: str, layers: Mapping[str, Layer], x: Tensor, repeats: int, unlike: tuple[str, ...] = ()
) -> Iterator[str]:
    """Lines of the table: forward, and with backward. `unlike` names what is not checked."""
    want = with_gradient(layers["packed" if "packed" in layers else "loop"], x)
    for name, layer in layers.items():
        if name not in unlike:
            check(f"{what}, {name}", with_gradient(layer, x), want)

    def forward(layer: Layer) -> object:
        with torch.no_grad():
            return layer(x)

    for step, call in (("forward", forward), ("and backward", lambda f: with_gradient(f, x))):
        seconds = times({n: partial(call, f) for n, f in layers.items()}, repeats, warmup=1)
        for name, taken in seconds.items():
            only = {OURS: seconds[OURS], name: taken}
            ratio = "1" if name == OURS else f"{1 / to_best_peer(only, OURS):.1f}"
            yield f"| {what} | {step} | {name} | {quartiles(taken, 0)} | {ratio} |"


def lines(nodes: int, n_pairs: int, repeats: int) -> Iterator[str]:
    """The tables."""
    graph = skewed_graph(nodes)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(nodes, WIDTH, generator=generator)
    layers = gru_layers(graph)
    yield from header("", "", "by", "ms, median (quartiles)", "times graphnets'")
    yield from rows("neighbours in order", layers, x, repeats, ("PyG GRUAggregation",))
    sizes = torch.randn(2 * n_pairs, generator=generator).exp().mul(50).long().clamp(4, 500)
    ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    pairs = torch.randperm(2 * n_pairs, generator=generator).view(n_pairs, 2)
    x2 = torch.randn(int(ptr[-1]), WIDTH, generator=generator) / WIDTH**0.5
    yield from rows("attention between graphs", attention_layers(ptr, pairs), x2, repeats)
    with torch.no_grad():
        right, theirs = layers[OURS](x)[0], layers["PyG GRUAggregation"](x)[0]
    agree = int(((right - theirs).abs().amax(1) < 1e-4).sum())
    yield ""
    yield (
        f"{nodes:,} nodes, {len(graph.values):,} edges, {HUBS} hubs; PyG's GRUAggregation agrees "
        f"with a loop over nodes on {agree:,} of {nodes:,}. {n_pairs} pairs of graphs with "
        f"{int(ptr[-1]):,} nodes. Width {WIDTH}, {torch.get_num_threads()} threads, float32."
    )


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0], 3, "turns", cpu_time=False)
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=256)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    report(lines(args.nodes, args.pairs, args.repeats), args.out)


if __name__ == "__main__":
    main()
