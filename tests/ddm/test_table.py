"""The table of results as Markdown and CSV."""

import pytest

from ddm.table import Table


def test_columns_of_one_letter_make_a_valid_table():
    table = Table(("n", "s"))
    table.add(n=1, s="a")
    rule = table.to_markdown().splitlines()[1]
    assert rule == "| -: | -- |"


def test_an_empty_table_is_its_heading():
    assert Table(("name",)).to_markdown().count("\n") == 2


def test_csv_keeps_every_digit_and_markdown_three(tmp_path):
    table = Table(("value",))
    for value in (0.00012345, 123456.0, 7, True, None, 'a "b", c'):
        table.add(value=value)
    table.to_csv(tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert "| 0.000123 " in table.to_markdown()
    assert lines == ["value", "0.00012345", "123456.0", "7", "True", '""', '"a ""b"", c"']


def test_a_failed_write_leaves_the_old_file(tmp_path):
    table = Table(("value",))
    table.add(value=1)
    table.to_csv(tmp_path / "t.csv")

    class Unprintable:
        def __str__(self):
            raise RuntimeError("no text")

    table.add(value=Unprintable())
    with pytest.raises(RuntimeError, match="no text"):
        table.to_csv(tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().split() == ["value", "1"]
