import json

from spgsurgeon.exporting.file_metadata import file_metadata
from spgsurgeon.models.preprocessing import Preprocessing


def test_what_is_known_is_said_at_the_size_of_the_graph() -> None:
    asked = Preprocessing((3, 32, 32), crop_mode="squash", test_input_size=(3, 64, 64))
    found = file_metadata("timm/test_resnet", "ab" * 32, asked, (48, 40), ["ä", "b"], "mit")
    assert json.loads(found["class_names"]) == ["ä", "b"]
    preprocessing = json.loads(found["preprocessing"])
    assert preprocessing["input_size"] == [3, 48, 40]
    assert (preprocessing["crop_mode"], preprocessing["mean"]) == ("squash", [0.485, 0.456, 0.406])
    assert not any(key.startswith("test_") for key in preprocessing)
    assert (found["architecture"], found["content_hash"], found["license"]) == ("timm/test_resnet", "ab" * 32, "mit")


def test_what_is_not_known_is_left_out() -> None:
    found = file_metadata("timm/test_resnet", "ab", Preprocessing(), (224, 224), None, None)
    assert {"class_names", "license"}.isdisjoint(found)
