"""Which architecture weights belong to: by what the user or the file says, else by their keys and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spgsurgeon.checkpoint import CONFIG, TensorSpec
from spgsurgeon.errors import ArchitectureError, UsageError
from spgsurgeon.loading.describing import SHARD, passed_over
from spgsurgeon.loading.locating import Located
from spgsurgeon.loading.manifests import check_manifest_of
from spgsurgeon.models import LIBRARIES, Identification, Match, catalogue, identify

_LISTED = 8
_CLASSIFIERS = ("head.fc", "head.layers.head", "cls_head.fc")  # of mmpretrain, beside its `backbone.`
_PARALLEL = ".module."  # DataParallel around a part of a model; some architectures have modules of that name themselves


@dataclass(frozen=True)
class Recognition:
    """What weights can be.

    `entries` are the model's tensors by its own keys, all of the file's where nothing fits; `prefixes` what was taken
    out of the keys for that. `said` is the name that somebody gave the weights, as it was spelt, and `by` who did.
    """

    fits: Identification
    entries: dict[str, TensorSpec]
    prefixes: tuple[str, ...]
    said: str | None = None
    by: str | None = None
    notes: tuple[str, ...] = ()
    """What was done to keys beyond taking prefixes out of them, to be said aloud."""

    @property
    def match(self) -> Match | None:
        """The one architecture whose keys and shapes these are; None if there is none, or several."""
        return self.fits.matches[0] if len(self.fits.matches) == 1 else None


def recognize(located: Located, arch: str | None = None) -> Recognition:
    """Return what the located weights can be. `arch` (`timm/resnet50` or `resnet50`) goes before what the file says.

    Keys and shapes alone are looked at, in the catalogue, so nothing heavy is imported; only an architecture that is
    named, and newer than the catalogue, is built. Raises UsageError if a `config.json` leaves
    nothing for `arch` to say, ArchitectureError where it is of another library, and UnsafeInputError where the weights
    or what lies beside them would hand a library more than what shapes a model.
    """
    _check_arguments(located)
    if located.config is not None:
        _check_config(located.config)
        if arch is not None:
            raise UsageError(f"--arch is for weights that don't say what they are; {located.source} has a {CONFIG}")
    said, by = _said(located, arch)
    library, architecture = _parts(said)
    fits, entries, prefixes = _identify(located, library, architecture)
    fits, entries, notes = _with_classifier(fits, entries, library, architecture)
    if fits.matches:
        entries = _under_prefix(entries, fits.matches[0])
        prefixes = (*prefixes, *filter(None, [fits.matches[0].prefix]))
    if arch is not None and located.kind == "file":
        notes = (*notes, *passed_over(located.outline))
    return Recognition(fits, entries, prefixes, said, by, notes)


def _identify(
    located: Located, library: str | None, architecture: str | None
) -> tuple[Identification, dict[str, TensorSpec], tuple[str, ...]]:
    """Return what the weights fit, under which keys, and what was taken out of the keys for that."""

    def fits(entries: Mapping[str, TensorSpec]) -> Identification:
        shapes = {key: spec.shape for key, spec in entries.items()}
        return identify(shapes, library=library, architecture=architecture)

    outline = located.outline
    found = _with_own_head(fits(outline.entries))
    bare = {key.replace(_PARALLEL, "."): spec for key, spec in outline.entries.items()}
    if not found.matches and bare.keys() != outline.entries.keys() and len(bare) == len(outline.entries):
        again = _with_own_head(fits(bare))
        if again.matches:
            return again, bare, (*outline.prefixes, _PARALLEL[1:])
    return found, dict(outline.entries), outline.prefixes


def _with_classifier(
    fits: Identification, entries: dict[str, TensorSpec], library: str | None, architecture: str | None
) -> tuple[Identification, dict[str, TensorSpec], tuple[str, ...]]:
    """Take what a script saved beside its backbone for the model's classifier, if it is one by its name and shapes."""
    match = next((match for match in fits.matches if match.headless and match.prefix), None)
    if match is None or len(match.entry.head_keys) != 2:
        return fits, entries, ()
    for place in _CLASSIFIERS:
        theirs = {f"{place}.{key.rpartition('.')[2]}": f"{match.prefix}{key}" for key in match.entry.head_keys}
        if not theirs.keys() <= entries.keys():
            continue
        whole = {theirs.get(key, key): spec for key, spec in entries.items()}
        again = identify({key: spec.shape for key, spec in whole.items()}, library=library, architecture=architecture)
        if again.matches and not any(found.headless for found in again.matches):
            return again, whole, (f"{place} is taken for the classifier of the model under {match.prefix!r}",)
    return fits, entries, ()


def _with_own_head(fits: Identification) -> Identification:
    """Take for matches what is complete but for its classifier, where the file has one of its own in its place."""

    def own(match: Match) -> bool:
        places = {f"{match.prefix}{key.partition('.')[0]}." for key in match.entry.head_keys}
        return match.headless and all(key.startswith(tuple(places)) for key in match.unexpected)

    found = [match for match in fits.nearest if own(match)]
    most = max((match.fitting for match in found), default=0)
    matches = tuple(match for match in found if match.fitting == most)
    return Identification(matches, ()) if matches and not fits.matches else fits


def _under_prefix(entries: Mapping[str, TensorSpec], match: Match) -> dict[str, TensorSpec]:
    """Return the entries that are the model's, under the model's own keys."""
    start, outside = len(match.prefix), set(match.unexpected)
    return {key[start:]: spec for key, spec in entries.items() if key not in outside}


def refusal(located: Located, recognition: Recognition) -> ArchitectureError:
    """Return why no architecture is chosen for weights that do not say theirs."""
    name, matches = located.outline.path.name, recognition.fits.matches
    if copies := sorted({match.prefix for match in matches if match.prefix != matches[0].prefix}):
        places = [place.removesuffix(".") for place in (matches[0].prefix, *copies)]
        return ArchitectureError(
            f"{name} holds several models: under {', '.join(places)}",
            hint=f"--weights {places[0]} reads that one",
            candidates=list(dict.fromkeys(match.entry.name for match in matches)),
        )
    if matches:
        names = [match.entry.name for match in matches]
        each = " ".join(f"--arch {one}" for one in names[:_LISTED])
        return ArchitectureError(
            f"{name} fits {len(names)} architectures alike, by its keys and shapes: {_few(names)}",
            hint="say which it is with --arch: `spgsurgeon inspect` says what differs between them, and `spgsurgeon "
            f"eval {located.source} {each} --data DATA` scores each",
            candidates=names,
        )
    if SHARD.search(name):
        return ArchitectureError(
            f"{name} is one of several shards", hint="give their folder, or the .index.json beside them", candidates=[]
        )
    nearest = recognition.fits.nearest
    lines = [f"{match.entry.name}: {match.evidence}" for match in nearest]
    if new := recognition.fits.newcomers:
        lines.append(f"not compared, as the libraries here are newer than the catalogue: {_few(list(new))}")
    return ArchitectureError(
        f"{name} holds {len(located.outline.entries)} tensors, which fit no architecture of timm or torchvision"
        + ("; the nearest are\n" if nearest else "\n" if lines else "")
        + "\n".join(lines),
        hint="--arch timm/NAME or torchvision/NAME says which it is; models of transformers come as a folder with a "
        f"{CONFIG}; other libraries are not supported",
        candidates=[match.entry.name for match in nearest],
    )


def _said(located: Located, arch: str | None) -> tuple[str | None, str | None]:
    if arch is not None:
        return arch, "--arch"
    if located.config is not None:
        name = _text(located.config, "architecture") or _text(
            located.config.get("pretrained_cfg") or {}, "architecture"
        )
        return (f"{located.config.get('library', 'timm')}/{name}" if name else None), CONFIG
    outline = located.outline
    if outline.architecture is None:
        return None, None
    library = _library_of(outline.library, outline.architecture)
    return (f"{library}/{outline.architecture}" if library else outline.architecture), "the file"


def _library_of(suggested: str | None, architecture: str) -> str | None:
    """Return the library that a file's layout suggests, unless only another one has the architecture."""
    names = zip(catalogue().column("library"), catalogue().column("architecture"), strict=True)
    owners = {library for library, name in names if name == architecture.partition(".")[0]}
    return suggested if suggested in owners or not owners else None


def _check_arguments(located: Located) -> None:
    """Check what documents and weights say of the model, whether or not anything is built by it."""
    outline = located.outline
    documents = (located.config, located.manifest, outline.model_args)
    if not any(documents):
        return
    from spgsurgeon.models import check_config, check_training_arguments

    if located.config is not None:
        largest = max((side for spec in outline.entries.values() for side in spec.shape), default=0)
        check_config(located.config, largest, located.described_in)
    check_manifest_of(located)
    check_training_arguments(outline.model_args, str(outline.path))


def _check_config(config: Mapping[str, Any]) -> None:
    """Refuse a `config.json` that is neither timm's, nor transformers' for a timm model, nor ours for torchvision's."""
    owner = config.get("library", "timm")
    if owner not in LIBRARIES:
        raise ArchitectureError(f"{CONFIG} is of the library {owner!r}; models of {', '.join(LIBRARIES)} are supported")


def _parts(said: str | None) -> tuple[str | None, str | None]:
    """Return the library and the architecture of a name, without the tag of weights."""
    if said is None:
        return None, None
    library, slash, name = said.replace(":", "/", 1).rpartition("/")
    return ("torchvision" if library == "tv" else library) if slash else None, name.partition(".")[0]


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) and value else None


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
