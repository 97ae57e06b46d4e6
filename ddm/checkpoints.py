"""Trained networks that ship with the library, by name."""

from __future__ import annotations

from pathlib import Path

from ddm.learned import InterfaceNet

FOLDER = Path(__file__).parent / "pretrained"
SUFFIX = ".safetensors"


def pretrained_names() -> list[str]:
    """Names of the networks that ship, for `load_pretrained`."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def load_pretrained(name: str) -> InterfaceNet:
    """A trained network that ships with the library, ready for `ddm.learned_schwarz`.

    Its `metadata` says what it was trained on, for how long and where.

    Raises:
        TypeError: `name` is no string.
        ValueError: another name; files of your own are loaded by `InterfaceNet.load(path)`.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"name: expected one of {pretrained_names()}, got {type(name).__name__}; "
            "ddm.InterfaceNet.load(path) reads a file"
        )
    if name not in pretrained_names():
        hint = ""
        if name.endswith(SUFFIX) or "/" in name or "\\" in name:
            hint = "; ddm.InterfaceNet.load(path) reads a file"
        raise ValueError(f"name: expected one of {pretrained_names()}, got {name!r}{hint}")
    return InterfaceNet.load(FOLDER / f"{name}{SUFFIX}")


def resolve_net(net: InterfaceNet | str | None) -> InterfaceNet | None:
    """The network that an argument `net` means: itself, by name, or None.

    Raises:
        TypeError: something else.
        ValueError: no network of this name ships.
    """
    if net is None or isinstance(net, InterfaceNet):
        return net
    if isinstance(net, str):
        return load_pretrained(net)
    raise TypeError(
        f"net: expected a ddm.InterfaceNet, one of {pretrained_names()} or None, got "
        f"{type(net).__name__}; ddm.InterfaceNet.load(path) reads a file"
    )
