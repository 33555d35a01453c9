"""`spgsurgeon inspect`: what a checkpoint is and where it can be grafted; files and folders are read without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeVar

from spgsurgeon.checkpoint import CONFIG, hash_and_non_finite_of, read_grafted_folder
from spgsurgeon.errors import ArchitectureError, SurgeonError
from spgsurgeon.loading import Located, ModelRequest, Recognition, locate, read_folder, recognize, refusal
from spgsurgeon.models import DepthSite, NamedModel, Site, parse_model, sites_document
from spgsurgeon.replicas.kinds import CONTROLS, kinds

if TYPE_CHECKING:
    from spgsurgeon.loading import OpenedModel
    from spgsurgeon.models import Match

_T = TypeVar("_T")
_DEQUANTIZE = (
    "quantized weights can't be grafted, trained or scored; dequantize them to float32 with what quantized them"
)
_NEW_HEAD = "`spgsurgeon graft` with --num-classes gives it a new, untrained one"
_READ_UNASKED = 64_000_000  # bytes of weights: as many as are read and hashed in the blink of an eye


def inspect(
    model: str | Path,
    *,
    weights: str | None = None,
    arch: str | None = None,
    random_seed: int | None = None,
    image_size: tuple[int, int] | None = None,
    map_keys: str | None = None,
    tensors: bool = False,
    values: bool | None = None,
) -> dict[str, Any]:
    """Return the document of `inspect --json` for the model that `model` names; with `tensors`, each one is listed.

    `values` says whether the weights themselves are read, for their hash and to look for NaN and infinity; None reads
    up to 64 MB of them. Where they are not, `content_hash` and `non_finite` are None. `image_size` is (height, width)
    in pixels, see `ModelRequest`. An architecture that can't be told, or a head that can't be grafted, is no exception
    here: the document then has an `error`. Of weights that come without a head the `notes` say so.
    """
    request = ModelRequest(str(model), weights, arch, random_seed=random_seed, image_size=image_size, map_keys=map_keys)
    named = parse_model(request.model)
    if isinstance(named, NamedModel) or random_seed is not None:
        document = _inspect_opened(request)
    else:
        document = _inspect_located(named, request, values) or _inspect_opened(request)
    options = {"--arch": arch, "--weights": weights, "--random-weights": "" if random_seed is not None else None}
    options["--image-size"] = "{}x{}".format(*image_size) if image_size is not None else None
    options["--map-keys"] = map_keys
    quantized = _quantized(document["tensor_list"])
    document["next"] = _next_command(document, options) if not quantized else f"nothing: {_DEQUANTIZE}"
    if quantized:
        document["notes"] = [*document["notes"], f"weights are {', '.join(quantized)}: {_DEQUANTIZE}"]
    if not tensors:
        del document["tensor_list"]
    return document


def describe(opened: OpenedModel, known_hash: str | None = None) -> dict[str, Any]:
    """Return what an opened base is, as plain data; `known_hash` is the content hash of weights known to be finite.

    Raises ArchitectureError where it has a head that can't be grafted.
    """
    from spgsurgeon.checkpoint import DTYPE_NAMES, content_hash
    from spgsurgeon.loading import non_finite, state_of

    located, state = opened.located, state_of(opened.module)
    document = _document(
        source=opened.source,
        format=opened.format,
        producer=located.producer if located else opened.identity.library,
        library=opened.identity.library,
        architecture=opened.identity.architecture,
        candidates=[opened.identity.name],
        task=opened.task_name,
        sites=opened.sites if opened.identity.num_classes else (),
        depth=_depth_site(opened),
        parameters=sum(p.numel() for p in opened.module.parameters()),
        tensors=[(key, DTYPE_NAMES[value.dtype], tuple(value.shape)) for key, value in state.items()],
        located=located,
    )
    document["content_hash"] = known_hash or content_hash(state)
    document["non_finite"] = [] if known_hash else non_finite(state)
    del document["tensor_list"]
    return document


def _depth_site(opened: OpenedModel) -> DepthSite | None:
    try:
        return opened.depth_site
    except ArchitectureError:
        return None


def _inspect_opened(request: ModelRequest) -> dict[str, Any]:
    """Return the document of a model that has to be built to be known."""
    from spgsurgeon.checkpoint import DTYPE_NAMES
    from spgsurgeon.loading import open_model, state_of

    opened = open_model(request)
    listed = [(key, DTYPE_NAMES[value.dtype], tuple(value.shape)) for key, value in state_of(opened.module).items()]
    headless = [] if opened.identity.num_classes else [_nothing_to_graft_at(opened.identity.name)]
    return describe(opened) | {"tensor_list": _tensor_list(listed), "notes": [*opened.notes, *headless]}


def _inspect_located(path: Path, request: ModelRequest, values: bool | None) -> dict[str, Any] | None:
    """Return the document of weights in a file or folder; None where only building the model can tell what it is."""
    located = locate(path, request.weights, check=False)
    if located.of_transformers and request.arch is None:
        document, entries = _folder_of_transformers(located), located.outline.entries
    else:
        recognition = recognize(located, request.arch)
        if (recognition.said is not None and not recognition.fits.matches) or request.image_size or request.map_keys:
            return None
        document, entries = _recognized(located, recognition), recognition.entries
    if values or (values is None and sum(spec.nbytes for spec in entries.values()) <= _READ_UNASKED):
        _check_folder(located)
        document["content_hash"], document["non_finite"] = hash_and_non_finite_of(entries)
    return document


def _recognized(located: Located, recognition: Recognition) -> dict[str, Any]:
    matches = recognition.fits.matches
    entries = recognition.entries
    shapes = {key: spec.shape for key, spec in entries.items()}
    settled = matches[0].entry if len(matches) == 1 else None
    document = _document(
        source=located.source,
        format=located.format,
        producer=located.producer,
        library=_common(match.entry.library for match in matches),
        architecture=settled.architecture if settled else None,
        candidates=list(dict.fromkeys(match.entry.name for match in matches or recognition.fits.nearest)),
        task=_common(match.entry.task for match in matches),
        sites=_common(_sites(match) for match in matches) or (),
        depth=_common(match.entry.last_stage if match.classes else None for match in matches),
        parameters=matches[0].entry.parameters(shapes) if matches else None,
        tensors=[(key, spec.dtype, spec.shape) for key, spec in entries.items()],
        located=located,
    )
    document["evidence"] = _evidence(recognition)
    document["prefixes"] = list(recognition.prefixes)
    document["notes"] += recognition.notes
    document["unexpected"] = list(matches[0].unexpected) if matches else []
    if settled is None:
        document |= _failure(refusal(located, recognition))
    elif document["head"] is None and (refused := _ungraftable(matches[0])):
        document |= _failure(refused)
    elif document["head"] is None:
        document["notes"].append(_nothing_to_graft_at(settled.name))
    return document


def _folder_of_transformers(located: Located) -> dict[str, Any]:
    """Return the document of a folder whose config.json says what it is: nothing is recognised by keys and shapes."""
    folder = read_folder(located)
    config, entries = folder.config, located.outline.entries
    document = _document(
        source=located.source,
        format=located.format,
        producer=located.producer,
        library="transformers",
        architecture=config.named or config.model_type,
        candidates=[f"transformers/{config.named or config.model_type}"],
        task=config.head.task if config.head else None,
        sites=(folder.site,) if folder.site else (),
        depth=None,
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


def _document(
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
    parameters: int | None,
    tensors: Iterable[tuple[str, str, tuple[int, ...]]],
    located: Located | None,
) -> dict[str, Any]:
    """Return the document, with what only the values of the weights can tell left open (None)."""
    listed = _tensor_list(tensors)
    outline = located.outline if located else None
    trp = located.manifest.trp if located and located.manifest else None
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
        "sites": _replica_sites(_Known(sites, depth)),
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


def _replica_sites(known: _Known) -> dict[str, Any]:
    """Return where each kind of replica attaches and what it would cost by its defaults, by the kind's name."""
    found: dict[str, Any] = {}
    for name, kind in kinds().items():
        if not kind.control:
            with suppress(ArchitectureError):
                # By `model_construct`, as what checks settings takes longer to make than all sites to be described.
                found[name] = kind.model_construct().site_summary(known)
    return found


def _common(values: Iterable[_T]) -> _T | None:
    """Return the value that all of them are; None where they differ, or there is none."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def _tensor_list(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> list[dict[str, Any]]:
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


def _ungraftable(match: Match) -> ArchitectureError | None:
    """Return why the head that is there can't be grafted; None where there is none."""
    entry, own = match.entry, match.unexpected
    if match.classes or not entry.heads:
        return ArchitectureError(f"{entry.name} can't be grafted: {entry.refusal}")
    if not own:
        return None
    return ArchitectureError(
        f"{entry.name} has a head of its own ({', '.join(own[:3])}{', ...' if len(own) > 3 else ''}) here",
        hint=f"{_NEW_HEAD}; with its own it can be grafted in Python",
    )


def _nothing_to_graft_at(name: str) -> str:
    return f"{name} has no head here, so there is nothing to graft at: {_NEW_HEAD}"


def _failure(error: SurgeonError) -> dict[str, Any]:
    said = {"kind": error.kind, "code": error.code, "message": error.message, "hint": error.hint}
    return {"error": said, "exit_code": error.exit_code}


def _check_folder(located: Located) -> None:
    """Compare the weights of a grafted folder or a run with their hashes, as whoever goes on from here will."""
    if located.manifest is not None and located.folder is not None:
        read_grafted_folder(located.folder)


def _quantized(tensors: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the dtypes of weights that are no floating-point numbers of 16 bits or more."""
    weights = (tensor["dtype"] for tensor in tensors if tensor["key"].endswith(".weight"))
    return sorted({dtype for dtype in weights if dtype not in ("F16", "BF16", "F32", "F64")})


def _next_command(document: dict[str, Any], options: dict[str, str | None]) -> str:
    """Return the command that goes on from here, with the `options` that opened the model (None: not given)."""
    if document["non_finite"]:
        return "nothing: weights with NaN or infinity can't be retrained"
    given = [
        f"{option} {quote(value) if value else ''}".strip() for option, value in options.items() if value is not None
    ]
    model = " ".join([quote(document["source"]), *given])
    candidates, fits = document["candidates"], document["parameters"] is not None
    if document["architecture"] is None and fits and len(candidates) == 1:  # several models of it in one file
        return f"spgsurgeon inspect {model} --weights NAME"
    if document["architecture"] is None and (options["--arch"] or not candidates):
        return "nothing: it is not known what it is"
    if document["architecture"] is None:
        return f"spgsurgeon inspect {model} --arch {candidates[0]}"
    if document["head"] is None:
        return f"spgsurgeon graft {model} --num-classes N -o grafted/"
    if document["format"] == "run":
        return f"spgsurgeon strip {quote(document['source'])} -o better/"
    if document["grafted"]:
        return f"spgsurgeon train {model} --recipe RECIPE -o RUN/"
    return f"spgsurgeon graft {model} -o grafted/"
