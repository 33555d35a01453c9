"""Tiny sound files, high tones and low ones, and models that hear them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_transformers import saved, tiny

RATE = 16_000
WAVES = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "padding_side": "right"} | {
    "padding_value": 0.0,
    "return_attention_mask": False,
    "sampling_rate": RATE,
    "do_normalize": True,
}
SPECTROGRAM = WAVES | {
    "feature_extractor_type": "ASTFeatureExtractor",
    "max_length": 40,
    "num_mel_bins": 32,
    "mean": -4.0,
    "std": 3.0,
}


def tone(label: int, seed: int, rate: int = RATE) -> NDArray[np.float32]:
    """Return some tenths of a second of a low tone or of a high one (label 1), with noise."""
    drawn = np.random.default_rng(seed)
    length = int(rate * drawn.uniform(0.2, 0.4))
    pitch = (1500 if label else 200) * drawn.uniform(0.9, 1.1)
    wave = np.sin(2 * np.pi * pitch / rate * np.arange(length) + drawn.uniform(0, 6))
    return (0.3 * wave + 0.05 * drawn.standard_normal(length)).astype(np.float32)


def written(path: Path, samples: Any, rate: int = RATE, **options: Any) -> Path:
    """Write a sound file; skip the test if soundfile is not installed."""
    soundfile = pytest.importorskip("soundfile")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return path


def tones_table(folder: Path, train: int = 24, dev: int = 12, rate: int = RATE) -> Path:
    """Write tones and the tables of their paths, `train.tsv` and `dev.tsv`; return their folder."""
    for start, (split, count) in zip((0, 1000), (("train", train), ("dev", dev)), strict=True):
        lines = ["file\tlabel"]
        for number in range(count):
            name = f"recordings/{split}{number}.wav"
            written(folder / name, tone(number % 2, start + number, rate), rate)
            lines.append(f"{name}\t{('low', 'high')[number % 2]}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def hearer(folder: Path, name: str = "Wav2Vec2ForSequenceClassification", says: Any = None, **fields: Any) -> Path:
    """Write a tiny model of sounds with its preprocessor_config.json, in which `says` replaces values."""
    saved(tiny(name, **fields), folder)
    document = (SPECTROGRAM if name.startswith("AST") else WAVES) | (says or {})
    (folder / "preprocessor_config.json").write_text(json.dumps(document))
    return folder
