"""Texts become tokens, files and batches, and come back."""

from typing import Any

import numpy as np
import pytest
import torch

from nemotron_blocks import text
from nemotron_blocks.batches import TokenBatches, targets_ahead
from nemotron_blocks.loss import IGNORED
from nemotron_blocks.token_file import TokenFile, write_tokens
from nemotron_blocks.tokenizer import SPECIAL, BPETokenizer, ByteTokenizer

TEXTS = ["def f(x):\n    return x\n", "naïve ☃ text\n", "<think> is text here</think>", ""]


def tokenizers():
    return ByteTokenizer(), BPETokenizer.train(3 * TEXTS, 300)


@pytest.mark.parametrize("number", [0, 1])
def test_any_text_comes_back(number):
    tokenizer = tokenizers()[number]
    special = {tokenizer.special(name) for name in SPECIAL}
    assert len(special) == 3
    for some in TEXTS:
        tokens = tokenizer.encode(some)
        assert tokenizer.decode(tokens) == some
        assert not special & set(tokens)
        assert all(0 <= token < tokenizer.vocab_size for token in tokens)
    thought = [tokenizer.special("<think>"), *tokenizer.encode("hm"), tokenizer.special("</think>")]
    assert tokenizer.decode(thought) == "<think>hm</think>"
    with pytest.raises(ValueError, match="name: expected one of <end>"):
        tokenizer.special("<pad>")


def test_numbers_that_are_no_bytes_are_replaced():
    """Models may have more tokens than the tokenizer, and say them."""
    assert ByteTokenizer().decode([97, 259, 10**6, -1, 98, 258]) == "a\ufffd\ufffd\ufffdb</think>"


@pytest.mark.parametrize("number", [0, 1])
def test_line_ends_are_all_that_ends_a_line(number):
    texts = 9 * ["if a:\n    b\n\n    c;\n"]
    tokenizer = (ByteTokenizer(), BPETokenizer.train(texts, 300))[number]
    ends = tokenizer.line_ends()
    found = {token for token in range(tokenizer.vocab_size) if "\n" in tokenizer.decode([token])}
    assert ends == found
    assert len(ends) == 1 if number == 0 else len(ends) > 2
    assert not ends & {tokenizer.special(name) for name in SPECIAL}
    # A line's end within a token is none: what follows is on the next line.
    if isinstance(tokenizer, BPETokenizer):
        tokenizer._tokenizer.add_tokens([";\nd", "d;\n"])
        added = [tokenizer.vocab_size - 2, tokenizer.vocab_size - 1]
        assert tokenizer.line_ends() == ends | {added[1]}


def test_byte_pairs_are_fewer_and_go_to_a_file(tmp_path):
    plain, merged = tokenizers()
    assert len(merged.encode(TEXTS[0])) < len(plain.encode(TEXTS[0]))
    merged.save(tmp_path / "bpe.json")
    loaded = BPETokenizer.load(tmp_path / "bpe.json")
    assert loaded.key == merged.key != plain.key
    assert loaded.encode(TEXTS[1]) == merged.encode(TEXTS[1])
    with pytest.raises(FileNotFoundError, match="path: there is no file"):
        BPETokenizer.load(tmp_path / "absent.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="is no tokenizer"):
        BPETokenizer.load(tmp_path / "bad.json")
    with pytest.raises(ValueError, match="vocab_size: expected at least 259, got 100"):
        BPETokenizer.train(TEXTS, 100)


DOCUMENTS = [[1, 2, 3, 0], [4, 0], [], [*range(5, 30), 0], [7, 7, 0]]
FLAT = [token for document in DOCUMENTS for token in document]


@pytest.fixture
def file(tmp_path):
    write_tokens(tmp_path / "tokens.npy", iter(DOCUMENTS), 40)
    return TokenFile(tmp_path / "tokens.npy")


def test_files_of_tokens_hold_documents(file, tmp_path):
    assert file.tokens.tolist() == FLAT
    assert file.tokens.dtype == np.uint16
    assert file.starts.tolist() == [0, 4, 6, 32]
    assert file.documents(3, 8).tolist() == [0, 1, 1, 2, 2]
    write_tokens(tmp_path / "wide.npy", [[70_000]], 80_000)
    assert TokenFile(tmp_path / "wide.npy").tokens.tolist() == [70_000]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "tokens.npy", "tokens.npy.starts", "wide.npy", "wide.npy.starts",
    ]  # fmt: skip


def test_bad_files_of_tokens_are_named(file, tmp_path):
    with pytest.raises(FileNotFoundError, match="path: there is no file"):
        TokenFile(tmp_path / "absent.npy")
    with pytest.raises(ValueError, match="documents: expected tokens from 0 to 39, got 5 to 40"):
        write_tokens(tmp_path / "x.npy", [[5, 40]], 40)
    wrong: tuple[tuple[Any, str], ...] = (
        ([1.7, 2.2, 3.9], r"float64 of shape \(3,\)"),
        ([True], r"bool of shape \(1,\)"),
        ([[1, 2]], r"int64 of shape \(1, 2\)"),
        (5, r"int64 of shape \(\)"),
        ("ab", r"<U2 of shape \(\)"),
    )
    document: Any
    for document, found in wrong:
        message = rf"documents: expected integers in document 1, \(n,\), got {found}"
        with pytest.raises(TypeError, match=message):
            write_tokens(tmp_path / "x.npy", iter(([1], document)), 40)
    with pytest.raises(ValueError, match="documents: expected at least one token"):
        write_tokens(tmp_path / "x.npy", [[]], 40)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tokens.npy", "tokens.npy.starts"]
    path = tmp_path / "tokens.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="is damaged"):
        TokenFile(path)
    np.save(path, np.arange(10, dtype=np.uint16))
    with pytest.raises(ValueError, match="has 10 tokens, but a document begins at 32"):
        TokenFile(path)
    np.save(path, np.arange(10.0))
    with pytest.raises(ValueError, match="is no file of tokens"):
        TokenFile(path)


@pytest.mark.parametrize("failing", ["documents", "starts", "tokens"])
def test_a_file_of_tokens_stays_until_another_is_whole(file, tmp_path, monkeypatch, failing):
    path = tmp_path / "tokens.npy"

    def documents():
        yield [1, 2]
        if failing == "documents":
            raise RuntimeError("no more")
        yield [3]

    def fail(*arguments, **options):
        raise RuntimeError("no more")

    if failing == "starts":
        monkeypatch.setattr(np, "save", fail)
    if failing == "tokens":
        monkeypatch.setattr(np.lib.format, "open_memmap", fail)
    with pytest.raises(RuntimeError, match="no more"):
        write_tokens(path, documents(), 40)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f"{path.name}.starts"]
    again = TokenFile(path)
    assert again.tokens.tolist() == FLAT
    assert again.starts.tolist() == file.starts.tolist()
    failing = ""
    write_tokens(path, documents(), 40)
    assert TokenFile(path).tokens.tolist() == [1, 2, 3]
    assert TokenFile(path).starts.tolist() == [0, 2]


@pytest.mark.parametrize("theirs", [[[9, 8], [7]], [[1], [2], [3, 4]]], ids=["others", "same"])
def test_runs_that_write_one_file_do_not_meet(file, tmp_path, theirs):
    """Another run writes the file while this one does, and each is whole when it is there."""
    path, mine = tmp_path / "tokens.npy", [[1], [2], [3, 4]]

    def documents():
        yield mine[0]
        write_tokens(path, theirs, 40)
        assert TokenFile(path).tokens.tolist() == [token for some in theirs for token in some]
        yield from mine[1:]

    write_tokens(path, documents(), 40)
    again = TokenFile(path)
    assert again.tokens.tolist() == [1, 2, 3, 4]
    assert again.starts.tolist() == [0, 1, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f"{path.name}.starts"]


def test_writing_the_same_again_leaves_a_file_all_the_time(file, tmp_path, monkeypatch):
    """Another run may open it at any time."""
    path, gone = tmp_path / "tokens.npy", []
    unlink = type(path).unlink

    def noted(self, **options):
        gone.append(self)
        unlink(self, **options)

    monkeypatch.setattr(type(path), "unlink", noted)
    write_tokens(path, DOCUMENTS, 40)
    assert path not in gone
    write_tokens(path, DOCUMENTS[1:], 40)
    assert path in gone


def test_batches_have_each_window_once_an_epoch(file):
    batches = TokenBatches(file, length=5, size=2, shuffle=False)
    seen = []
    for batch in (batches[i] for i in range(len(batches))):
        for row in range(2):
            seen += batch.tokens[row].tolist()
            known = batch.targets[row] != IGNORED
            assert torch.equal(
                batch.targets[row, :-1][known[:-1]], batch.tokens[row, 1:][known[:-1]]
            )
    assert seen == FLAT[: len(seen)]
    assert len(seen) == len(FLAT) // 10 * 10
    first = batches[0]
    assert first.tokens.tolist() == [[1, 2, 3, 0, 4], [0, 5, 6, 7, 8]]
    assert first.targets.tolist() == [[2, 3, 0, IGNORED, 0], [IGNORED, 6, 7, 8, 9]]
    assert first.seq_idx.tolist() == [[0, 0, 0, 0, 1], [0, 1, 1, 1, 1]]
    with pytest.raises(IndexError):
        batches[len(batches)]


@pytest.mark.parametrize(("size", "processes"), [(1, 1), (4, 1), (8, 1), (2, 2), (4, 3)])
def test_batches_in_order_have_every_window_once(file, size, processes):
    """11 windows; every process has as many batches, and what they lack does not count."""
    shares = [TokenBatches(file, 3, size, 0, r, processes, shuffle=False) for r in range(processes)]
    assert {len(share) for share in shares} == {-(-11 // (size * processes))}
    rows = []
    for i in range(len(shares[0])):
        for batch in (share[i] for share in shares):
            assert batch.tokens.shape == batch.targets.shape == (size, 3)
            rows += zip(batch.tokens.tolist(), batch.targets.tolist())
    one = TokenBatches(file, 3, 1, shuffle=False)
    expected = [(one[i].tokens[0].tolist(), one[i].targets[0].tolist()) for i in range(11)]
    assert rows[:11] == expected
    assert [token for tokens, _ in expected for token in tokens] == FLAT[:33]
    assert all(targets == 3 * [IGNORED] for _, targets in rows[11:])


def test_the_order_of_an_epoch_is_drawn_once(file, monkeypatch):
    drawn, draw = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda key: drawn.append(key) or draw(key))
    batches = TokenBatches(file, 3, 1)
    for batches.epoch in (0, 1):
        for i in range(len(batches)):
            batches[i]
    assert drawn == [(0, 0), (0, 1)]


def test_epochs_have_orders_of_their_own_and_processes_share_them(file):
    nan: Any = float("nan")

    def rows(batches):
        return [tuple(r) for i in range(len(batches)) for r in batches[i].tokens.tolist()]

    one = TokenBatches(file, length=3, size=2, seed=1)
    again = TokenBatches(file, length=3, size=2, seed=1)
    assert rows(one) == rows(again)
    again.epoch = 1
    assert rows(one) != rows(again)
    shares = [TokenBatches(file, 3, 1, seed=1, rank=r, processes=2) for r in range(2)]
    dealt = [row for pair in zip(*map(rows, shares)) for row in pair]
    assert dealt == rows(one)
    with pytest.raises(ValueError, match="file: 35 tokens are too few for a batch of 4 x 9"):
        TokenBatches(file, length=9, size=4)
    with pytest.raises(ValueError, match="length: expected at least 1 tokens, got 0"):
        TokenBatches(file, length=0, size=4)
    with pytest.raises(ValueError, match="size: expected at least 1 sequences, got nan"):
        TokenBatches(file, 3, nan)


def test_targets_ahead_stay_in_their_document():
    targets = torch.tensor([[2, 3, 0, IGNORED, 5, 6]])
    seq_idx = torch.tensor([[0, 0, 0, 0, 1, 1]])
    assert targets_ahead(targets, seq_idx, 1).tolist() == [[3, 0, IGNORED, IGNORED, 6, IGNORED]]
    assert targets_ahead(targets, seq_idx, 2).tolist() == [[0, IGNORED] + 4 * [IGNORED]]
    assert targets_ahead(targets, seq_idx, 9).tolist() == [6 * [IGNORED]]


def test_texts_are_split_by_what_is_in_them(tmp_path):
    for k in range(200):
        (tmp_path / f"{k}.py").write_text(f"x = {k}\n")
    (tmp_path / "other.bin").write_bytes(b"\0")
    files = text.documents([str(tmp_path), str(tmp_path / "7.py")])
    assert len(files) == 200
    training, validation = text.split(files, 0.2)
    assert set(training) | set(validation) == set(files)
    assert 20 < len(validation) < 60
    assert text.key(training) != text.key(validation)
    library = text.documents([text.STANDARD_LIBRARY])
    assert sum(file.stat().st_size for file in library) > 5e6
    with pytest.raises(
        FileNotFoundError, match=r"sources: .* is no file, and no folder with texts"
    ):
        text.documents([str(tmp_path / "absent")])
