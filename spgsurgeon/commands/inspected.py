"""The document of `inspect`: what files say of a model, and where replicas attach to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from spgsurgeon.checkpoint import CONFIG
from spgsurgeon.errors import ArchitectureError, SurgeonError
from spgsurgeon.loading import Located, Recognition, read_folder, refusal
from spgsurgeon.models import IMAGE, DepthSite, InnerSite, Site, differences, known_traits, sites_document
from spgsurgeon.replicas.kinds import CONTROLS, kinds

if TYPE_CHECKING:
    from spgsurgeon.models import Match

_T = TypeVar("_T")
_NEW_HEAD = "`spgsurgeon graft` with --num-classes gives it a new, untrained one"


def recognized(located: Located, recognition: Recognition) -> dict[str, Any]:
    """Return the document of weights that were recognised by their keys and shapes, or were not."""
    matches = recognition.fits.matches
    entries = recognition.entries
    shapes = {key: spec.shape for key, spec in entries.items()}
    settled = matches[0].entry if len(matches) == 1 else None
    document = document_of(
        source=located.source,
        format=located.format,
        producer=located.producer,
        library=_common(match.entry.library for match in matches),
        architecture=settled.architecture if settled else None,
        candidates=list(dict.fromkeys(match.entry.name for match in matches or recognition.fits.nearest)),
        task=_common(match.entry.task for match in matches),
        sites=_common(_sites(match) for match in matches) or (),
        depth=_common(match.entry.last_stage if match.classes else None for match in matches),
        inner=None if settled and settled.task == IMAGE and _sites(matches[0]) else {},
        parameters=matches[0].entry.parameters(shapes) if matches else None,
        tensors=[(key, spec.dtype, spec.shape) for key, spec in entries.items()],
        located=located,
    )
    document["evidence"] = _evidence(recognition)
    document["prefixes"] = list(recognition.prefixes)
    document["notes"] += recognition.notes
    document["unexpected"] = list(matches[0].unexpected) if matches else []
    if settled is None:
        document["differences"] = _differences(matches)
        document |= _failure(refusal(located, recognition))
    elif document["head"] is None and (refused := _ungraftable(matches[0])):
        document |= _failure(refused)
    elif document["head"] is None:
        document["notes"].append(nothing_to_graft_at(settled.name))
    return document


def folder_of_transformers(located: Located) -> dict[str, Any]:
    """Return the document of a folder whose config.json says what it is: nothing is recognised by keys and shapes."""
    folder = read_folder(located)
    config, entries = folder.config, located.outline.entries
    document = document_of(
        source=located.source,
        format=located.format,
        producer=located.producer,
        library="transformers",
        architecture=config.named or config.model_type,
        candidates=[f"transformers/{config.named or config.model_type}"],
        task=config.head.task if config.head else None,
        sites=(folder.site,) if folder.site else (),
        depth=folder.last_layer,
        inner={},
        parameters=folder.parameters,
        tensors=[(key, spec.dtype, spec.shape) for key, spec in entries.items()],
        located=located,
    )
    document["evidence"] = f"{CONFIG} says {config.named or config.model_type}"
    document["labels"] = config.labels
    document["tied"] = config.ties
    document["companions"] = [path.name for path in folder.companions]
    document["tokenizer"] = folder.has_tokenizer
    if folder.site is None:
        headless = config.headless()
        document["notes"].append(f"{headless.message}: {headless.hint}")
    return document


def document_of(
    *,
    source: str,
    format: str,
    producer: str | None,
    library: str | None,
    architecture: str | None,
    candidates: list[str],
    task: str | None,
    sites: Sequence[Site],
    depth: DepthSite | None,
    inner: Mapping[str, InnerSite] | None,
    parameters: int | None,
    tensors: Iterable[tuple[str, str, tuple[int, ...]]],
    located: Located | None,
) -> dict[str, Any]:
    """Return the document, with what only the values of the weights can tell left open (None).

    `inner` are the sites of layers in the body by what they are; None if they can't be known without the module.
    """
    listed = tensor_list(tensors)
    outline = located.outline if located else None
    trp = located.manifest.trp if located and located.manifest else None
    found, unknown = _replica_sites(_Known(sites, depth, inner))
    return {
        "source": source,
        "format": format,
        "producer": producer,
        "library": library,
        "architecture": architecture,
        "candidates": candidates,
        "task": task,
        "head": _head(sites) if sites else None,
        "parameters": parameters,
        "tensors": len(listed),
        "dtypes": dict(Counter(tensor["dtype"] for tensor in listed)),
        "prefixes": list(outline.prefixes) if outline else [],
        "ema": {"found": outline.has_ema, "used": outline.weights == "ema"} if outline else None,
        "content_hash": None,
        "unsafe": [],
        "non_finite": None,
        "sites": found,
        "sites_unknown": unknown,
        "grafted": trp if trp and trp["kind"] not in CONTROLS else None,
        "notes": list(located.notes) if located else [],
        "tensor_list": listed,
    }


def _head(sites: Sequence[Site]) -> dict[str, Any]:
    return sites_document(sites, "module", "type", "width") | {"classes": sites[0].classes}


@dataclass(frozen=True)
class _Known:
    """Where replicas can attach, as far as it is known."""

    heads: Sequence[Site]
    last_stage: DepthSite | None
    inner: Mapping[str, InnerSite] | None

    @property
    def sites(self) -> Sequence[Site]:
        if not self.heads:
            raise ArchitectureError("no head that can be grafted is known")
        return self.heads

    @property
    def depth_site(self) -> DepthSite:
        if self.last_stage is None:
            raise ArchitectureError("no last stage is known")
        return self.last_stage

    def inner_site(self, what: str) -> InnerSite:
        if self.inner is None:
            raise _NotKnownError(f"where the last {what} is can't be known without the model")
        if what not in self.inner:
            raise ArchitectureError(f"no last {what} is known")
        return self.inner[what]


class _NotKnownError(ArchitectureError):
    """Whether there is a site, only the model can tell."""


def _replica_sites(known: _Known) -> tuple[dict[str, Any], list[str]]:
    """Return where each kind of replica attaches and what it would cost by its defaults, by the kind's name.

    And the kinds of which that can't be known.
    """
    found: dict[str, Any] = {}
    unknown: list[str] = []
    for name, kind in kinds().items():
        if kind.control:
            continue
        try:
            # By `model_construct`, as what checks settings takes longer to make than all sites to be described.
            found[name] = kind.model_construct().site_summary(known)
        except _NotKnownError:
            unknown.append(name)
        except ArchitectureError:
            continue
    return found, unknown


def _common(values: Iterable[_T]) -> _T | None:
    """Return the value that all of them are; None if they differ, or there is none."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def tensor_list(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> list[dict[str, Any]]:
    """Return (key, dtype, shape) of each tensor as plain data."""
    return [{"key": key, "dtype": dtype, "shape": list(shape)} for key, dtype, shape in tensors]


def _sites(match: Match) -> tuple[Site, ...]:
    """Return where replicas attach, with the classes that the file has; nowhere where it has no classifier."""
    classes = match.classes
    if not classes:
        return ()
    return tuple(Site(head.module, head.type, head.width, classes, head.key) for head in match.entry.heads)


def _evidence(recognition: Recognition) -> str | None:
    said = f"{recognition.by} says {recognition.said}" if recognition.said else ""
    fits = recognition.fits.matches[0].evidence if recognition.fits.matches else ""
    return "; ".join(filter(None, (said, fits))) or None


def _differences(matches: Sequence[Match]) -> dict[str, dict[str, Any]]:
    """Return what differs between architectures that weights fit alike, as far as it is known."""
    names = dict.fromkeys(match.entry.name for match in matches)
    known = known_traits() if len(names) > 1 else {}
    return differences({name: known[name] for name in names if name in known})


def _ungraftable(match: Match) -> ArchitectureError | None:
    """Return why the head that is there can't be grafted; None if there is none."""
    entry, own = match.entry, match.unexpected
    if match.classes or not entry.heads:
        return ArchitectureError(f"{entry.name} can't be grafted: {entry.refusal}")
    if not own:
        return None
    return ArchitectureError(
        f"{entry.name} has a head of its own ({', '.join(own[:3])}{', ...' if len(own) > 3 else ''}) here",
        hint=f"{_NEW_HEAD}; with its own it can be grafted in Python",
    )


def nothing_to_graft_at(name: str) -> str:
    """Return the note on a model without a head."""
    return f"{name} has no head here, so there is nothing to graft at: {_NEW_HEAD}"


def _failure(error: SurgeonError) -> dict[str, Any]:
    said = {"kind": error.kind, "code": error.code, "message": error.message, "hint": error.hint}
    return {"error": said, "exit_code": error.exit_code}
