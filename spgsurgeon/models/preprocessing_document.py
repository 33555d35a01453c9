"""How a model wants its samples as a document that an exported file carries, and back again, read as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spgsurgeon.errors import DamagedFileError, UsageError
from spgsurgeon.models.libraries.arguments import checked_preprocessing
from spgsurgeon.models.preprocessing import Preprocessing
from spgsurgeon.models.sample_preprocessing import SamplePreprocessing
from spgsurgeon.models.sound_preprocessing import SoundPreprocessing, Spectrogram
from spgsurgeon.models.text_preprocessing import TOKENIZER_FILE, TextPreprocessing

_UNSAID = ("file", "stops_at_longer", "mlm_probability", "test_input_size", "test_crop_pct")


def preprocessing_document(preprocessing: SamplePreprocessing) -> dict[str, Any]:
    """Return what happens to a sample before a model sees it, as plain data: of a tokenizer all but its file."""
    found = asdict(preprocessing)
    return {key: value for key, value in found.items() if key not in _UNSAID and value is not None}


def known_preprocessing(document: Mapping[str, Any], folder: Path, place: str) -> SamplePreprocessing:
    """Return what such a document at `place` says; a tokenizer lies in `folder`.

    Raises UnsafeInputError for a key that is not known, DamagedFileError for a value that is missing, of another type
    or out of bounds, and UsageError if there is no tokenizer.
    """
    said = checked_preprocessing(document, place)
    try:
        if "rate" in said:
            return SoundPreprocessing(**said | {"spectrogram": _spectrogram(said.get("spectrogram"))})
        if "pad" in said:
            return TextPreprocessing(file=_tokenizer(folder, place), **said)
        return Preprocessing(**_tuples(said))
    except TypeError as error:
        raise DamagedFileError(f"{place} is damaged: it does not say all of how samples are prepared") from error


def _tuples(said: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}


def _spectrogram(said: Mapping[str, Any] | None) -> Spectrogram | None:
    return None if said is None else Spectrogram(**said)


def _tokenizer(folder: Path, place: str) -> Path:
    file = folder / TOKENIZER_FILE
    if not file.is_file():
        raise UsageError(
            f"{place} reads texts, and no {TOKENIZER_FILE} lies beside it",
            hint="copy it from the model's folder",
            code="missing-tokenizer",
        )
    return file
