"""Colours: one an arm on the whole page, with contrast as WCAG asks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from recorded import line, record

import spgsurgeon.reporting.style as style
from spgsurgeon.comparing.reading import arm_of
from spgsurgeon.comparing.records import ComparisonRecord
from spgsurgeon.reporting.palette import arm_colors, with_hues
from spgsurgeon.reporting.style import accent, dash

PAGE = (Path(style.__file__).parent / "page.html").read_text()


def luminance(color: str) -> float:
    """Return WCAG's relative luminance."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(color)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def themes() -> dict[str, dict[str, str]]:
    """Return the page's colours by theme: light, dark, print."""
    roots = re.findall(r":root \{(.*?)\}", PAGE, re.DOTALL)
    colors = [dict(re.findall(r"--(\w+): (#\w+)", text)) for text in roots]
    return dict(zip(("light", "dark", "print"), colors, strict=True))


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text_stands_out_from_its_ground(theme: str) -> None:
    colors = themes()[theme]
    grounds = (colors["paper"], colors["raised"])
    assert min(contrast(colors[text], ground) for text in ("ink", "quiet") for ground in grounds) > 4.5


def test_text_of_figures_stands_out_and_so_do_lines() -> None:
    assert min(contrast(text, ground) for text in (style.INK, style.QUIET) for ground in ("white", style.SHADE)) > 4.5
    raised = themes()["light"]["raised"]
    assert min(contrast(color, ground) for color in style.ACCENTS for ground in ("white", raised)) > 3
    shades = [color for number in range(6) for color in style.shades(record(number=number), 4)]
    assert min(contrast(color, "white") for color in shades) > 3


def comparison(**changes: dict[str, object]) -> ComparisonRecord:
    return ComparisonRecord(0, "c", facts={}, changes=changes, seeds=1, done=0, planned=None, trials={})


def test_an_arm_has_one_colour_in_its_comparison_and_in_its_runs() -> None:
    runs = [record(line(1), name=name) for name in ("spg/lr-1/seed-0", "spg/lr-1/seed-1", "plain", "mine")]
    colored, (found,) = with_hues(runs, ["spg", "spg", None, None], [comparison(plain={}, spg={})])
    arms = arm_colors(found)
    assert [accent(run) for run in colored[:3]] == [arms["spg"], arms["spg"], arms["plain"]]
    assert accent(colored[3]) not in arms.values()
    assert dash(colored[0]) != dash(colored[1]), "runs of one arm are told apart"


def test_the_same_arm_of_two_comparisons_has_one_colour() -> None:
    first, second = with_hues([], [], [comparison(plain={}, spg={}), comparison(plain={}, other={}, spg={})])[1]
    assert arm_colors(first)["spg"] == arm_colors(second)["spg"]
    assert len(set(arm_colors(second).values())) == 3


def test_a_run_is_of_an_arm_if_it_lies_in_a_comparison(tmp_path: Path) -> None:
    run = tmp_path / "c" / "runs" / "spg" / "lr-1" / "seed-0"
    run.mkdir(parents=True)
    assert arm_of(run) is None
    (tmp_path / "c" / "compare-plan.json").touch()
    assert arm_of(run) == "spg"
    assert arm_of(run.parent) is None
    assert arm_of(Path("/")) is None
