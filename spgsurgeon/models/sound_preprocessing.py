"""How a model of sounds wants them: at which rate, how normalised, as waves or as a spectrogram.

Shapes: n samples of a sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spgsurgeon.errors import UsageError
from spgsurgeon.models.preprocessor_file import PreprocessorFile, preprocessor_file
from spgsurgeon.models.sites.transformers_heads import Head

_WAVES, _SPECTROGRAM = "Wav2Vec2FeatureExtractor", "ASTFeatureExtractor"
_WINDOW, _HOP, _RATE = 400, 160, 16_000  # samples of a spectrogram's frame, and from one to the next, at its only rate


@dataclass(frozen=True)
class Spectrogram:
    """A model's spectrogram, [`frames`, `bins`]: log mel, shifted by `mean` and divided by twice `std`, or as it is."""

    frames: int
    bins: int
    normalizes: bool
    mean: float
    std: float


@dataclass(frozen=True)
class SoundPreprocessing:
    """What happens to a sound before the model sees it, at `rate` samples a second.

    It needs `shortest` samples, and `shortest_to_train` so that parts of it can be masked in training, up to which it
    is filled with silence. `normalizes`: each sound by its own mean and variance. `masks`: the model is told where the
    sounds of a batch end, which are filled up with zeros in any case.
    """

    rate: int
    shortest: int
    shortest_to_train: int
    normalizes: bool
    masks: bool
    spectrogram: Spectrogram | None = None
    max_seconds: float | None = None
    """The most that is read of a sound; None: all of it."""
    stops_at_longer: bool = False
    """Whether a longer sound is refused instead of cut."""

    def at(self, image_size: int | None) -> SoundPreprocessing:
        """Return the same preprocessing. Raises UsageError for an image size, which sounds don't have."""
        if image_size is not None:
            raise UsageError("an image size is for models of images, and this one hears sounds", hint="leave it out")
        return self

    def limited(
        self, max_length: int | None, max_seconds: float | None = None, *, stops: bool = False
    ) -> SoundPreprocessing:
        """Return the same with at most so many seconds of a sound (None: as many as the model takes).

        Raises UsageError for more than the model takes, less than it needs, and for a number of tokens.
        """
        if max_length is not None:
            raise UsageError("a number of tokens is for models of texts, not of sounds", hint="leave it out")
        shortest = max(self.shortest, self.shortest_to_train) / self.rate
        if max_seconds is not None and not shortest <= max_seconds <= (self.max_seconds or max_seconds):
            most = f" to {self.max_seconds:g}" if self.max_seconds else " or more"
            raise UsageError(
                f"the model takes {shortest:g}{most} seconds (got {max_seconds:g})",
                hint="data.max_seconds (eval: --max-seconds) says how much of a sound is read",
                code="too-long",
            )
        return replace(self, max_seconds=max_seconds or self.max_seconds, stops_at_longer=stops)


def sound_preprocessing(head: Head, config: Any, companions: Sequence[Path], name: str) -> SoundPreprocessing:
    """Return how a model of this class and transformers `config` wants its sounds; `companions` lie beside its weights.

    Raises UsageError if no preprocessor_config.json is among them, ArchitectureError for what is not reproduced here.
    """
    file = preprocessor_file(companions, name, "how it wants its sounds")
    for key, value in (("feature_size", 1), ("padding_value", 0), ("padding_side", "right")):
        file.must_be(key, value)
    return (_spectrogram if head.family.modality == "spectrogram" else _waves)(file, config)


def _waves(file: PreprocessorFile, config: Any) -> SoundPreprocessing:
    file.must_be("feature_extractor_type", _WAVES)
    masked = config.mask_time_length if config.apply_spec_augment and config.mask_time_prob > 0 else 1
    return SoundPreprocessing(
        rate=file.whole("sampling_rate", None, 4_000, 192_000),
        shortest=_samples_of(1, config),
        shortest_to_train=_samples_of(masked, config),
        normalizes=file.flag("do_normalize", True),
        masks=hears_masks(config),
    )


def hears_masks(config: Any) -> bool:
    """Return whether a model of waves is told where they end; others were trained without, whatever files say."""
    return bool(config.feat_extract_norm == "layer")


def _samples_of(frames: int, config: Any) -> int:
    """Return the fewest samples that a model's convolutions make so many frames of."""
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        frames = (frames - 1) * stride + kernel
    return frames


def _spectrogram(file: PreprocessorFile, config: Any) -> SoundPreprocessing:
    file.must_be("feature_extractor_type", _SPECTROGRAM)
    file.must_be("sampling_rate", _RATE)
    frames, bins = config.max_length, config.num_mel_bins
    file.must_be("max_length", frames)  # the model has positions for these
    file.must_be("num_mel_bins", bins)
    return SoundPreprocessing(
        rate=_RATE,
        shortest=_WINDOW,
        shortest_to_train=_WINDOW,
        normalizes=False,
        masks=False,
        spectrogram=Spectrogram(
            frames=frames,
            bins=bins,
            normalizes=file.flag("do_normalize", True),
            mean=file.number("mean", -4.2677393, -1e6, 1e6),
            std=file.number("std", 4.5689974, 1e-6, 1e6),
        ),
        max_seconds=((frames - 1) * _HOP + _WINDOW) / _RATE,
    )
