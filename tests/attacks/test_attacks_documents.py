"""Documents that say what can't be: each is refused by its file and key, sealed anew as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import fuzz_documents
import pytest
from command_line import spgsurgeon

from spgsurgeon.checkpoint.folders import read_json_object
from spgsurgeon.errors import DamagedFileError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    fuzz_documents.make_shelf(folder)
    return folder


def put(*keys: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        reduce(lambda inside, key: inside[key], keys[:-1], document)[keys[-1]] = value

    return change


CONFIG, GRAFT, STATE = "hub/config.json", "grafted/graft.json", "run/last/state.json"
SAID: dict[str, tuple[str, Callable[[dict[str, Any]], None], str]] = {
    "a crop of nothing": (CONFIG, put("pretrained_cfg", "crop_pct", value=1e-9), "crop_pct"),
    "a size of nothing": (CONFIG, put("pretrained_cfg", "input_size", value=[3, 0, 0]), "input_size"),
    "no spread": (CONFIG, put("pretrained_cfg", "std", value=[0.0] * 3), "std"),
    "a mean out of this world": (CONFIG, put("pretrained_cfg", "mean", value=[1e300] * 3), "mean"),
    "a spread too small": (CONFIG, put("pretrained_cfg", "std", value=[1e-300] * 3), "std"),
    "names that are numbers": (CONFIG, put("label_names", value=[1, 2]), "label_names"),
    "an interpolation": (CONFIG, put("pretrained_cfg", "interpolation", value="guess"), "interpolation"),
    "classes": (CONFIG, put("num_classes", value=-1), "num_classes"),
    "replicas by the million": (GRAFT, put("trp", "replicas", value=3_000_000), "trp.replicas"),
    "replicas that are not there": (GRAFT, put("trp", "replicas", value=900), "temporary.safetensors"),
    "a rate": (GRAFT, put("trp", "rate", value=1e300), "trp.rate"),
    "a kind": (GRAFT, put("trp", "kind", value=["dropout"]), "trp.kind"),
    "a side": (GRAFT, put("site", "side", value="top"), "site.side"),
    "tensors": (GRAFT, put("base", "tensors", value="many"), "base.tensors"),
    "a position": (STATE, put("counters", "batch", value=10**9), "counters.batch"),
    "half a step back": (STATE, put("counters", "step", value=-1), "counters.step"),
    "epochs": (STATE, put("counters", "epoch", value=10**30), "counters.epoch"),
    "scores": (STATE, put("counters", "best", value={"top1": 1e9}), "counters.best"),
    "scores of nothing": (STATE, put("counters", "last", value=[]), "counters.last"),
    "sums": (STATE, put("counters", "statistics", "sums", value=[[0.0], [], []]), "statistics.sums"),
    "classes of an epoch": (STATE, put("counters", "statistics", "by_class", value=[[0]]), "statistics.by_class"),
    "images": (STATE, put("counters", "statistics", "shortest", value=[[1.0, 1e9, 0, 1, 1]]), "statistics.shortest"),
    "a rate that is a word": (STATE, put("optimizer", "groups", 0, "lr", value="fast"), "optimizer.groups.0.lr"),
    "a parameter": (STATE, put("optimizer", "state", "base.fc.weight", value=1), "optimizer.state"),
    "what it stands on": (STATE, put("stands_on", "data", "train", "classes", value=5), "classes"),
}
COMMANDS: dict[str, tuple[object, ...]] = {
    CONFIG: ("graft", "HERE", "-o", "OUT"),
    GRAFT: ("strip", "HERE", "-o", "OUT"),
    STATE: ("train", "-o", "HERE", "--resume"),
}


@pytest.mark.parametrize("case", SAID)
def test_what_can_not_be_is_refused_by_file_and_key(case: str, shelf: Path, tmp_path: Path) -> None:
    document, change, key = SAID[case]
    folder, _, path = document.partition("/")
    here = tmp_path / folder
    shutil.copytree(shelf / folder, here, symlinks=True)
    said = json.loads((here / path).read_text())
    change(said)
    (here / path).write_text(json.dumps(said if document == CONFIG else fuzz_documents.sealed(said)))
    outcome = spgsurgeon(*({"HERE": here, "OUT": tmp_path / "out"}.get(str(one), one) for one in COMMANDS[document]))
    assert outcome.code in (1, 5), outcome.err + outcome.out
    assert "unexpected" not in outcome.err
    assert key in outcome.err
    assert Path(path).name in outcome.err
    assert len(outcome.err) < 1500
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_whose_state_forgets_a_file_is_passed_over(shelf: Path, tmp_path: Path) -> None:
    for name in ("ema", "optimizer"):
        shutil.copytree(shelf / "run", tmp_path / name, symlinks=True)
        said = json.loads((tmp_path / name / "last" / "state.json").read_text())
        del said["hashes"][name]
        (tmp_path / name / "last" / "state.json").write_text(json.dumps(fuzz_documents.sealed(said)))
        outcome = spgsurgeon("train", "-o", tmp_path / name, "--resume")
        assert outcome.code == 0
        assert f"hashes.{name} is missing" in outcome.err


def test_a_line_of_results_that_can_not_be_counts_as_none(shelf: Path, tmp_path: Path) -> None:
    from spgsurgeon.comparing.runs import read_results

    lines = (shelf / "compared" / "results.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    wrong = [
        first | {"validation": 1.0},
        first | {"validation": {"top1": [1.0]}},
        first | {"run": first["run"] | {"multiple": None}},
        first | {"folder": "../../elsewhere"},
        first | {"folder": {}},
    ]
    for one in wrong:
        (tmp_path / "results.jsonl").write_text("\n".join([json.dumps(one), *lines[1:]]))
        assert len(read_results(tmp_path / "results.jsonl")) == len(lines) - 1, one
    assert len(read_results(shelf / "compared" / "results.jsonl")) == len(lines)


def test_an_environment_that_lists_no_starts_is_begun_anew(shelf: Path, tmp_path: Path) -> None:
    shutil.copytree(shelf / "run", tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "environment.json").write_text('{"starts": 5}')
    assert spgsurgeon("train", "-o", tmp_path / "run", "--resume").code == 0
    assert len(json.loads((tmp_path / "run" / "environment.json").read_text())["starts"]) == 1


@pytest.mark.parametrize("text", ["[" * 3000, "[" * 90 + "]" * 90, '{"a": ' * 90 + "1" + "}" * 90, "[]", "\ud800"])
def test_a_document_that_is_none_is_damaged(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DamagedFileError, match="config"):
        read_json_object(tmp_path / "config.json")


def test_some_documents_changed_at_random(shelf: Path, tmp_path: Path) -> None:
    targets = fuzz_documents.targets()
    found = fuzz_documents.fuzz(shelf, targets, 4 * len(targets), seed=21)
    assert found.faults == []
    assert found.codes[0] > 5  # some changes harm nobody
    assert found.codes[1] > 5
