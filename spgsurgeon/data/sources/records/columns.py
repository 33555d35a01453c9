"""Which column of a table plays which role: said by the recipe, or known by the names that data sets use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spgsurgeon.data.sources.records.tables import Table
from spgsurgeon.data.sources.source import listing
from spgsurgeon.errors import UsageError, did_you_mean

Columns = Mapping[str, str]
"""Names of columns by the roles that they play, such as {"text": "sentence", "label": "label"}."""


@dataclass(frozen=True)
class Roles:
    """The roles that columns of a kind of data play.

    `inputs` are the sets of columns that data sets are known to have for what the model reads, the first that is there
    counts; `needed` are the roles without which there is nothing to read. `others` has further roles, all needed, each
    with the names that are looked for.
    """

    inputs: Sequence[Columns]
    needed: tuple[str, ...]
    others: Mapping[str, Sequence[str]]

    @property
    def names(self) -> list[str]:
        """All roles."""
        return list(dict.fromkeys([*(role for known in self.inputs for role in known), *self.others]))


def settle_columns(table: Table, said: Columns, roles: Roles) -> tuple[dict[str, str], list[str]]:
    """Return the column of each role, and the note on those that nobody said.

    If `said` names any column that the model reads, those are all of them. Raises UsageError for a role that is
    unknown, and for one without a column.
    """
    for role, name in said.items():
        if role not in roles.names:
            raise UsageError(
                f"data.columns names a column for {role!r}; there are {', '.join(roles.names)}",
                hint=did_you_mean(role, roles.names),
                code="unknown-column",
            )
        table.column(name, role)
    found = dict(_inputs(table, said, roles))
    for role, names in roles.others.items():
        there = [name for name in names if name in table.columns]
        if role not in said:
            found[role] = there[0] if there else _ask(table, role)
    if not found:
        return dict(said), []
    listed = ", ".join(f"{role} {name!r}" for role, name in found.items())
    return dict(said) | found, [f"columns of {table.path.name}: {listed} (data.columns says others)"]


def _inputs(table: Table, said: Columns, roles: Roles) -> Columns:
    """Return the columns that the model reads, if nobody said any of them."""
    if any(role in said for known in roles.inputs for role in known):
        for role in roles.needed:
            if role not in said:
                _ask(table, role)
        return {}
    known = next((known for known in roles.inputs if all(name in table.columns for name in known.values())), None)
    return known if known is not None else {roles.needed[0]: _ask(table, roles.needed[0])}


def _ask(table: Table, role: str) -> str:
    raise UsageError(
        f"which column of {table.path} is the {role}? There are {listing(list(table.columns), 12)}",
        hint=f"data.columns={{{role}: NAME}}",
        code="unknown-column",
    )
