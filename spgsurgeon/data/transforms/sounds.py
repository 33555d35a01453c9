"""From sound files to a model's numbers: at its rate, cut, normalised, as waves or as a spectrogram.

Shapes: n samples of a sound.
"""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spgsurgeon.data.loading.samples import Prepared
from spgsurgeon.data.sources.sounds.recording import Recording, Sound
from spgsurgeon.data.sources.traits import Traits
from spgsurgeon.data.transforms.texts import Padding
from spgsurgeon.errors import DataError
from spgsurgeon.models import SoundPreprocessing

_VALUES, _MASK = "input_values", "attention_mask"
_LONGEST = 600.0  # seconds, unless somebody says how many are read: a small file can hold hours of silence


class LabelledSoundTransform:
    """Makes the inputs of a sound file. `trains`: up to what masking in training needs, silence is added."""

    def __init__(self, preprocessing: SoundPreprocessing, *, trains: bool = False) -> None:
        self._preprocessing = preprocessing
        self._least = preprocessing.shortest_to_train if trains else 0
        self._extractor: Any = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_extractor": None}

    def __call__(self, recording: Recording) -> Prepared:
        """Return the values, float32 [n] or [frames, bins], with a mask, int64 [n], if the model is given one.

        Raises DataError for a sound that can't be read, is too short for the model, or longer if that is refused.
        """
        preprocessing = self._preprocessing
        sound = recording.read(preprocessing.max_seconds or _LONGEST)
        traits = self._said_of_length(sound)
        if sound.rate != preprocessing.rate:
            traits |= Traits.RESAMPLED
        values = resampled(sound.samples, sound.rate, preprocessing.rate)
        if len(values) < preprocessing.shortest:
            raise DataError(f"it is too short: {len(values)} samples, and the model needs {preprocessing.shortest}")
        return Prepared(self._inputs(values), traits=traits)

    def _said_of_length(self, sound: Sound) -> Traits:
        if not sound.goes_on:
            return Traits(0)
        if self._preprocessing.max_seconds is None:
            raise DataError(
                f"it lasts more than {_LONGEST:g} seconds", hint="data.max_seconds says how many of them are read"
            )
        if self._preprocessing.stops_at_longer:
            raise DataError(
                f"it lasts more than {self._preprocessing.max_seconds:g} seconds",
                hint="data.too_long=cut reads the first ones, counted and said",
            )
        return Traits.CUT

    def _inputs(self, values: NDArray[np.float32]) -> dict[str, torch.Tensor]:
        if self._preprocessing.spectrogram is not None:
            return {_VALUES: torch.from_numpy(self._spectrogram(values))}
        if self._preprocessing.normalizes:
            values = (values - values.mean()) / np.sqrt(values.var() + 1e-7)  # as transformers has it
        length = max(len(values), self._least)
        filled = np.zeros(length, dtype=np.float32)
        filled[: len(values)] = values
        inputs = {_VALUES: torch.from_numpy(filled)}
        if self._preprocessing.masks:
            inputs[_MASK] = (torch.arange(length) < len(values)).long()
        return inputs

    def _spectrogram(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the log mel spectrogram [frames, bins] by transformers' own extractor."""
        wanted = self._preprocessing.spectrogram
        assert wanted is not None
        if self._extractor is None:
            from transformers import ASTFeatureExtractor

            self._extractor = ASTFeatureExtractor(
                sampling_rate=self._preprocessing.rate,
                num_mel_bins=wanted.bins,
                max_length=wanted.frames,
                do_normalize=wanted.normalizes,
                mean=wanted.mean,
                std=wanted.std,
            )
        made = self._extractor(values, sampling_rate=self._preprocessing.rate, return_tensors="np")
        found: NDArray[np.float32] = made[_VALUES][0].astype(np.float32)
        return found


def resampled(samples: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """Return samples at another rate, by a polyphase filter, so that nothing above half of either rate is left."""
    if rate == wanted or not len(samples):
        return samples
    from scipy.signal import resample_poly

    shared = gcd(rate, wanted)
    found: NDArray[np.float32] = resample_poly(samples, wanted // shared, rate // shared).astype(np.float32)
    return found


def sound_padding(preprocessing: SoundPreprocessing) -> Padding:
    """Return what fills up the inputs of a model of sounds."""
    return {_VALUES: 0.0, _MASK: 0}
