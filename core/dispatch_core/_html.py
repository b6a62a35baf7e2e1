"""Values as small tables for notebooks. Whatever they show is escaped: it may have come from users and providers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape


def visible(text: str) -> str:
    """In one line, and without what a terminal or a browser would obey or cannot show."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def facts(rows: Mapping[str, object]) -> str:
    """Names and values, one below the other."""
    return _table(f"<tr>{_left('th', name)}<td>{_shown(value)}</td></tr>" for name, value in rows.items())


def listing(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows below the names of their columns; an empty text without rows."""
    lines = [f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows]
    head = f"<tr>{''.join(_left('th', name) for name in columns)}</tr>"
    return _table([head, *lines]) if lines else ""


def caption(strong: str, rest: str = "") -> str:
    """A line above a table, its first words in bold."""
    return f"<p><b>{escape(visible(strong))}</b>{escape(visible(rest))}</p>"


def number(value: float) -> str:
    """Whole where it is, else with one decimal; thousands are set apart."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def _table(rows: Iterable[str]) -> str:
    return f"<table>{''.join(rows)}</table>"


def _cell(value: object) -> str:
    # Texts read from the left; notebooks put everything else to the right, as numbers want it.
    return _left("td", value) if isinstance(value, str) else f"<td>{_shown(value)}</td>"


def _left(tag: str, text: str) -> str:
    return f"<{tag} style='text-align:left'>{_shown(text)}</{tag}>"


def _shown(value: object) -> str:
    return escape(visible(number(value) if isinstance(value, int | float) else str(value)))
