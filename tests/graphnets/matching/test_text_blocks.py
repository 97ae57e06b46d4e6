import gzip

import numpy as np
import pytest

from graphnets.matching.text_blocks import GrowingArray, byte_blocks, whole_file


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("text", [b"", b"one", b"a\n\nlonger line\nend", b"a\nb\n"])
def test_blocks_are_whole_lines_and_know_their_number(tmp_path, size, text):
    (tmp_path / "file").write_bytes(text)
    blocks = list(byte_blocks(tmp_path / "file", size=size))
    joined = b"".join(block for _, block in blocks)
    assert joined == text + (b"" if not text or text.endswith(b"\n") else b"\n")
    read = b""
    for first, block in blocks:
        assert block.endswith(b"\n")
        assert first == 1 + read.count(b"\n")
        read += block


def test_a_growing_array_keeps_what_was_added():
    array, parts = GrowingArray(np.int32), [np.arange(n) for n in (0, 1, 5000, 3, 90_000)]
    for part in parts:
        array.extend(part)
    assert array.finish().tolist() == np.concatenate(parts).tolist()


def write_in_vain(path):
    with whole_file(path) as file:
        file.write("second\n")
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["file.txt", "file.txt.gz"])
def test_a_file_is_written_whole_or_not_at_all(tmp_path, name):
    path = tmp_path / name
    with whole_file(path) as file:
        file.write("first\n")
    with pytest.raises(KeyboardInterrupt):
        write_in_vain(path)
    data = path.read_bytes()
    assert (gzip.decompress(data) if name.endswith("gz") else data) == b"first\n"
    assert list(tmp_path.iterdir()) == [path]
