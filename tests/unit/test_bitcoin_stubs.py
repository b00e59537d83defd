"""Aim: tests/stubs/bitcoin, by which mypy judges our use of python-bitcoinlib, says of each name what the package has.

Method: each name, base class, parameter and plain default of the stubs (ast) against the package; each property against instances.
"""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "tests" / "stubs"
FILES = sorted((STUBS / "bitcoin").rglob("*.pyi"))
INSTANCES = {made.__class__.__name__: made for made in (COutPoint(), CTxIn(), CTxOut(), CTransaction([CTxIn()], [CTxOut()]))}


def module_of(file):
    return importlib.import_module(".".join(file.relative_to(STUBS).with_suffix("").parts).removesuffix(".__init__"))


def members():
    """Yield each function and property of the stubs, the class it is in, and that class or its module."""
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                yield node, None, module_of(file)
            elif isinstance(node, ast.ClassDef):
                for inner in (inner for inner in node.body if isinstance(inner, ast.FunctionDef)):
                    yield inner, node.name, getattr(module_of(file), node.name)


def is_property(node):
    return any(ast.unparse(decorator) == "property" for decorator in node.decorator_list)


EACH = [pytest.param(*row, id=f"{row[2].__name__}.{row[0].name}") for row in members()]


@pytest.mark.parametrize("file", FILES, ids=lambda file: module_of(file).__name__)
def test_every_name_and_base_is_the_package_s(file):
    module = module_of(file)
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.AnnAssign):
            assert type(getattr(module, node.target.id)).__name__ == node.annotation.id
        elif isinstance(node, ast.ClassDef):
            bases = {base.__name__ for base in inspect.getmro(getattr(module, node.name))}
            assert {base.id for base in node.bases} <= bases


@pytest.mark.parametrize(("node", "class_name", "owner"), EACH)
def test_every_function_takes_what_the_package_s_takes(node, class_name, owner):
    if is_property(node):
        value = getattr(INSTANCES[class_name], node.name)
        stated = node.returns.value if isinstance(node.returns, ast.Subscript) else node.returns
        assert type(value).__name__ == stated.id
        return
    found = inspect.getattr_static(owner, node.name)
    real = list(inspect.signature(getattr(found, "__func__", found)).parameters.values())
    assert [argument.arg for argument in node.args.args] == [parameter.name for parameter in real]
    defaults = [parameter.default for parameter in real if parameter.default is not inspect.Parameter.empty]
    assert len(defaults) == len(node.args.defaults)
    for stated, default in zip(node.args.defaults, defaults, strict=True):
        if ast.unparse(stated) != "...":
            assert ast.literal_eval(stated) == default
