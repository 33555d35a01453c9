"""How a model wants its samples, whatever these are."""

from __future__ import annotations

from spgsurgeon.models.preprocessing import Preprocessing
from spgsurgeon.models.sound_preprocessing import SoundPreprocessing
from spgsurgeon.models.text_preprocessing import TextPreprocessing

SamplePreprocessing = Preprocessing | TextPreprocessing | SoundPreprocessing
