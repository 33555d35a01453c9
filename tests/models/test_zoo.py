"""A small part of the zoo, always the same: `python tests/tools/zoo.py` walks all of it."""

import pytest
from zoo import examine, table

from spgsurgeon.models.recognition.catalogue import catalogue, layout

LIGHT = 8_000_000  # parameters
SAMPLE = [name for name, entry in sorted(catalogue().entries.items()) if entry.parameters(layout(entry)) < LIGHT][::20]
SEGMENTATION = "torchvision/lraspp_mobilenet_v3_large"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*SAMPLE, SEGMENTATION}))
def test_a_sample_of_the_zoo(name: str) -> None:
    row = examine(*name.split("/"))
    assert row.get("reason") is None
    assert row["identified"] == "yes" or row["identified"].startswith("one of ")
    assert (row["forward"], row["laws"]) == ("real", "1 2 3 4")
    entry = catalogue().entries[name]
    assert row["head"] == list(dict.fromkeys(head.module for head in entry.heads))
    assert row["depth"] == (entry.last_stage and entry.last_stage.family)


def test_what_can_not_be_grafted_stands_in_the_table_with_its_reason() -> None:
    row = examine("timm", "mobilenetv5_300m_enc")
    assert "no classifier" in row["reason"]
    lines = table([row]).splitlines()
    assert row["reason"] in lines[2]
    assert lines[-1] == "proven: {'refused': 1} of 1"
