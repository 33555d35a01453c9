"""Which architecture weights belong to, from their keys and shapes alone, without importing a model library."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from spgsurgeon.models.recognition.catalogue import Catalogue, Entry, Record, catalogue, full_layout
from spgsurgeon.models.recognition.fingerprints import Shape, Shapes, key_codes, pair_codes
from spgsurgeon.models.recognition.installed import new_names
from spgsurgeon.models.recognition.matching import Match, compare, exact_match
from spgsurgeon.models.recognition.parts import Part, inner_parts, main_parts

__all__ = ["Identification", "Match", "identify", "newcomers"]

_COMPARED, _SHOWN = 10, 5
_MOST = 10_000  # tensors of a file that are looked into; the largest architecture has 3,108


@dataclass(frozen=True)
class Identification:
    """What weights can be: all exact matches, best first; where there is none, the nearest few.

    `newcomers` are then the names (timm/NAME) that the installed libraries have, the catalogue lacks, and nothing was
    compared with.
    """

    matches: tuple[Match, ...]
    nearest: tuple[Match, ...]
    newcomers: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Asked:
    """Which architectures to look among: those of a library, those of a name, or all."""

    library: str | None
    architecture: str | None

    def admits(self, library: str, architecture: str) -> bool:
        return self.library in (None, library) and self.architecture in (None, architecture)


def identify(
    shapes: Mapping[str, Shape], *, library: str | None = None, architecture: str | None = None
) -> Identification:
    """Return the architectures whose keys and shapes these are, with any number of classes and of input channels.

    The model may lie under an attribute of what was saved (`backbone.`), beside other things. `library` and
    `architecture` narrow the search to what is known. An `architecture` of the installed libraries that the catalogue
    lacks is built and compared, which imports torch; others of that kind are named only, as building takes seconds.
    """
    asked = _Asked(library, architecture)
    known = catalogue()
    if len(shapes) > _MOST:
        return Identification((), ())
    matches = _exact(shapes, lambda part: _entries_with_keys_of(part, known, asked))
    if any(not match.unexpected for match in matches):
        return Identification(matches, ())
    added = [] if matches or architecture is None else newcomers(known, architecture, library=library)
    matches = matches or _exact(shapes, lambda part: [record.entry for record in added])
    nearest = _nearest(shapes, known, asked, added)
    if matches and not (nearest and nearest[0].fitting > matches[0].fitting):
        return Identification(matches, ())
    unseen = [f"{owner}/{name}" for owner, name in new_names(known) if library in (None, owner)]
    return Identification((), nearest, () if architecture else tuple(unseen))


def newcomers(known: Catalogue, architecture: str, *, library: str | None = None) -> list[Record]:
    """Return what the installed libraries have under this name and the catalogue lacks, built to see what it is."""
    names = [name for name, one in new_names(known) if one == architecture and library in (None, name)]
    if not names:
        return []
    from spgsurgeon.models.recognition.cataloguing import describe

    return [describe(name, architecture) for name in names]


def _exact(shapes: Shapes, candidates: Callable[[Part], Iterable[Entry]]) -> tuple[Match, ...]:
    """Return the exact matches of the whole file; where there is none, those of the largest parts of it."""
    for part in main_parts(shapes):
        if len(part.shapes) < len(shapes):
            break
        if matches := _ranked([part], candidates):
            return matches
    matches = _ranked(inner_parts(shapes), candidates)
    prefixes = {match.prefix for match in matches}
    outermost = {one for one in prefixes if not any(one != other and one.startswith(other) for other in prefixes)}
    return tuple(match for match in matches if match.prefix in outermost)


def _ranked(parts: Iterable[Part], candidates: Callable[[Part], Iterable[Entry]]) -> tuple[Match, ...]:
    found = []
    for part in parts:
        for entry in candidates(part):
            if match := exact_match(entry, part):
                as_built = match.classes == entry.classes, match.channels == entry.channels
                order = part.order_hash == entry.order_hash
                rank = (-match.fitting, len(match.missing), not order, *(not same for same in as_built), entry.name)
                found.append((rank, match.prefix, match))
    return tuple(match for *_, match in sorted(found, key=lambda one: one[:2]))


def _entries_with_keys_of(part: Part, known: Catalogue, asked: _Asked) -> list[Entry]:
    rows = {row for field in ("key_hash", "headless_key_hash") for row in known.rows_with(field, part.key_hash)}
    entries = [known.entry(row) for row in sorted(rows)]
    return [entry for entry in entries if asked.admits(entry.library, entry.architecture)]


def _nearest(shapes: Shapes, known: Catalogue, asked: _Asked, added: Sequence[Record]) -> tuple[Match, ...]:
    """Return the architectures that share most tensors with the file or the main part of it, compared in full."""
    parts = list(main_parts(shapes))
    found = [compare(entry, full_layout(entry), part) for part, entry in _likely(parts, known, asked)]
    found += [compare(record.entry, record.layout, part) for record in added for part in parts]
    found = [match for match in found if 2 * match.fitting >= match.entry.tensors or asked.architecture]
    best: dict[tuple[str, str], Match] = {}
    for match in sorted(found, key=_distance):
        best.setdefault((match.entry.name, str(match.entry.model_args)), match)
    return tuple(best.values())[:_SHOWN]


def _distance(match: Match) -> tuple[int, int, str]:
    faults = len(match.missing) + len(match.mismatched) + len(match.unexpected)
    return -match.fitting, faults, match.entry.name


def _likely(parts: Sequence[Part], known: Catalogue, asked: _Asked) -> Iterator[tuple[Part, Entry]]:
    """Yield the parts and architectures that seem most alike, going by the catalogue's samples of keys and shapes."""
    alike: dict[str, list[int]] = {}  # rows by what they are alike in: all keys and shapes
    for row, names in enumerate(zip(known.column("library"), known.column("architecture"), strict=True)):
        if asked.admits(*names) and known.value("key_hash", row):
            alike.setdefault(known.value("shape_hash", row), []).append(row)
    scored = [
        (score, number, rows)
        for number, part in enumerate(parts)
        for score, rows in zip(_scores(part, list(alike.values()), known), alike.values(), strict=True)
    ]
    for _, number, rows in heapq.nlargest(_COMPARED, scored, key=lambda one: one[0]):
        for row in rows[:_SHOWN]:
            yield parts[number], known.entry(row)


def _scores(part: Part, groups: list[list[int]], known: Catalogue) -> Iterator[float]:
    """Yield how alike the part and each group of architectures are, 1 for the same, keys with shapes counting most.

    The share of a sample that the part has is, on average, the share of the whole that it has.
    """
    keys, pairs = set(key_codes(part.weights)), set(pair_codes(part.weights))
    for row, *_ in groups:
        key_hash, tensors = known.value("key_hash", row), known.value("tensors", row)
        of_keys = known.samples["keys"][key_hash]
        of_pairs = known.samples["pairs"][known.value("shape_hash", row)]
        in_common = 0.9 * len(pairs.intersection(of_pairs)) / len(of_pairs)
        in_common += 0.1 * len(keys.intersection(of_keys)) / len(of_keys)
        yield 2 * in_common * tensors / (tensors + len(part.weights)) + (key_hash == part.key_hash)
