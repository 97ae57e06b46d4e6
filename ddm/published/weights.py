"""A trained network in one safetensors file, with what made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ddm.extras import extra
from graphnets.published import TwoLevelNet, graph_unet, mggnn
from sparsetorch.whole_files import replacing

NETWORKS = {"mggnn": mggnn, "graph_unet": graph_unet}


def make_network(network: str = "mggnn", **sizes: int) -> TwoLevelNet:
    """A new network by name, with `width`, `layers`, `hops` and `features`.

    Raises:
        ValueError: another name.
    """
    if network not in NETWORKS:
        raise ValueError(f"network: expected one of {sorted(NETWORKS)}, got {network!r}")
    return NETWORKS[network](**sizes)


class Trained(NamedTuple):
    """A network and the record of its training."""

    net: TwoLevelNet
    record: dict[str, Any]


def save_network(net: TwoLevelNet, config: dict[str, Any], path: Path, record: Any) -> None:
    """Write weights, the arguments of `make_network` and a record to one file, atomically.

    Raises:
        ValueError: weights have NaN or infinity.
    """
    for name, weight in net.state_dict().items():
        if not bool(weight.isfinite().all()):
            raise ValueError(
                f"net: {name} has NaN or infinity, nothing is written; train with a smaller lr, or "
                "with clipped gradients"
            )
    save = extra("safetensors.torch").save
    header = {"published": json.dumps(config), "record": json.dumps(record)}
    with replacing(path) as partial:
        partial.write_bytes(save(net.state_dict(), header))


def load_network(path: str | Path) -> Trained:
    """Read what `save_network` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a whole file of this kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: no file {path}")
    safetensors = extra("safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights: dict[str, torch.Tensor] = {
                name: file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118
            }
        net = make_network(**json.loads(header["published"]))
        net.load_state_dict(weights)
        record = json.loads(header["record"])
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"path: {path} is not a whole network of the published kind ({error})"
        ) from error
    return Trained(net.eval(), record)
