"""Which network for a problem, and the problem made ready for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from ddm.checkpoints import load_pretrained, pretrained_names
from ddm.learned import InterfaceNet
from ddm.partition import partition
from ddm.problems.matrix import from_matrix
from ddm.problems.problem import Problem
from ddm.scope import Scope
from ddm.setup import Setup, set_up


def net_for(problem: Problem) -> InterfaceNet:
    """The first network that ships and has seen matrices like that of a problem.

    Raises:
        ValueError: there is none.
    """
    asked, refused = Scope.of_problem(problem), []
    for name in pretrained_names():
        net = load_pretrained(name)
        scope = Scope.of_net(net)
        reason = "" if scope is None else scope.unseen(asked)
        if not reason:
            return net
        refused.append(f"{name}: {reason}")
    raise ValueError(
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
        ValueError: none that ships fits; the problem has a null space.
    """
    check_regular(problem)
    if net is None:
        return net_for(problem), ""
    scope = Scope.of_net(net)
    return net, "" if scope is None else scope.unseen(Scope.of_problem(problem))


def prepared(
    A: sp.csr_array | Problem,
    net: InterfaceNet | str | None = None,
    *,
    coords: np.ndarray | None = None,
    subdomain: int | None = None,
    owner: np.ndarray | None = None,
    **options: Any,
) -> tuple[Setup, InterfaceNet, str]:
    """A matrix or problem made ready for a network, and why the network has not seen such ones.

    Arguments and errors are those of `ddm.learned_schwarz`.
    """
    if subdomain is not None and subdomain < 1:
        raise ValueError(f"subdomain: expected at least 1 unknown, got {subdomain}")
    problem = A if isinstance(A, Problem) else from_matrix(A, coordinates=coords)
    net, unseen = chosen_net(problem, load_pretrained(net) if isinstance(net, str) else net)
    if owner is None:
        n_parts = max(1, round(len(problem.b) / (subdomain or net.unknowns)))
        owner = partition(problem.A, n_parts, block_size=problem.block_size)
    return set_up(problem, owner, **(net.options | options)), net, unseen
