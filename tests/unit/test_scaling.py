"""Aim: the sums in docs/SCALING.md are right, and stand on figures that were measured. Method: every line of its `calc` blocks,
`name = expression = value what it is`, is done again with the names before it; the value must agree to the digits that it has. A
line that names a document, as in `(CLUSTER.md, ...)`, has its figure from there."""

import ast
import math
import operator
import re
from decimal import Decimal
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "SCALING.md"
SOURCE = re.compile(r"\(([A-Z]+\.md)[,)]")
SOURCES_MIN = 10
BLOCK = re.compile(r"^```calc\n(.*?)^```$", re.M | re.S)
LINE = re.compile(r"(\w+) = (.+?) = (-?[0-9][0-9_.e]*) (\D.*)")
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value_of(node: ast.expr, names: dict[str, float]) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](value_of(node.left, names), value_of(node.right, names))
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ceil", ast.dump(node)
    return math.ceil(value_of(node.args[0], names))


def agrees(computed: float, told: str) -> bool:
    """Whether a number rounds to the told one: half of its last digit may lie between."""
    number = Decimal(told.replace("_", ""))
    digit = 10.0 ** number.as_tuple().exponent
    return abs(computed - float(number)) <= digit / 2 * 1.000001


def stands_in(figure: str, document: str) -> bool:
    """Whether a number stands in a document, by itself."""
    return re.search(rf"(?<![0-9.]){re.escape(figure)}(?![0-9]|\.[0-9])", document) is not None


def test_a_figure_stands_in_the_document_that_it_is_from():
    lines = [line for block in BLOCK.findall(DOCUMENT.read_text()) for line in block.splitlines() if line]
    named = [(line, LINE.fullmatch(line)[3], found[1]) for line in lines if (found := SOURCE.search(line))]
    for line, figure, name in named:
        assert stands_in(figure, (DOCUMENT.parent / name).read_text()), line
    assert len(named) >= SOURCES_MIN


@pytest.mark.parametrize(("text", "is_there"), [("takes 4.7 µs", True), ("14.7", False), ("4.75", False), ("4.7.", True)])
def test_a_figure_that_is_part_of_another_is_not_found(text, is_there):
    assert stands_in("4.7", text) is is_there


def test_every_sum_is_right():
    lines = [line for block in BLOCK.findall(DOCUMENT.read_text()) for line in block.splitlines() if line]
    names: dict[str, float] = {}
    for line in lines:
        match = LINE.fullmatch(line)
        assert match, line
        name, expression, told, _ = match.groups()
        assert name not in names, line
        computed = value_of(ast.parse(expression, mode="eval").body, names)
        assert agrees(computed, told), f"{line}: it is {computed}"
        names[name] = computed
    assert len(lines) > 40


@pytest.mark.parametrize(
    ("computed", "told", "is_so"), [(5.19, "5.19", True), (5.196, "5.19", False), (67, "66.7", False), (2, "2", True)]
)
def test_a_wrong_sum_is_seen(computed, told, is_so):
    assert agrees(computed, told) is is_so
