"""Aim: each .pyi tells the truth about its compiled module. Method: public names, members and parameter names, both ways."""

import ast
import importlib
import inspect
import types
from pathlib import Path

import pytest

import paychan
from paychan._fast.channel import ChannelTable
from paychan._fast.commit import Group

FAST = Path(paychan.__file__).parent / "_fast"
MODULES = sorted(file.stem for file in FAST.glob("*.pyi"))
WITHOUT_PYTHON_FACE = ["libcrypto", "purchase", "secp256k1"]


def stub_of(name):
    """Return what a stub states, but for its private types: what is asked of an argument, which only a checker sees."""
    body = ast.parse((FAST / f"{name}.pyi").read_text()).body
    return [node for node in body if not (isinstance(node, ast.ClassDef) and node.name.startswith("_"))]


def stub_names(body):
    names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.target.id for node in body if isinstance(node, ast.AnnAssign)}
    return names | {node.targets[0].id for node in body if isinstance(node, ast.Assign)}


def public_names(owner):
    names = {name for name in vars(owner) if not name.startswith("_")}
    return {name for name in names if not isinstance(getattr(owner, name), types.ModuleType)}


def module(name):
    return importlib.import_module(f"paychan._fast.{name}")


def test_every_compiled_module_has_a_stub_or_no_python_face():
    assert sorted(MODULES + WITHOUT_PYTHON_FACE) == sorted(file.name.partition(".")[0] for file in FAST.glob("*.so"))
    for name in WITHOUT_PYTHON_FACE:
        assert public_names(module(name)) == set()


@pytest.mark.parametrize("name", MODULES)
def test_stub_and_module_have_the_same_names(name):
    assert stub_names(stub_of(name)) == public_names(module(name))


CLASSES = [(name, node) for name in MODULES for node in stub_of(name) if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize(("name", "stub"), CLASSES, ids=lambda value: getattr(value, "name", value))
def test_classes_have_the_same_members(name, stub):
    members = {member for member in stub_names(stub.body) if not member.startswith("_")}
    compiled = getattr(module(name), stub.name)
    assert members == {member for member in vars(compiled) if not member.startswith("_")}
    for special in ("__len__",):
        assert (special in stub_names(stub.body)) == hasattr(compiled, special) or stub.name == "Status"


def attributes():
    for name, node in CLASSES:
        for member in node.body:
            is_property = isinstance(member, ast.FunctionDef) and "property" in map(ast.unparse, member.decorator_list)
            if isinstance(member, ast.AnnAssign) or is_property:
                attribute = member.name if is_property else member.target.id
                yield pytest.param(getattr(module(name), node.name), attribute, is_property, id=f"{name}.{node.name}.{attribute}")


TABLE = ChannelTable(1, 0)
NEEDED = {ChannelTable: (1, 0), Group: (TABLE, 0)}


@pytest.mark.parametrize(("owner", "attribute", "is_property"), list(attributes()))
def test_a_property_cannot_be_set_and_any_other_attribute_can(owner, attribute, is_property):
    if owner.__module__.endswith("status"):
        return  # an enum's members
    made, descriptor = owner.__new__(owner, *NEEDED.get(owner, ())), inspect.getattr_static(owner, attribute)
    if is_property:
        with pytest.raises(AttributeError):
            descriptor.__set__(made, None)
    else:
        descriptor.__set__(made, getattr(made, attribute))


def functions():
    for name in MODULES:
        for node in stub_of(name):
            if isinstance(node, ast.FunctionDef):
                yield f"{name}.{node.name}", node, getattr(module(name), node.name)
            elif isinstance(node, ast.ClassDef):
                owner = getattr(module(name), node.name)
                for member in node.body:
                    if isinstance(member, ast.FunctionDef) and not member.name.startswith("_") and not member.decorator_list:
                        yield f"{name}.{node.name}.{member.name}", member, getattr(owner, member.name)


@pytest.mark.parametrize(("stub", "compiled"), [pytest.param(node, real, id=label) for label, node, real in functions()])
def test_functions_have_the_same_parameters(stub, compiled):
    stated = [(arg.arg) for arg in stub.args.args]
    assert stated == list(inspect.signature(compiled).parameters)
    defaults = [parameter.default for parameter in inspect.signature(compiled).parameters.values()]
    given = [default for default in defaults if default is not inspect.Parameter.empty]
    assert given == [default.value for default in stub.args.defaults]
