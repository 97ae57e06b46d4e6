"""What generating is asked for: prompts, how many tokens, and where to end."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

Prompts = Tensor | Sequence[Sequence[int]] | Sequence[Tensor]


def checked_prompts(prompts: Prompts) -> list[Tensor]:
    """Each prompt, (n,) int64 on the CPU.

    Raises:
        TypeError: a tensor is not (B, L) int64; others are not lists of integers.
        ValueError: there is none, or one is empty.
    """
    if isinstance(prompts, Tensor):
        if prompts.dtype != torch.int64 or prompts.ndim != 2:
            raise TypeError(
                f"prompts: expected (B, L) int64, got {prompts.dtype} of shape "
                f"{tuple(prompts.shape)}"
            )
        lists = list(prompts.cpu())
    else:
        lists = [_checked_prompt(prompt, k) for k, prompt in enumerate(_nested(prompts))]
    if not lists or any(not len(prompt) for prompt in lists):
        raise ValueError("prompts: expected at least one, each of at least one token")
    return lists


def checked_stop(stop: Collection[int]) -> Tensor:
    """The tokens that end a sequence, (n,) int64.

    Raises:
        TypeError: they are no collection of integers.
    """
    if not _holds_several(stop):
        raise TypeError(f"stop: expected a collection of tokens, got {stop!r}; [{stop!r}] is one")
    tokens = [_integer("stop", token) for token in stop]
    return torch.tensor(tokens, dtype=torch.int64, device="cpu")


def check_count(name: str, count: int, least: int) -> None:
    """Raise TypeError or ValueError unless a count is an integer of at least so many."""
    if _integer(name, count) < least:
        raise ValueError(f"{name}: expected at least {least}, got {count}")


def _nested(prompts: Any) -> list[Any]:
    lists = list(prompts) if _holds_several(prompts) else [prompts]
    for some in lists:
        if isinstance(some, str):
            raise TypeError(
                f"prompts: expected numbers of tokens, got {some!r}; [tokenizer.encode(text)] "
                "makes a prompt"
            )
        if not _holds_several(some):
            raise TypeError(
                f"prompts: expected a list of prompts, each a list of tokens, got {some!r} for "
                "one; put a single prompt into a list"
            )
    return lists


def _holds_several(some: Any) -> bool:
    scalar = isinstance(some, str) or (isinstance(some, Tensor) and some.ndim == 0)
    return isinstance(some, Iterable) and not scalar


def _checked_prompt(prompt: Any, place: int) -> Tensor:
    try:
        tokens = torch.as_tensor(prompt, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"prompts: expected integers in prompt {place} ({error})") from error
    if not tokens.numel():
        return tokens.new_empty(0, dtype=torch.int64)
    whole = not (tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool)
    if tokens.ndim != 1 or not whole:
        raise TypeError(
            f"prompts: expected integers in prompt {place}, (n,), got {tokens.dtype} of shape "
            f"{tuple(tokens.shape)}"
        )
    return tokens.to(torch.int64)


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from error
