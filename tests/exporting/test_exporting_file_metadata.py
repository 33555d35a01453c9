import json
from pathlib import Path

from spgsurgeon.exporting.file_metadata import file_metadata
from spgsurgeon.models.preprocessing import Preprocessing
from spgsurgeon.models.sound_preprocessing import SoundPreprocessing
from spgsurgeon.models.text_preprocessing import TextPreprocessing

CONFIG = {"architecture": "test_resnet"}


def test_what_is_known_is_said() -> None:
    asked = Preprocessing((3, 48, 40), crop_mode="squash", test_input_size=(3, 64, 64))
    found = file_metadata("timm/test_resnet", "ab" * 32, CONFIG, asked, ["ä", "b"], "mit")
    assert json.loads(found["class_names"]) == ["ä", "b"]
    assert json.loads(found["config.json"]) == CONFIG
    preprocessing = json.loads(found["preprocessing"])
    assert preprocessing["input_size"] == [3, 48, 40]
    assert (preprocessing["crop_mode"], preprocessing["mean"]) == ("squash", [0.485, 0.456, 0.406])
    assert not any(key.startswith("test_") for key in preprocessing)
    assert (found["architecture"], found["content_hash"], found["license"]) == ("timm/test_resnet", "ab" * 32, "mit")


def test_how_texts_and_sounds_are_read_is_said_without_a_path_of_this_machine() -> None:
    texts = TextPreprocessing(Path("/home/somebody/tokenizer.json"), max_length=128, pad=0, segments=True)
    sounds = SoundPreprocessing(16_000, 400, 400, normalizes=True, masks=False)
    found = [file_metadata("transformers/A", "ab", CONFIG, one, None, None)["preprocessing"] for one in (texts, sounds)]
    assert json.loads(found[0]) == {"max_length": 128, "pad": 0, "segments": True}
    assert json.loads(found[1])["rate"] == 16_000
    assert "home" not in "".join(found)


def test_what_is_not_known_is_left_out() -> None:
    found = file_metadata("timm/test_resnet", "ab", CONFIG, None, None, None)
    assert {"class_names", "license", "preprocessing"}.isdisjoint(found)
