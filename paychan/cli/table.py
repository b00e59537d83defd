"""Tables for people: columns as wide as what stands in them."""

from collections.abc import Mapping, Sequence
from typing import Any


def table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each row, below the columns' heads. columns: a row's keys, and what stands above them. Numbers stand to the
    right."""
    shown = [list(columns.values())] + [[str(row.get(key, "")) for key in columns] for row in rows]
    widths = [max(len(line[at]) for line in shown) for at in range(len(columns))]
    numbers = [all(isinstance(row.get(key), int) for row in rows) for key in columns]
    lines = []
    for line in shown:
        shapes = zip(line, widths, numbers, strict=True)
        cells = [cell.rjust(width) if is_number else cell.ljust(width) for cell, width, is_number in shapes]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
