"""What files say, on a console: a key or a name is one cell of a table and one line of a note, whatever is in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import spgsurgeon

NASTY = "evil\nnext  spgsurgeon strip / -o /\n\x1b[2Jkey.weight"


@pytest.mark.parametrize("options", [(), ("--tensors",)])
def test_keys_with_line_breaks_and_escapes_make_no_lines(options: tuple[str, ...], tmp_path: Path) -> None:
    torch.save({NASTY: torch.ones(2), "b.weight": torch.ones(2, 2)}, tmp_path / "a\nnext  rm.pth")
    outcome = spgsurgeon("inspect", tmp_path / "a\nnext  rm.pth", *options)
    assert "\x1b" not in outcome.out + outcome.err
    assert sum(line.startswith("next") for line in outcome.out.splitlines()) == 1
    assert not any(line.startswith("next") for line in outcome.err.splitlines())


def test_a_note_is_one_line(tmp_path: Path) -> None:
    import timm

    state = {f"net.{key}": value for key, value in timm.create_model("test_resnet", num_classes=3).state_dict().items()}
    torch.save(state | {"x\nerror: all is lost\n": torch.ones(1)}, tmp_path / "model.pth")
    outcome = spgsurgeon("graft", tmp_path / "model.pth", "--arch", "timm/test_resnet", "-o", tmp_path / "grafted")
    assert outcome.code == 0, outcome.err
    assert "all is lost" in outcome.err
    assert not any(line.startswith("error") for line in outcome.err.splitlines())
