"""Every line that "Coming from ..." gives for sparsetorch runs."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "coming_from.md").read_text()
SETUP = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
LINES = [
    code
    for row in re.findall(r"^\|(.*)\|$", PAGE, re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", row.split("|")[1])
    if "st." in code or re.match(r"A\W", code)
]


@pytest.fixture(scope="module")
def names() -> dict:
    assert SETUP is not None
    found: dict = {}
    exec(SETUP.group(1), found)
    return found


def test_the_page_is_read_as_it_should_be():
    assert len(LINES) > 60
    assert "A @ B" in LINES


@pytest.mark.parametrize("line", dict.fromkeys(LINES))
def test_line(line, names):
    eval(line, names)
