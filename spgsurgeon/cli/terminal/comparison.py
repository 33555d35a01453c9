"""The table of a comparison on a terminal: its verdicts coloured, and in two parts if it is too wide for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spgsurgeon.cli.terminal.console import console
from spgsurgeon.cli.terminal.text import BAD, GOOD, OPEN, coloured, columns

_VERDICTS = {"gain": GOOD, "loss": BAD, "no difference shown": OPEN}
_UNFOLDED = 1_000  # columns
_FIRST = ("arm", "learning rate", "score", "against plain", "verdict")


def comparison_tables(document: Mapping[str, Any]) -> list[Any]:
    """Return what says how the arms did."""
    from spgsurgeon.comparing import HEAD, rows

    found = [dict(zip(HEAD, row, strict=True)) for row in rows(document)]
    whole = _table(HEAD, found)
    out = console(stderr=False)
    if not out.is_terminal or out.measure(whole, options=out.options.update(width=_UNFOLDED)).maximum <= out.width:
        return [whole]
    rest = ("arm", *(name for name in HEAD if name not in _FIRST))
    return [_table(_FIRST, found), "", _table(rest, found)]


def _table(head: tuple[str, ...], rows: list[dict[str, str]]) -> Any:
    return columns(head, [[verdict(row[name]) for name in head] for row in rows])


def verdict(text: str) -> Any:
    """Return a verdict in its colour."""
    return coloured(text, _VERDICTS[text]) if text in _VERDICTS else text
