"""A report in a real browser: on a screen, in the dark, on a phone, on paper. Skipped if there is no Chromium."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import PROGRAM, Browser
from command_line import DIGITS, TINY, succeed
from made_up_comparisons import RECIPE, made_up
from PIL import Image

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")

PARTS = ("header", "nav", "main", "footer")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a comparison, a run with a cold start, and its control."""
    folder = tmp_path_factory.mktemp("reported")
    (folder / "small.yaml").write_text(RECIPE)
    made_up(folder / "small.yaml", folder / "c", lambda arm, m, seed: 50 + m, grid=[1.0, 3.0])
    for name, more in (("spg", ("cold_start.epochs=1",)), ("plain", ("trp.kind=none",))):
        succeed("train", *TINY, *DIGITS, *more, "-o", folder / name)
    _with_a_picture(folder / "spg")
    succeed("report", folder / "c", folder / "spg", folder / "plain", "-o", folder / "out")
    return folder / "out" / "index.html"


def _with_a_picture(run: Path) -> None:
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    picture = {"sample": 7, "name": "digits (train), sample 7", "label": 3, "length": 1, "cross_entropy": 2.5}
    for line in lines:
        line["pictures"] = {"shortest": [picture], "longest": []}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def corner(png: bytes) -> Any:
    return Image.open(io.BytesIO(png)).convert("L").getpixel((2, 2))


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_wider_than_the_screen(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width)
    assert browser.value("document.documentElement.scrollWidth") == width
    outside = f"""[...document.querySelectorAll('body *')].filter(e =>
        !e.closest('.scroll') && e.getBoundingClientRect().right > {width}).map(e => e.tagName)"""
    assert browser.value(outside) == []


def test_it_is_dark_where_people_want_it_dark(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert corner(browser.picture()) > 240
    browser.open(page, dark=True)
    picture = browser.picture()
    assert corner(picture) < 40
    light = sum(Image.open(io.BytesIO(picture)).convert("L").histogram()[200:])
    assert light < 0.1 * Image.open(io.BytesIO(picture)).width * Image.open(io.BytesIO(picture)).height, "figures too"


def test_it_has_headings_landmarks_and_words_for_its_images(browser: Browser, page: Path) -> None:
    browser.open(page)
    levels = browser.value("[...document.querySelectorAll('h1,h2,h3,h4')].map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    assert [browser.value(f"document.querySelectorAll('{part}').length") for part in PARTS] == [1] * len(PARTS)
    sections = "[...document.querySelectorAll('main > section')]"
    names = browser.value(f"{sections}.map(e => e.getAttribute('aria-labelledby'))")
    assert names == browser.value("[...document.querySelectorAll('h2')].map(e => e.id)")
    texts = browser.value("[...document.querySelectorAll('img.chart')].map(e => e.alt)")
    assert len(texts) == len(set(texts)) > 10
    assert [text for text in texts if not any(character.isdigit() for character in text)] == []
    assert browser.value("[...document.querySelectorAll('th')].filter(e => !e.scope).length") == 0


def test_all_of_it_is_reached_by_the_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    reached = []
    shown = "[...document.querySelectorAll('a, summary, .scroll')].filter(e => e.checkVisibility())"
    for _ in range(browser.value(f"{shown}.length")):
        for kind in ("keyDown", "keyUp"):
            browser.ask("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        place = f"{shown}.indexOf(document.activeElement)"
        reached.append(browser.value(f"[{place}, getComputedStyle(document.activeElement).outlineStyle]"))
    assert reached == [[place, "solid"] for place in range(len(reached))]


def test_the_contents_lead_to_every_part(browser: Browser, page: Path) -> None:
    browser.open(page)
    targets = browser.value("[...document.querySelectorAll('nav a')].map(e => e.getAttribute('href').slice(1))")
    assert targets == browser.value("[...document.querySelectorAll('h2')].map(e => e.id)")


def test_it_prints(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.open(page, dark=True)
    (tmp_path / "page.pdf").write_bytes(browser.pdf())
    pages = (tmp_path / "page.pdf").read_bytes().count(b"/Type /Page\n")
    assert 3 <= pages <= 12
    if (program := shutil.which("pdftotext")) is None:
        pytest.skip("there is no pdftotext")
    done = subprocess.run([program, tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    for words in ("Retraining report", "no difference shown", "flags.float32_matmul_precision", torch.__version__):
        assert any(words in line for line in lines), words
    letters = "".join(line if len(line) == 1 and line.isalpha() else " " for line in lines).split()
    assert max(map(len, letters)) < 3, "words have a letter a line"
