"""Which network for a problem, and the problem made ready for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ddm.checkpoints import load_pretrained, pretrained_names, resolve_net
from ddm.given import as_problem
from ddm.learned import InterfaceNet
from ddm.partition import partition
from ddm.problems.problem import Elements, Problem
from ddm.scope import Scope, matrix_kind
from ddm.setup import Setup, set_up
from sparsetorch import CSRTensor


class NoNetworkError(ValueError):
    """No network that ships has seen such matrices."""


def net_for(problem: Problem) -> InterfaceNet:
    """The first network that ships and has seen matrices like that of a problem.

    Raises:
        NoNetworkError: there is none.
    """
    asked, refused = Scope.of_problem(problem), []
    for name in pretrained_names():
        net = load_pretrained(name)
        scope = Scope.of_net(net)
        reason = "" if scope is None else scope.unseen(asked)
        if not reason:
            return net
        refused.append(f"{name}: {reason}")
    raise NoNetworkError(
        "net: none that ships has seen such matrices (" + "; ".join(refused) + "); give your own"
    )


def check_regular(problem: Problem) -> None:
    """Refuse a problem with a null space, which learned methods do not take.

    Raises:
        ValueError: it has one.
    """
    if problem.nullspace is not None:
        raise ValueError(
            "A: it is singular, and learned methods take regular matrices; make the problem with "
            "singular='ground', or take a classical method"
        )


def chosen_net(problem: Problem, net: InterfaceNet | None) -> tuple[InterfaceNet, str]:
    """The network for a problem, and why it has not seen such matrices; empty if it has.

    Args:
        problem: the problem.
        net: None takes one that ships. One without metadata is believed to fit.

    Raises:
        NoNetworkError: none that ships fits.
        ValueError: the problem has a null space.
    """
    check_regular(problem)
    if net is None:
        return net_for(problem), ""
    scope = Scope.of_net(net)
    return net, "" if scope is None else scope.unseen(Scope.of_problem(problem))


def unseen_matrix(net: InterfaceNet, A: CSRTensor, block_size: int) -> str:
    """Why a network has not seen matrices like A, of which no more is known; empty if it has.

    A net without metadata is believed to fit.
    """
    scope = Scope.of_net(net)
    if scope is None:
        return ""
    kind = matrix_kind(sp.csr_array(A.to_scipy()), "symmetric", scope.dimension, block_size)
    return scope.unseen(Scope(frozenset({kind}), scope.dimension, block_size, coordinates=True))


@dataclass(frozen=True, eq=False)
class Choice:
    """A problem, the network for it, and its subdomains.

    Attributes:
        problem: the problem.
        net: the network; where none was given and none that ships fits, an untrained one, which
            is the classical method that it starts from.
        unseen: why the network has not seen such matrices; empty if it has.
        owner: (n,) subdomain of each unknown.
        options: of `ddm.set_up`.
    """

    problem: Problem
    net: InterfaceNet
    unseen: str
    owner: np.ndarray
    options: dict[str, Any]

    def set_up(self) -> Setup:
        """The problem made ready for the network.

        Raises:
            TypeError, ValueError: see `ddm.set_up`.
        """
        return set_up(self.problem, self.owner, **self.options)


def choose(
    A: Any,
    net: InterfaceNet | str | None = None,
    *,
    coords: np.ndarray | None = None,
    near_nullspace: np.ndarray | None = None,
    block_size: int | None = None,
    elements: Elements | None = None,
    subdomain: int | None = None,
    owner: np.ndarray | None = None,
    **options: Any,
) -> Choice:
    """A network and subdomains for a matrix or a problem.

    Arguments and errors are those of `ddm.learned_schwarz`.
    """
    if subdomain is not None and not 1 <= subdomain < math.inf:
        raise ValueError(f"subdomain: expected at least 1 unknown, got {subdomain}")
    if subdomain is not None and owner is not None:
        raise ValueError("subdomain: owner says what subdomains own; give one of the two")
    if "coordinates" in options:
        raise TypeError("coordinates: give them as coords=, as for ddm.compare and ddm.tune")
    problem = as_problem(
        A, coords=coords, near_nullspace=near_nullspace, block_size=block_size, elements=elements
    )
    check_regular(problem)
    try:
        net, unseen = chosen_net(problem, resolve_net(net))
    except NoNetworkError as error:
        with torch.device("cpu"):
            net, unseen = InterfaceNet(width=8, layers=1).eval(), str(error)
    if owner is None:
        owned = max(subdomain or net.unknowns, problem.block_size)  # a node at least
        n_parts = max(1, round(len(problem.b) / owned))
        owner = partition(
            problem.A, n_parts, block_size=problem.block_size, coordinates=problem.positions
        )
    return Choice(problem, net, unseen, owner, net.options | options)


def prepared(
    A: Any, net: InterfaceNet | str | None = None, **options: Any
) -> tuple[Setup, InterfaceNet, str]:
    """A matrix or problem made ready for a network, and why the network has not seen such ones.

    Arguments and errors are those of `ddm.learned_schwarz`.
    """
    choice = choose(A, net, **options)
    return choice.set_up(), choice.net, choice.unseen
