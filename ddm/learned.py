"""MG-GNN for Schwarz methods: Robin weights and a partition of unity in place of constant ones.

The network starts from a classical method, theta-ORAS with a smoothed partition of unity, and its
last layer starts at zero: untrained, it is that method. At each *local node*, a node p of an
overlapping subdomain i, it gives two numbers:

    theta_ip = theta exp(2 tanh h_ip)      the weight of what lies outside: local matrices are
                                           N_i + S_i E_i S_i, S_i = diag(sqrt(theta_ip)),
    phi_ip = 1 / m_p + c_ip                the partition of unity that makes the coarse space,
                                           sum_i phi_ip = 1 away from Dirichlet boundaries,

with the Neumann matrix N_i, E_i = A_i - N_i (`ddm.exterior.exterior`), and m_p subdomains at p.
Local matrices are positive definite whatever the network says. The coarse space `phi B`, with near-
null vectors B, is smoothed by Jacobi steps after that, which keep B in its span and damp what the
network adds in high modes, as at jumps of the coefficients. An iteration costs what the classical
one costs.
"""

from __future__ import annotations

import json
import math
from numbers import Real
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ddm.extras import extra
from ddm.features import N_FEATURES, SchwarzGraph
from graphnets.mggnn import MGGNN, CrossEdges, mlp
from graphnets.two_level import mean_edges
from sparsetorch.checks import check_count
from sparsetorch.whole_files import replacing

SCALE = 0.3  # of the last layer's output for phi: learning rates then suit both outputs


class InterfaceNet(nn.Module):
    """MG-GNN with a head for Robin weights and for the partition of unity.

    Args:
        width, layers, hops: of the `graphnets.MGGNN`.
        theta: Robin weight of the classical method that is corrected.
        overlap, smoothing, unknowns: of the methods that it is for: layers, Jacobi steps, and
            unknowns that a subdomain owns on average; what `ddm.learned_schwarz` takes.
        coordinates: whether their coarse spaces hold linear functions of the coordinates.

    `options` are those of `ddm.set_up`; `metadata` is what `save` kept beside the weights, empty
    for a new network.

    Raises:
        TypeError, ValueError: a size that is no whole number or too small, or a weight that is not
            positive.
    """

    def __init__(
        self,
        width: int = 64,
        layers: int = 4,
        hops: int = 2,
        theta: float = 0.5,
        overlap: int = 1,
        smoothing: int = 2,
        unknowns: int = 128,
        coordinates: bool = True,
    ) -> None:
        super().__init__()
        width = check_count("width", width, "feature")
        layers = check_count("layers", layers, "layer")
        hops = check_count("hops", hops, "hop", least=0)
        overlap = check_count("overlap", overlap, "layer")
        smoothing = check_count("smoothing", smoothing, "Jacobi steps", least=0)
        unknowns = check_count("unknowns", unknowns, "unknown")
        if not (isinstance(theta, Real) and 0 < theta < math.inf):
            raise ValueError(f"theta: expected a positive Robin weight, got {theta}")
        theta, coordinates = float(theta), bool(coordinates)
        self.config = {
            "width": width,
            "layers": layers,
            "hops": hops,
            "theta": theta,
            "overlap": overlap,
            "smoothing": smoothing,
            "unknowns": unknowns,
            "coordinates": coordinates,
        }
        self.theta, self.unknowns = theta, unknowns
        self.options: dict[str, Any] = {
            "overlap": overlap,
            "smoothing": smoothing,
            "linear": coordinates,
        }
        self.metadata: dict[str, str] = {}
        self.body = MGGNN(**N_FEATURES, width=width, layers=layers, hops=hops)
        self.edges = CrossEdges(width, N_FEATURES["cross_edges"])
        self.head = mlp(width, width, 2)
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.to(torch.float32)  # as the features are, whatever the default dtype

    def forward(self, inputs: SchwarzGraph) -> tuple[Tensor, Tensor]:
        """Return theta (M,) and the correction c (M,) of each local node, as decomposed."""
        return self.bounded(inputs, *self.raw(inputs))

    def raw(self, inputs: SchwarzGraph) -> tuple[Tensor, Tensor]:
        """The two outputs before `bounded`, each (M,), by cross edge."""
        graph = inputs.graph
        x, y = self.body(graph)
        robin, unity = self.edges(graph, x, y, self.head).unbind(-1)
        return robin, unity

    def bounded(self, inputs: SchwarzGraph, robin: Tensor, unity: Tensor) -> tuple[Tensor, Tensor]:
        """Positive Robin weights, and corrections whose rows sum to zero where they are held."""
        graph = inputs.graph
        wide = torch.promote_types(unity.dtype, torch.float32)
        robin, unity = robin.to(wide), unity.to(wide)
        with torch.autocast(unity.device.type, enabled=False):  # which would round the sums
            mean = mean_edges(graph.to_fine, unity.unsqueeze(-1)) * inputs.held.to(unity)
            shift = SCALE * (unity - mean.squeeze(-1).index_select(0, graph.cross.row))
            theta = self.theta * torch.exp(2 * torch.tanh(robin))
        return theta.index_select(0, inputs.local), shift.index_select(0, inputs.local)

    def save(self, path: str | Path, **metadata: str) -> None:
        """Write weights and configuration to one safetensors file, atomically.

        `metadata` (strings) is kept beside the configuration: seed, data, training time.

        Raises:
            ValueError: it is to be kept under "config" or "architecture", which `load` needs.
        """
        save = extra("safetensors.torch").save
        header = {"config": json.dumps(self.config), "architecture": type(self).__name__}
        for name in header.keys() & metadata.keys():
            raise ValueError(f"{name}: the file's own entry has this name; give yours another one")
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(save(self.state_dict(), header | metadata))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a network that `save` wrote, onto the CPU.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a safetensors file, another architecture, or weights that do not fit
                or are not finite.
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
        found = header.pop("architecture", None)
        if found != cls.__name__:
            raise ValueError(
                f"path: {path} holds architecture {found!r}, expected {cls.__name__!r}; "
                "train one with examples/train_mggnn.py"
            )
        try:
            with torch.device("cpu"):  # where its weights are
                net = cls(**json.loads(header.pop("config")))
            net.load_state_dict(weights)
            bad = [name for name, values in weights.items() if not values.isfinite().all()]
            if bad:
                raise ValueError(f"{bad[0]} has values that are not finite")
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"path: the weights in {path} do not fit its config: {error}"
            ) from error
        net.metadata = header
        return net.eval()
