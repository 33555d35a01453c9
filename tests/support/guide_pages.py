"""What README and the guides say that can be checked: commands, recipe keys, recipe names, links, Python names."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer
import yaml

import spgsurgeon
from spgsurgeon.cli.app import application
from spgsurgeon.errors import RecipeError, UsageError
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.recipe.schema import recipe_keys
from spgsurgeon.recipe.shipped import shipped_recipes
from spgsurgeon.replicas.kinds import kinds

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FILES = (".json", ".jsonl", ".yaml", ".safetensors", ".onnx", ".pt", ".pt2", ".png", ".html")
_OTHERS = ("python", "torchrun", "tensorboard")
_KNOWN_OPTIONS = {
    "--help",
    "--version",
    "--max-restarts",
    "--json",
    "--install-completion",
}  # of all commands, of none, of torchrun


@dataclass(frozen=True)
class Page:
    """A Markdown file, where it is or would be."""

    path: Path
    text: str

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """Language and content of each fenced block."""
        return _FENCE.findall(self.text)

    @property
    def spans(self) -> list[str]:
        """The inline code, each on one line."""
        return [" ".join(span.split()) for span in _SPAN.findall(_FENCE.sub("", self.text))]


def pages() -> list[Page]:
    """README, the guides and the page for contributors."""
    paths = [ROOT / "README.md", *sorted((ROOT / "spgsurgeon" / "docs").glob("*.md")), *ROOT.glob(".github/*.md")]
    return [Page(path, path.read_text(encoding="utf-8")) for path in paths]


def faults(page: Page) -> list[str]:
    """Return what a page shows that does not exist."""
    checks = (_command_faults, _span_faults, _yaml_faults, _python_faults, _link_faults)
    return [fault for check in checks for fault in check(page)]


# Commands


@cache
def verbs() -> dict[tuple[str, ...], Any]:
    """The parser's object of every command, by its words."""
    found = {}
    for name, command in typer.main.get_command(application()).commands.items():
        below = getattr(command, "commands", None)
        found |= {(name, sub): inner for sub, inner in below.items()} if below else {(name,): command}
    return found


def _command_faults(page: Page) -> Iterator[str]:
    for language, text in page.blocks:
        for line in text.replace("\\\n", " ").splitlines() if language == "sh" else ():
            for words in _commands(shlex.split(line, comments=True)):
                yield from _faults_of_words(words, whole=True)


def _commands(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield the commands of a line of shell."""
    command: list[str] = []
    for word in (*words, "&&"):
        if word in ("&&", "|", ";"):
            yield from [command] if command else []
            command = []
        else:
            command.append(word)


def _faults_of_words(words: list[str], *, whole: bool) -> Iterator[str]:
    if words[0] == "python" and words[1].endswith(".py"):
        if not (ROOT / words[1]).is_file():
            yield f"there is no script {words[1]}"
    elif words[0] == "spgsurgeon" and len(words) > 1:
        yield from _faults_of_call(words[1:], whole=whole)
    elif words[0] == "torchrun" and "spgsurgeon" in words:
        yield from _faults_of_call(words[words.index("spgsurgeon") + 1 :], whole=whole)


def _faults_of_call(words: list[str], *, whole: bool) -> Iterator[str]:
    """Yield what is wrong with the words behind `spgsurgeon`; one that is not `whole` may lack arguments."""
    path = tuple(words[:2]) if tuple(words[:2]) in verbs() else tuple(words[:1])
    if words[0].isupper() or words[0].startswith("--") or words in [[verb[0]] for verb in verbs() if len(verb) > 1]:
        return  # any command, or a group of them
    if path not in verbs():
        yield f"there is no command {' '.join(words)!r}"
        return
    try:
        given = verbs()[path].make_context(path[-1], words[len(path) :]).params
    except Exception as error:  # of the parser, whose classes are click's or Typer's copies of them
        if whole or type(error).__name__ != "MissingParameter":
            yield f"{' '.join(words)}: {error}"
        return
    yield from _recipe_faults(given.get("recipe"), _overrides(given))


def _overrides(given: dict[str, Any]) -> list[str]:
    listed = (value for value in given.values() if isinstance(value, list | tuple))
    return [word for words in listed for word in words if isinstance(word, str) and "=" in word]


def _recipe_faults(recipe: str | None, overrides: list[str]) -> Iterator[str]:
    """Yield unknown recipes and keys; of a shipped recipe also values that it can't take."""
    shipped = recipe is not None and not recipe.isupper() and not recipe.endswith(".yaml")
    try:
        if shipped:
            read_recipe(recipe, overrides)
    except (RecipeError, UsageError) as error:
        yield error.message
    yield from (f"unknown recipe key in {word!r}" for word in overrides if word.partition("=")[0] not in recipe_keys())


# Inline code


def _span_faults(page: Page) -> Iterator[str]:
    for span in page.spans:
        words = ["10" if word == "N" else word for word in span.split()]
        yield from _faults_of_words(words, whole=False)
        if len(words) > 1 and words[0] in {verb[0] for verb in verbs()}:
            yield from _faults_of_call(words, whole=False)
        if words[0] not in _OTHERS:
            yield from (
                f"no command has the option {word}" for word in words if _is_option(word) and word not in _options()
            )
        yield from (f"unknown recipe key {word!r}" for word in words if _key_in(word) not in (None, *recipe_keys()))
        if _is_recipe(span) and span not in shipped_recipes():
            yield f"no recipe {span!r} is shipped"


def _is_option(word: str) -> bool:
    return word.startswith("--")


@cache
def _options() -> set[str]:
    return {name for command in verbs().values() for option in command.params for name in option.opts} | _KNOWN_OPTIONS


def _key_in(word: str) -> str | None:
    """Return the key of a recipe that a word names, or means to: `data.limit:` or `trp=...`."""
    found = re.match(r"[a-z_]+(\.\w+)*(?==)|[a-z_]+(\.\w+)+", word)
    sections = {key.partition(".")[0] for key in recipe_keys()}
    return found[0] if found and found[0].partition(".")[0] in sections and not word.endswith(_FILES) else None


def _is_recipe(span: str) -> bool:
    """Whether a span looks like the name of a shipped recipe: it begins as one of them does."""
    family, hyphen, rest = span.partition("-")
    return bool(hyphen) and " " not in rest and family in {name.partition("-")[0] for name in shipped_recipes()}


# Blocks of YAML and Python


def _yaml_faults(page: Page) -> Iterator[str]:
    for language, text in page.blocks:
        if language != "yaml":
            continue
        has_data = "data" in (yaml.safe_load(text) or {})
        with TemporaryDirectory() as folder:
            path = Path(folder, "recipe.yaml")
            path.write_text(text, encoding="utf-8")
            try:
                read_recipe(path, [] if has_data else ["data.source=digits"])
            except RecipeError as error:
                yield error.message


def _python_faults(page: Page) -> Iterator[str]:
    for language, text in page.blocks:
        if language != "python":
            continue
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            yield f"Python: {error}"
            continue
        for node in ast.walk(tree):
            yield from _faults_of_node(node)


def _faults_of_node(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "spgsurgeon":
        module = import_module(str(node.module))
        yield from (f"{node.module} has no {name.name}" for name in node.names if not hasattr(module, name.name))
    elif isinstance(node, ast.Attribute) and _is_ours(node) and node.attr not in spgsurgeon.__all__:
        yield f"spgsurgeon has no public name {node.attr}"
    elif isinstance(node, ast.Call) and _is_ours(node.func) and node.func.attr in spgsurgeon.__all__:
        known = {*inspect.signature(getattr(spgsurgeon, node.func.attr)).parameters}
        if "settings" in known:  # those of any kind of replicas
            known |= {key for kind in kinds().values() for key in kind.model_fields}
        yield from (f"{node.func.attr} takes no {word.arg}" for word in node.keywords if word.arg not in known)


def _is_ours(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "spgsurgeon"


# Links


def _link_faults(page: Page) -> Iterator[str]:
    for target in _LINK.findall(_SPAN.sub("", _FENCE.sub("", page.text))):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.path.parent / name if name else page.path
        if not path.exists():
            yield f"the link {target} leads nowhere"
        elif anchor and anchor not in _anchors(page.text if path == page.path else path.read_text(encoding="utf-8")):
            yield f"the link {target} names no heading"


def _anchors(text: str) -> set[str]:
    """Return GitHub's anchors of the headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
