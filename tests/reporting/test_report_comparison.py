"""`report` on comparisons: finished, unfinished, damaged, and beside runs."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from command_line import Outcome, snapshot, spgsurgeon, succeed
from made_up_comparisons import RECIPE, made_up


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison's folder; spg's runs broke off once, and its episodes are made up as well."""
    root = tmp_path_factory.mktemp("compared")
    (root / "small.yaml").write_text(RECIPE)
    broken = ("spg", 10.0, 1)
    made_up(
        root / "small.yaml",
        root / "c",
        lambda arm, m, seed: None if (arm, m, seed) == broken else 50 + m,
        grid=[1.0, 3.0, 10.0],
    )
    change(root / "c" / "compare.json", lambda document: document["arms"]["spg"].update(valid_share=[1.0, 0.9, 0.8]))
    return root / "c"


@pytest.fixture
def comparison(finished: Path, tmp_path: Path) -> Path:
    """The same, for a test to change."""
    return shutil.copytree(finished, tmp_path / "c")


def change(path: Path, make: Any) -> None:
    document = json.loads(path.read_text())
    make(document)
    path.write_text(json.dumps(document))


def words_of(page: Path) -> str:
    words: list[str] = []
    parser = HTMLParser()
    parser.handle_data = words.append  # type: ignore[method-assign]
    parser.feed(page.read_text())
    return " ".join(" ".join(words).split())


def reported(*folders: Path, output: Path) -> tuple[Outcome, str]:
    outcome = succeed("report", *folders, "-o", output, "--json")
    return outcome, words_of(output / "index.html")


def test_the_page_has_verdicts_table_cost_and_figures_and_loads_nothing(finished: Path, tmp_path: Path) -> None:
    before = snapshot(finished)
    outcome, said = reported(finished, output=tmp_path / "out")
    assert snapshot(finished) == before
    found = json.loads((finished / "compare.json").read_text())["arms"]
    difference = found["spg"]["difference"]
    assert "1 comparison, read by spgsurgeon" in said
    assert "12 runs done" in said
    for words in (
        f"spg {found['spg']['mean']:.2f} top-1 % {found['spg']['verdict']} {difference['mean']:+.2f} points",
        f"{difference['low']:+.2f} to {difference['high']:+.2f}, {difference['agree']} of 2 seeds agree",
        "plain 100.50 top-1 % the control",
        "runs that met NaN or infinity, which count as worst: spg 1",
        "the best learning rate is at the grid's edge: plain (0.2); resume with --resume",
        'plain trp.kind: "none" 6 60 40 15 s',
        "learning rates 1, 3, 10 times 0.02",
        f"spgsurgeon report {finished}/runs/plain/lr-10/seed-0 {finished}/runs/spg/lr-3/seed-0",
    ):
        assert words in said
    assert "Settings and cost" in said
    assert "Every key of the recipe" not in said, "there are no runs"
    document = outcome.document
    assert [Path(path).name for path in document["figures"]] == [
        f"comparison-1-{name}.png" for name in ("differences", "scores", "learning-rates", "valid-share")
    ]
    assert document["comparisons"] == [
        {
            "comparison": str(finished),
            "finished": True,
            "runs_done": 12,
            "runs_planned": 12,
            "arms": {name: {"mean": arm["mean"], "verdict": arm["verdict"]} for name, arm in found.items()},
        }
    ]
    text = (tmp_path / "out" / "index.html").read_text()
    assert text.count("data:image/png;base64,") == 4
    assert not re.search(r"https?:|url\(|@import|<script|href=\"[^#]", text)


def test_an_unfinished_comparison_says_what_is_there(comparison: Path, tmp_path: Path) -> None:
    for name in ("compare.json", "costs.json"):
        (comparison / name).unlink()
    lines = (comparison / "results.jsonl").read_text().splitlines()
    kept = [line for line in lines if '"arm": "spg"' in line and '"multiple": 3.0' not in line]
    (comparison / "results.jsonl").write_text("\n".join([*kept, lines[0][:40]]))
    outcome, said = reported(comparison, output=tmp_path / "out")
    assert outcome.document["figures"] == []
    assert "4 of 12 runs done, not finished: scores are computed once all of them are done" in said
    assert "plain none yet spg 0.02 51.00 2 of 2 spg 0.2 60.00 2 of 2, 1 broken off" in said
    again = succeed("report", comparison, "-o", tmp_path / "again").out
    assert "not finished, 4 of 12 runs done" in again
    (comparison / "results.jsonl").unlink()
    assert "0 of 12 runs done" in reported(comparison, output=tmp_path / "nothing")[1]


def test_a_grid_that_grows_has_no_number_of_runs_and_older_scores_are_said_to_be_so(
    comparison: Path, tmp_path: Path
) -> None:
    change(comparison / "compare-plan.json", lambda plan: plan.update(learning_rates="auto"))
    outcome, said = reported(comparison, output=tmp_path / "out")
    assert outcome.document["comparisons"][0]["runs_planned"] is None
    assert "c: The scores are those of the grid before" in outcome.document["notes"][0]
    assert "learning rates auto times 0.02" in said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("compare.json", '{"arms": 7}', "compare.json can't be read: arms: "),
        ("compare.json", "{", "compare.json can't be read: "),
        ("costs.json", '{"arms": {"plain": {}}}', "costs.json can't be read: arms.plain.runs: "),
    ],
)
def test_what_is_damaged_is_said_and_the_rest_is_shown(
    name: str, content: str, said: str, comparison: Path, tmp_path: Path
) -> None:
    (comparison / name).write_text(content)
    outcome, page = reported(comparison, output=tmp_path / "out")
    assert said in page
    assert outcome.document["notes"][0].startswith(f"c: {said}")
    assert ("So far" in page) == (name == "compare.json")


def test_a_score_too_few_is_damage(comparison: Path, tmp_path: Path) -> None:
    change(comparison / "compare.json", lambda document: document["arms"]["spg"]["scores"].pop())
    assert "arm spg has other numbers of scores" in reported(comparison, output=tmp_path / "out")[1]


@pytest.mark.parametrize("content", ['{"model": "m"}', "[]"])
def test_a_comparison_without_its_plan_is_refused(content: str, comparison: Path, tmp_path: Path) -> None:
    (comparison / "compare-plan.json").write_text(content)
    refused = spgsurgeon("report", comparison, "-o", tmp_path / "out")
    assert (refused.code, "compare-plan.json" in refused.err) == (1, True), refused.err
    assert not (tmp_path / "out").exists()


def test_names_are_text_and_never_markup(comparison: Path, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"

    def rename(document: dict[str, Any]) -> None:
        document["arms"] = {name if name == "plain" else evil: arm for name, arm in document["arms"].items()}

    for name in ("compare.json", "costs.json", "compare-plan.json"):
        change(comparison / name, rename)
    change(comparison / "compare-plan.json", lambda plan: plan.update(model=evil))
    said = reported(comparison, output=tmp_path / "out")[1]
    assert said.count(evil) > 4
    assert "<img src=x" not in (tmp_path / "out" / "index.html").read_text()
