"""From text to numbers and back: bytes, or byte pairs learned from a text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from nemotron_blocks.extras import extra
from sparsetorch.whole_files import replacing

SPECIAL = ("<end>", "<think>", "</think>")
"""Tokens that no text has: the end of a document, and around thoughts."""


class Tokenizer(Protocol):
    """What training and generating ask of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Numbers that may come."""
        ...

    @property
    def key(self) -> str:
        """The same for tokenizers that do the same."""
        ...

    def special(self, name: str) -> int:
        """The number of a special token."""
        ...

    def line_ends(self) -> frozenset[int]:
        """The tokens that end a line, for `ThinkingBudget`."""
        ...

    def encode(self, text: str) -> list[int]:
        """Numbers of a text."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of numbers."""
        ...


class ByteTokenizer:
    """The bytes of UTF-8, and behind them the special tokens."""

    vocab_size = 256 + len(SPECIAL)
    key = "bytes"

    def special(self, name: str) -> int:
        """The number of a special token.

        Raises:
            ValueError: there is none of that name.
        """
        return 256 + _place(name)

    def line_ends(self) -> frozenset[int]:
        """The one byte that ends a line."""
        return frozenset(b"\n")

    def encode(self, text: str) -> list[int]:
        """The bytes of a text."""
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of bytes, with special tokens by their names.

        Incomplete characters, and numbers that are no tokens, are U+FFFD.
        """
        parts: list[str] = []
        plain = bytearray()
        for token in tokens:
            if 0 <= token < 256:
                plain.append(token)
                continue
            known = 256 <= token < self.vocab_size
            parts += [plain.decode(errors="replace"), SPECIAL[token - 256] if known else "\ufffd"]
            plain.clear()
        return "".join([*parts, plain.decode(errors="replace")])


class BPETokenizer:
    """Byte pairs, merged as often as was learned; by the tokenizers library.

    Any text comes back as it went. Special tokens are the first numbers.

    Args:
        tokenizer: of the tokenizers library, as `train` or `load` make it.
    """

    def __init__(self, tokenizer: Any) -> None:
        tokenizer.encode_special_tokens = True  # a text may speak of them
        self._tokenizer = tokenizer

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Self:
        """Learn the merges of some texts.

        Raises:
            ValueError: there is no room for all bytes and the special tokens.
        """
        least = 256 + len(SPECIAL)
        if vocab_size < least:
            raise ValueError(f"vocab_size: expected at least {least}, got {vocab_size}")
        library = extra("tokenizers")
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, or any tokenizer.json that has the special tokens.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no tokenizer, or lacks a special token.
        """
        if not Path(path).exists():
            raise FileNotFoundError(f"path: there is no file {path}")
        try:
            tokenizer = extra("tokenizers").Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(f"path: {path} is no tokenizer.json ({error})") from error
        missing = [name for name in SPECIAL if tokenizer.token_to_id(name) is None]
        if missing:
            raise ValueError(f"path: {path} lacks the tokens {', '.join(missing)}")
        return cls(tokenizer)

    def save(self, path: str | Path) -> None:
        """Write it to a JSON file, whole or not at all."""
        with replacing(Path(path)) as partial:
            self._tokenizer.save(str(partial))

    @property
    def vocab_size(self) -> int:
        """Numbers that may come."""
        return self._tokenizer.get_vocab_size()

    @property
    def key(self) -> str:
        """The same for tokenizers that do the same."""
        text = json.dumps(json.loads(self._tokenizer.to_str()), sort_keys=True)
        return f"bpe-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def special(self, name: str) -> int:
        """The number of a special token.

        Raises:
            ValueError: there is none of that name.
        """
        return self._tokenizer.token_to_id(SPECIAL[_place(name)])

    def line_ends(self) -> frozenset[int]:
        """The tokens with a newline behind which there is at most white space.

        There are many: empty lines, and newlines with what is before them, or with the next line's
        indentation, are tokens of their own.
        """
        numbers = sorted(self._tokenizer.get_vocab().values())
        texts = self._tokenizer.decode_batch([[n] for n in numbers], skip_special_tokens=False)
        return frozenset(n for n, text in zip(numbers, texts) if re.search(r"\n\s*\Z", text))

    def encode(self, text: str) -> list[int]:
        """Numbers of a text, in which the names of special tokens are text like any other."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of numbers; special tokens by their names."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False)


def _place(name: str) -> int:
    if name not in SPECIAL:
        raise ValueError(f"name: expected one of {', '.join(SPECIAL)}, got {name!r}")
    return SPECIAL.index(name)
