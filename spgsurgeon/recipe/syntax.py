"""The YAML that recipes are written in: PyYAML's safe parser, narrowed to what a recipe needs.

Scalars follow YAML 1.2's core schema, so `4e-4` is a number, `no` is a word and `010` no octal number. Tags, aliases,
deep nesting and long texts are refused. Only nodes come out, so nothing but plain values can ever be constructed.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.composer import ComposerError

from spgsurgeon.errors import first_line

LONGEST = 64 * 1024  # characters; the longest shipped recipe has about 3,000
DEEPEST = 16

NULL = "tag:yaml.org,2002:null"


def compose(text: str) -> yaml.Node | None:
    """Return the node tree of one document, None for an empty one; refuses the rest with a `yaml.YAMLError`."""
    if len(text) > LONGEST:
        raise yaml.YAMLError(f"longer than {LONGEST:,} characters, so not a recipe")
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def syntax_fault(error: yaml.YAMLError) -> tuple[int, str]:
    """Return the line (from 1) and the reason of a YAML error."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return 1, f"not YAML: {first_line(error)}"
    mark = error.problem_mark
    context = f" ({error.context})" if error.context else ""
    return mark.line + 1, f"column {mark.column + 1}: {error.problem}{context}"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe parser with the core schema's scalars and without tags, aliases or deep nesting."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own hook)
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise ComposerError(None, None, "aliases (*name) are not read in a recipe", mark)
        if event.tag is not None:
            raise ComposerError(None, None, f"tags ({event.tag}) are not read in a recipe", mark)
        if self.depth == DEEPEST:
            raise ComposerError(None, None, "nested too deeply for a recipe", mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


# Nineteen digits hold every 64-bit number, and Python itself refuses to read thousands of them.
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})$")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
_Loader.add_implicit_resolver(NULL, re.compile(r"(~|null|Null|NULL|)$"), [*"~nN", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), [*"tTfF"])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, [*"-+0123456789"])
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, [*"-+.0123456789"])
