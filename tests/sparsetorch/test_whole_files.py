"""Files are written whole or not at all."""

import os

import pytest

from sparsetorch.whole_files import replacing


def test_a_file_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(path, ".txt") as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
        assert temporary.name.endswith(".txt")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "new"


def test_an_error_leaves_the_file_before(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def killed():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_permissions_are_those_of_new_files(tmp_path):
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "file"):
        pass
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode
