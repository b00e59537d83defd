"""From a module's source to its mutants: the smallest slips that a programmer could make, one in each.

Comparisons lose or gain their edge, conditions are turned around, numbers are one off, operators swap with their opposite,
arguments with their neighbour, statements and results are left out. Not touched: texts (they are for people), types, log lines,
assertions, decorators.
"""

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_SKIPPED_FIELDS = {"decorator_list", "annotation", "returns", "type_params"}


@dataclass(frozen=True)
class Mutant:
    """`number`: which of its module's. `line` is the source line, stripped; `what` says the change, and which of several alike."""

    number: int
    lineno: int
    line: str
    what: str

    @property
    def name(self) -> tuple[str, str]:
        """What tells it from others wherever the line moves."""
        return self.line, self.what


@dataclass(frozen=True)
class _Site:
    node: ast.AST
    what: str
    apply: Callable[[], None]


def list_mutants(source: str) -> list[Mutant]:
    """Return all mutants of a module."""
    lines, seen = source.splitlines(), Counter[tuple[str, str]]()
    found = []
    for number, site in enumerate(_sites(ast.parse(source))):
        lineno = getattr(site.node, "lineno", 1)
        line = lines[lineno - 1].strip()
        seen[line, site.what] += 1
        times = seen[line, site.what]
        found.append(Mutant(number, lineno, line, site.what if times == 1 else f"{site.what} ({times})"))
    return found


def mutated(source: str, number: int) -> ast.Module:
    """Return the tree of one mutant."""
    tree = ast.parse(source)
    for at, site in enumerate(_sites(tree)):
        if at == number:
            site.apply()
            return ast.fix_missing_locations(tree)
    raise IndexError(number)


def _sites(node: ast.AST) -> Iterator[_Site]:
    """Yield every place of a change, parents before children, in the order of the source."""
    if _is_skipped(node):
        return
    yield from _changes(node)
    for name, value in ast.iter_fields(node):
        if name in _SKIPPED_FIELDS:
            continue
        for at, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.AST):
                if isinstance(value, list) and isinstance(child, ast.stmt):
                    yield from _removals(value, at)
                yield from _sites(child)


def _is_skipped(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()):  # a docstring
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return True
        case ast.JoinedStr() | ast.Import() | ast.ImportFrom() | ast.Assert() | ast.keyword(arg="strict"):
            return True
    return False


def _changes(node: ast.AST) -> Iterator[_Site]:
    match node:
        case ast.Compare():
            yield from (_comparison(node, at) for at in range(len(node.ops)))
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield _set(node, "op", other, "and becomes or" if isinstance(other, ast.Or) else "or becomes and")
        case ast.BinOp() | ast.AugAssign() if type(node.op) in _OPERATORS:
            other = _OPERATORS[type(node.op)]()
            yield _set(node, "op", other, f"{type(node.op).__name__} becomes {type(other).__name__}")
        case ast.UnaryOp(op=ast.USub()):
            yield _set(node, "op", ast.UAdd(), "the sign is lost")
        case ast.If() | ast.IfExp() if not isinstance(node.test, ast.Constant | ast.UnaryOp):
            yield _set(node, "test", ast.UnaryOp(ast.Not(), node.test), "the condition is turned around")
        case ast.UnaryOp(op=ast.Not()):
            yield _set(node, "operand", ast.UnaryOp(ast.Not(), node.operand), "not is lost")
        case ast.Constant(value=bool()):
            yield _set(node, "value", not node.value, f"{node.value} becomes {not node.value}")
        case ast.Constant(value=int()):
            yield _set(node, "value", node.value + 1, f"{node.value} becomes {node.value + 1}")
        case ast.Constant(value=bytes()):
            other = bytes([node.value[0] ^ 1]) + node.value[1:] if node.value else b"\0"
            yield _set(node, "value", other, f"{node.value!r} becomes {other!r}")
        case ast.Return(value=ast.expr()) if not (isinstance(node.value, ast.Constant) and not node.value.value):
            yield _set(node, "value", ast.Constant(None), "returns None")
        case ast.Call(func=ast.Name(id="min" | "max")):
            return
        case ast.Call(args=[first, second, *_]) if not any(isinstance(part, ast.Starred) for part in (first, second)):
            if ast.dump(first) != ast.dump(second):
                yield _Site(node, "the first two arguments swap", lambda: _swap(node.args))


def _set(node: ast.AST, field: str, value: object, what: str) -> _Site:
    return _Site(node, what, lambda: setattr(node, field, value))


def _comparison(node: ast.Compare, at: int) -> _Site:
    other = _COMPARISONS[type(node.ops[at])]()

    def apply() -> None:
        node.ops[at] = other

    return _Site(node, f"{type(node.ops[at]).__name__} becomes {type(other).__name__}", apply)


def _swap(arguments: list[ast.expr]) -> None:
    arguments[0], arguments[1] = arguments[1], arguments[0]


def _removals(block: list[ast.stmt], at: int) -> Iterator[_Site]:
    """Yield the removal of a statement that nothing else needs in order to run: a call, a raise, a step."""
    statement = block[at]
    is_call = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call | ast.Await)
    if (is_call and not _is_skipped(statement)) or isinstance(statement, ast.Raise | ast.AugAssign | ast.Delete | ast.Continue):

        def apply() -> None:
            block[at] = ast.copy_location(ast.Pass(), statement)

        yield _Site(statement, "left out", apply)
