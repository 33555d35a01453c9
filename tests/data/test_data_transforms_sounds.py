"""From sound files to batches: what transformers' extractors make of them, what is resampled, cut and filled up."""

import pickle

import numpy as np
import pytest
import torch
from tiny_sounds import RATE, hearer, tone, written

from spgsurgeon.data.loading.samples import Loaded
from spgsurgeon.data.sources.sounds.recording import Recording
from spgsurgeon.data.sources.traits import Traits
from spgsurgeon.data.transforms.sounds import LabelledSoundTransform, resampled, sound_padding
from spgsurgeon.data.transforms.texts import batches_padded
from spgsurgeon.errors import ArchitectureError, DamagedFileError, DataError, UsageError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest

WAVES, LAYER = "Wav2Vec2ForSequenceClassification", {"feat_extract_norm": "layer"}


def preprocessing_of(folder, *arguments, **fields):
    return open_model(ModelRequest(str(hearer(folder / "model", *arguments, **fields)))).preprocessing


def recording(folder, samples, rate=RATE) -> Recording:
    return Recording(written(folder / "x.wav", samples, rate, subtype="FLOAT"))


@pytest.mark.parametrize("name", [WAVES, "ASTForAudioClassification"])
@pytest.mark.parametrize("normalizes", [True, False])
@pytest.mark.parametrize("seconds", [0.2, 0.7])
def test_a_sound_is_what_transformers_makes_of_it(tmp_path, name, normalizes, seconds) -> None:
    from transformers import AutoFeatureExtractor

    preprocessing = preprocessing_of(tmp_path, name, {"do_normalize": normalizes})
    samples = np.random.default_rng(0).standard_normal(int(RATE * seconds)).astype(np.float32) / 8 + 0.1
    made = LabelledSoundTransform(preprocessing)(recording(tmp_path, samples))
    theirs = AutoFeatureExtractor.from_pretrained(str(tmp_path / "model"))
    expected = theirs(samples, sampling_rate=RATE, return_tensors="np")["input_values"][0]
    assert np.array_equal(made.inputs["input_values"].numpy(), expected)
    assert made.traits == (Traits.CUT if seconds == 0.7 and name != WAVES else Traits(0))


def test_a_batch_with_a_mask_is_what_transformers_makes_of_it(tmp_path) -> None:
    from transformers import AutoFeatureExtractor

    preprocessing = preprocessing_of(tmp_path, WAVES, {"return_attention_mask": True}, **LAYER)
    sounds = [tone(label, label) for label in range(2)]
    transform = LabelledSoundTransform(preprocessing)
    made = [transform(recording(tmp_path, samples)).inputs for samples in sounds]
    (batch,) = batches_padded(sound_padding(preprocessing))([Loaded(one, n, n) for n, one in enumerate(made)])
    theirs = AutoFeatureExtractor.from_pretrained(str(tmp_path / "model"))
    expected = theirs(sounds, sampling_rate=RATE, padding=True, return_tensors="pt")
    assert batch.inputs.keys() == {"input_values", "attention_mask"}
    assert torch.equal(batch.inputs["attention_mask"], expected["attention_mask"].long())
    assert torch.equal(batch.inputs["input_values"], expected["input_values"])


def test_models_normalised_by_group_get_no_mask(tmp_path) -> None:
    made = LabelledSoundTransform(preprocessing_of(tmp_path))(recording(tmp_path, tone(0, 0)))
    assert made.inputs.keys() == {"input_values"}


def test_another_rate_is_resampled_and_counted(tmp_path) -> None:
    preprocessing = preprocessing_of(tmp_path, WAVES, {"do_normalize": False})
    time = np.arange(8000) / 8000
    made = LabelledSoundTransform(preprocessing)(recording(tmp_path, np.sin(2 * np.pi * 440 * time) / 2, 8000))
    assert made.traits == Traits.RESAMPLED
    found = made.inputs["input_values"].numpy()
    assert found.shape == (16000,)
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000) / 2
    assert np.abs(found - expected)[100:-100].max() < 2e-3


def test_what_is_above_half_the_rate_is_filtered_out() -> None:
    high = np.sin(2 * np.pi * 15_000 / 48_000 * np.arange(48_000)).astype(np.float32)
    found = resampled(high, 48_000, 16_000)
    assert found.dtype == np.float32
    assert np.abs(found[200:-200]).max() < 0.02


def test_a_long_sound_is_cut_and_said_or_refused(tmp_path) -> None:
    preprocessing = preprocessing_of(tmp_path)
    sound = recording(tmp_path, tone(0, 0))
    made = LabelledSoundTransform(preprocessing.limited(None, 0.1))(sound)
    assert (made.inputs["input_values"].shape, made.traits) == ((1600,), Traits.CUT)
    with pytest.raises(DataError, match=r"more than 0\.1 seconds"):
        LabelledSoundTransform(preprocessing.limited(None, 0.1, stops=True))(sound)
    for refused in ((5, None), (None, 1e-4)):
        with pytest.raises(UsageError):
            preprocessing.limited(*refused)
    spectrogram = preprocessing_of(tmp_path / "other", "ASTForAudioClassification")
    with pytest.raises(UsageError) as caught:
        spectrogram.limited(None, 1.0)
    assert caught.value.code == "too-long"


def test_hours_are_not_read_unless_asked_for(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("spgsurgeon.data.transforms.sounds._LONGEST", 0.1)
    with pytest.raises(DataError) as caught:
        LabelledSoundTransform(preprocessing_of(tmp_path))(recording(tmp_path, tone(0, 0)))
    assert "data.max_seconds" in (caught.value.hint or "")


def test_a_short_sound_is_refused_or_filled_up_to_train(tmp_path) -> None:
    preprocessing = preprocessing_of(tmp_path, **LAYER, mask_time_prob=0.5)
    assert (preprocessing.shortest, preprocessing.shortest_to_train) == (320, 960)
    with pytest.raises(DataError, match="too short"):
        LabelledSoundTransform(preprocessing)(recording(tmp_path, np.ones(319)))
    made = LabelledSoundTransform(preprocessing, trains=True)(recording(tmp_path, tone(0, 0)[:500])).inputs
    assert made["input_values"].shape == (960,)
    assert made["attention_mask"].tolist() == [1] * 500 + [0] * 460
    module = open_model(ModelRequest(str(tmp_path / "model"))).module.train()
    assert module(**{name: value[None] for name, value in made.items()}).logits.isfinite().all()


def test_transforms_go_to_other_processes(tmp_path) -> None:
    transform = LabelledSoundTransform(preprocessing_of(tmp_path, "ASTForAudioClassification"))
    sound = recording(tmp_path, tone(0, 0))
    expected = transform(sound).inputs["input_values"]
    assert torch.equal(pickle.loads(pickle.dumps(transform))(sound).inputs["input_values"], expected)


@pytest.mark.parametrize(
    ("name", "says", "error"),
    [
        (WAVES, {"sampling_rate": "16000"}, DamagedFileError),
        (WAVES, {"sampling_rate": None}, DamagedFileError),
        (WAVES, {"sampling_rate": 10**9}, DamagedFileError),
        (WAVES, {"do_normalize": 1}, DamagedFileError),
        (WAVES, {"feature_size": 2}, ArchitectureError),
        (WAVES, {"padding_side": "left"}, ArchitectureError),
        (WAVES, {"feature_extractor_type": "WhisperFeatureExtractor"}, ArchitectureError),
        ("ASTForAudioClassification", {"std": 0}, DamagedFileError),
        ("ASTForAudioClassification", {"num_mel_bins": 64}, ArchitectureError),
        ("ASTForAudioClassification", {"sampling_rate": 8000}, ArchitectureError),
    ],
)
def test_what_a_file_says_is_looked_through(tmp_path, name, says, error) -> None:
    with pytest.raises(error):
        _ = preprocessing_of(tmp_path, name, says)
