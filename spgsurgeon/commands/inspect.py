"""`spgsurgeon inspect`: what a checkpoint is and where it can be grafted; files and folders are read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from spgsurgeon.checkpoint import hash_and_non_finite_of, read_grafted_folder
from spgsurgeon.commands.inspected import (
    document_of,
    folder_of_transformers,
    nothing_to_graft_at,
    recognized,
    tensor_list,
)
from spgsurgeon.errors import ArchitectureError
from spgsurgeon.loading import Located, ModelRequest, locate, recognize
from spgsurgeon.models import INNER, DepthSite, InnerSite, NamedModel, parse_model
from spgsurgeon.replicas import holds_replicas

if TYPE_CHECKING:
    from spgsurgeon.loading import OpenedModel

_DEQUANTIZE = (
    "quantized weights can't be grafted, trained or scored; dequantize them to float32 with what quantized them"
)
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
    in pixels, see `ModelRequest`. If an architecture can't be told, or a head can't be grafted, nothing is raised: the
    document then has an `error`. Of weights that come without a head the `notes` say so.
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


def describe(
    opened: OpenedModel, known_hash: str | None = None, *, inner: Mapping[str, InnerSite] | None = None
) -> dict[str, Any]:
    """Return what an opened base is, as plain data; `known_hash` is the content hash of weights known to be finite.
    `inner` are the sites of layers in its body, if they were looked for.

    Raises ArchitectureError if it has a head that can't be grafted.
    """
    from spgsurgeon.checkpoint import DTYPE_NAMES, content_hash
    from spgsurgeon.loading import non_finite, state_of

    located, state = opened.located, state_of(opened.module)
    document = document_of(
        source=opened.source,
        format=opened.format,
        producer=located.producer if located else opened.identity.library,
        library=opened.identity.library,
        architecture=opened.identity.architecture,
        candidates=[opened.identity.name],
        task=opened.task_name,
        sites=opened.sites if opened.identity.num_classes else (),
        depth=_depth_site(opened),
        inner=inner or {},
        parameters=sum(p.numel() for p in opened.module.parameters()),
        tensors=[(key, DTYPE_NAMES[value.dtype], tuple(value.shape)) for key, value in state.items()],
        located=located,
    )
    document["content_hash"] = known_hash or content_hash(state)
    document["non_finite"] = [] if known_hash else non_finite(state)
    del document["tensor_list"]
    if inner is None:  # they were not looked for
        del document["sites_unknown"]
    return document


def _depth_site(opened: OpenedModel) -> DepthSite | None:
    try:
        return opened.depth_site
    except ArchitectureError:
        return None


def _inner_sites(opened: OpenedModel) -> dict[str, InnerSite]:
    """Return the sites of layers in the body, which no catalogue knows, by what they are."""
    found = {}
    for what in INNER:
        with suppress(ArchitectureError):
            found[what] = opened.inner_site(what)
    return found


def _inspect_opened(request: ModelRequest) -> dict[str, Any]:
    """Return the document of a model that has to be built to be known."""
    from spgsurgeon.checkpoint import DTYPE_NAMES
    from spgsurgeon.loading import open_model, state_of

    opened = open_model(request)
    listed = [(key, DTYPE_NAMES[value.dtype], tuple(value.shape)) for key, value in state_of(opened.module).items()]
    headless = [] if opened.identity.num_classes else [nothing_to_graft_at(opened.identity.name)]
    document = describe(opened, inner=_inner_sites(opened))
    return document | {"tensor_list": tensor_list(listed), "notes": [*opened.notes, *headless]}


def _inspect_located(path: Path, request: ModelRequest, values: bool | None) -> dict[str, Any] | None:
    """Return the document of weights in a file or folder; None if only building the model can tell what it is."""
    located = locate(path, request.weights, check=False, described=request.arch is None)
    if located.of_transformers and request.arch is None:
        document, entries = folder_of_transformers(located), located.outline.entries
    else:
        recognition = recognize(located, request.arch)
        if (recognition.said is not None and not recognition.fits.matches) or request.image_size or request.map_keys:
            return None
        document, entries = recognized(located, recognition), recognition.entries
    if values or (values is None and sum(spec.nbytes for spec in entries.values()) <= _READ_UNASKED):
        _check_folder(located)
        document["content_hash"], document["non_finite"] = hash_and_non_finite_of(entries)
    return document


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
    if document["architecture"] is None and fits:  # to choose one of several that fit would be a guess
        each = " ".join(f"--arch {name}" for name in candidates)
        return f"spgsurgeon eval {model} {each} --data DATA"
    if document["architecture"] is None:
        return f"spgsurgeon inspect {model} --arch ARCH"
    if document["head"] is None:
        return f"spgsurgeon graft {model} --num-classes N -o grafted/"
    if holds_replicas(document.get("unexpected", [])):
        return f"spgsurgeon strip {model} -o better/"
    if document["format"] == "run":
        return f"spgsurgeon strip {quote(document['source'])} -o better/"
    if document["grafted"]:
        return f"spgsurgeon train {model} --recipe RECIPE -o RUN/"
    return f"spgsurgeon graft {model} -o grafted/"
