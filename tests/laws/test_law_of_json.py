"""JSON that is written, to disk or stdout, is such as every reader takes: no NaN, no infinity, no half characters."""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import spgsurgeon as package
from spgsurgeon.checkpoint.ownership import RECORD, record
from spgsurgeon.checkpoint.sealing import check_seal, sealed
from spgsurgeon.checkpoint.writing import write_json
from spgsurgeon.comparing.runs import Result, Run, add_result, read_results
from spgsurgeon.runs.data_records import DataRecord, write_files
from spgsurgeon.runs.metrics_log import MetricsLog

PACKAGE = Path(package.__file__).parent
NOT_WRITTEN = {  # hashes, texts of recipes and of messages, what is built with the package
    *("checkpoint/sealing.py", "checkpoint/containers/headers.py", "checkpoint/state_dict/specs.py"),
    *("runtime/seeds.py", "models/recognition/fingerprints.py", "models/recognition/catalogue_file.py"),
    *("recipe/reading.py", "recipe/data_section.py", "comparing/lineup/arms.py", "benchmarking/subject.py"),
    *("cli/bench.py", "runs/reading.py", "reporting/comparison_page.py"),
}
ODD = {"nan": float("nan"), "inf": [float("inf"), {"minus": float("-inf")}], "half": "\udcff", "one": 1.5}
READ = {"nan": None, "inf": [None, {"minus": None}], "half": "\udcff", "one": 1.5}


def strict(text: str) -> Any:
    """Return what the text says to a reader that knows the letter of the standard."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    text.encode("utf-8")
    return json.loads(text, parse_constant=refuse)


def test_one_function_writes_it() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps") and ast.unparse(node.value) == "json"
    }
    assert found - NOT_WRITTEN == {"runtime/json_text.py"}


def a_document(folder: Path) -> str:
    write_json(folder / "document", ODD)
    return (folder / "document").read_text(encoding="utf-8")


def a_line_of_metrics(folder: Path) -> str:
    log = MetricsLog(folder)
    log.add({"step": 1, **ODD, "half": "x"})
    log.close()
    return (folder / "metrics.jsonl").read_text(encoding="utf-8")


def a_line_of_results(folder: Path) -> str:
    scores = {"top1": 50.0, "loss": float("inf")}
    add_result(folder / "results.jsonl", Result(Run("plain", 1.0, 0), scores, "runs", 1, 0.5))
    (result,) = read_results(folder / "results.jsonl").values()
    assert result.validation == {"top1": 50.0, "loss": None}
    return (folder / "results.jsonl").read_text(encoding="utf-8")


def a_record_of_files(folder: Path) -> str:
    write_files(folder, {"train": DataRecord((), 1, "", {"\udcff.png": (1, 2)})})
    (file,) = (path for path in folder.iterdir() if path.suffix == ".gz")
    return gzip.decompress(file.read_bytes()).decode("utf-8")


def a_record_of_what_is_ours(folder: Path) -> str:
    record(folder, "name", ("\udcff",))
    return (folder / RECORD).read_text(encoding="utf-8")


WRITERS = (a_document, a_line_of_metrics, a_line_of_results, a_record_of_files, a_record_of_what_is_ours)


@pytest.mark.parametrize("write", WRITERS)
def test_every_reader_takes_it(write: Callable[[Path], str], tmp_path: Path) -> None:
    assert strict(write(tmp_path))


def test_what_json_lacks_is_null_and_half_a_character_stays_what_it_was(tmp_path: Path) -> None:
    assert strict(a_document(tmp_path)) == READ


def test_a_seal_is_of_what_is_written(tmp_path: Path) -> None:
    write_json(tmp_path / "sealed", sealed(ODD))
    check_seal(json.loads((tmp_path / "sealed").read_text(encoding="utf-8")))
