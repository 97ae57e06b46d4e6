"""Classes of tensors compare by identity: an equality of tensors is no truth value."""

import ast
from pathlib import Path

import torch

import graphnets
from graphnets.ragged import Ragged

ARRAYS = {"Tensor", "ndarray", "Pattern", "CSRTensor"}


def dataclasses():
    """Names of types in the fields of each dataclass, and whether it compares them."""
    for path in Path(graphnets.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            made = [ast.unparse(d) for d in getattr(node, "decorator_list", [])]
            if isinstance(node, ast.ClassDef) and any(d.startswith("dataclass") for d in made):
                fields = [n.annotation for n in node.body if isinstance(n, ast.AnnAssign)]
                names = {
                    getattr(part, "id", getattr(part, "attr", None))
                    for field in fields
                    for part in ast.walk(field)
                }
                yield node.name, names, not any("eq=False" in d for d in made)


def test_classes_of_tensors_have_no_equality_of_their_own():
    found, holding, size = list(dataclasses()), set(ARRAYS), 0
    while size < len(holding):
        size = len(holding)
        holding |= {name for name, types, _ in found if types & holding}
    assert {"Ragged", "GraphBatch", "Logs", "Inputs"} <= holding
    assert [name for name, _, compares in found if compares and name in holding] == []


def test_ragged_rows_can_be_compared_and_kept_in_a_set():
    rows, same = (Ragged(torch.tensor([0, 2]), torch.arange(2)) for _ in range(2))
    assert rows == rows
    assert rows != same
    assert len({rows, same, rows}) == 2
