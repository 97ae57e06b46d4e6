"""MG-GNN for Schwarz methods: interface values and prolongation as corrections to tuned ones.

The network starts from a classical method, theta-ORAS with a smoothed partition of unity, and its
last layers start at zero: untrained, on an M-matrix, it is that method. Interface values are
(paper, section 4)

    L_pp = -(1 - theta_p) room_p,            theta_p = theta exp(2 tanh h_p)
    L_pq = 0.9 tanh(g_pq) min(theta_p room_p / deg_p, theta_q room_q / deg_q)

for ring unknowns p, q of one subdomain. room_p is `ddm.features.interface_room`: for an M-matrix
the sum of |a_pj| over neighbours j outside the subdomain, so that theta = 1 is the Dirichlet
condition of RAS and theta = 0 the Neumann condition. deg_p is the number of ring couplings of p. L
is symmetric and, as sum_q |L_pq| <= 0.9 theta_p room_p, a row of A_i + L_i is diagonally dominant
if that row of A_i is: for M-matrices local matrices are positive definite, whatever the network
says. The prolongation is `P + C` with C on the pattern of P, so that an iteration costs what the
classical one costs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ddm.extras import extra
from ddm.features import N_FEATURES, SchwarzGraph
from graphnets.mggnn import MGGNN, CrossEdges, mlp
from graphnets.two_level import mean_edges


class InterfaceNet(nn.Module):
    """MG-GNN with heads for interface values and for the correction of the prolongation.

    Args:
        width, layers, hops: of the `graphnets.MGGNN`.
        theta: Robin weight of the classical method that is corrected.

    `metadata` is what `save` kept beside the weights, empty for a new network.
    """

    def __init__(self, width: int = 64, layers: int = 4, hops: int = 2, theta: float = 0.5) -> None:
        super().__init__()
        self.config = {"width": width, "layers": layers, "hops": hops, "theta": theta}
        self.theta = theta
        self.metadata: dict[str, str] = {}
        self.body = MGGNN(**N_FEATURES, width=width, layers=layers, hops=hops)
        self.edges = CrossEdges(width, N_FEATURES["cross_edges"])
        self.edge_head = mlp(width, width, 2)
        self.pair_head = mlp(width, width, 1)
        for head in (self.edge_head, self.pair_head):
            last = head[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, inputs: SchwarzGraph) -> tuple[Tensor, Tensor]:
        """Return interface values (n_interface,) and the prolongation's correction (nnz of P,)."""
        graph = inputs.graph
        x, y = self.body(graph)
        edge = self.edges(graph, x, y)
        robin, correction = self.edge_head(edge).unbind(-1)
        # Rows of the correction sum to zero: the coarse space keeps the constants that the
        # classical one holds, without which iterations grow with the number of subdomains.
        row_mean = mean_edges(graph.to_fine, correction.unsqueeze(-1)).squeeze(-1)
        correction = correction - row_mean.index_select(0, graph.cross.row)
        ring_edge = inputs.local.index_select(0, inputs.ring)
        theta = self.theta * torch.exp(2 * torch.tanh(robin.index_select(0, ring_edge)))  # (R,)
        room = inputs.room.to(theta)
        diagonal = -(1 - theta) * room
        left = 0.9 * theta * room / inputs.degree.to(theta)
        ring = edge.index_select(0, ring_edge)
        # A symmetric function of the two ends, so that L is symmetric.
        ends = ring.index_select(0, inputs.pair_row) + ring.index_select(0, inputs.pair_col)
        pair = self.pair_head(ends).squeeze(-1)
        limit = torch.minimum(left[inputs.pair_row], left[inputs.pair_col])
        coupling = torch.tanh(pair) * limit  # (Q,)
        interface = theta.new_zeros(inputs.n_interface)
        interface = interface.index_put((inputs.ring_entry,), diagonal)
        interface = interface.index_put(
            (inputs.pair_entry.reshape(-1),), torch.cat([coupling, coupling])
        )
        return interface, correction

    def save(self, path: str | Path, **metadata: str) -> None:
        """Write weights and configuration to one safetensors file, atomically.

        `metadata` (strings) is kept beside the configuration: seed, data, training time.
        """
        save = extra("safetensors.torch").save
        path = Path(path)
        temporary = path.with_name(path.name + ".partial")
        header = {"config": json.dumps(self.config), "architecture": type(self).__name__}
        temporary.write_bytes(save(self.state_dict(), header | metadata))
        temporary.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a network that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a safetensors file, another architecture, or weights that do not fit.
        """
        safetensors = extra("safetensors")
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"path: no checkpoint {path}")
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                header: dict[str, Any] = file.metadata() or {}
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise ValueError(
                f"path: {path} is not a complete safetensors file ({error})"
            ) from error
        found = header.get("architecture")
        if found != cls.__name__:
            raise ValueError(
                f"path: {path} holds architecture {found!r}, expected {cls.__name__!r}; "
                "train one with examples/train_mggnn.py"
            )
        try:
            net = cls(**json.loads(header["config"]))
            net.load_state_dict(weights)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"path: the weights in {path} do not fit its config: {error}"
            ) from error
        net.metadata = header
        return net.eval()
