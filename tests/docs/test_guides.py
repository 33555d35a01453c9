"""What README and the guides show exists: commands, options, recipe keys and defaults, recipes, links, Python names."""

from __future__ import annotations

import re

import pytest
import torch
import yaml
from guide_pages import ROOT, Page, faults, pages, verbs

import spgsurgeon
from spgsurgeon.docs import guides
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.recipe.schema import recipe_keys
from spgsurgeon.recipe.writing import dump_recipe
from spgsurgeon.replicas.kinds import kinds

PAGES = {page.path.name: page for page in pages()}


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_shows_exists(name: str) -> None:
    assert faults(PAGES[name]) == []


@pytest.mark.parametrize(
    "text",
    [
        "```sh\nspgsurgeon trian base --recipe digits-dropout\n```",
        "```sh\npip install . && spgsurgeon demos\n```",
        "```sh\nspgsurgeon inspect\n```",
        "```sh\nspgsurgeon train base --recpie digits-dropout\n```",
        "```sh\nspgsurgeon train base --recipe digits-dropuot\n```",
        "```sh\nspgsurgeon train base --recipe digits-dropout \\\n  training.epoch=3\n```",
        "```sh\nspgsurgeon train base --recipe digits-dropout training.epochs=none\n```",
        "```sh\nspgsurgeon train base --recipe my.yaml trp.rates=0.1\n```",
        "```sh\ntorchrun --nproc-per-node 4 -m spgsurgeon train base --recipes NAME\n```",
        "```sh\npython tests/no_such_script.py\n```",
        "`spgsurgeon compare --resmue -o comparison`",
        "`strip RUN --exports onnx`",
        "`--learning-rate auto`",
        "`trp.repliacs`",
        "`data.limits: 100`",
        "`training.epochs=3 data.augment.mixups=0.2`",
        "`cifar10-resnet-depths`",
        "```yaml\ntrp: {kind: dropout, replica: 3}\n```",
        "```yaml\ncompare:\n  arms:\n    long: {trp.replicas: 5, objective.weight: [1]}\n```",
        "```python\ngrafted = spgsurgeon.graft(model\n```",
        "```python\nspgsurgeon.grafts(model)\n```",
        "```python\nspgsurgeon.graft(model, rates=0.2)\n```",
        "```python\nfrom spgsurgeon import grafted\n```",
        "[a guide](no-such-guide.md)",
        "[a section](README.md#no-such-section)",
    ],
)
def test_what_does_not_exist_is_found(text: str) -> None:
    assert faults(Page(ROOT / "page.md", text))


def test_text_without_any_of_it_has_no_faults() -> None:
    text = "# Title\n\n[home](README.md#license-and-citation) `metrics.jsonl` `compare.json`\n\n"
    assert faults(Page(ROOT / "page.md", text + "```\nspgsurgeon nothing\n```")) == []


def test_the_three_lines_of_python_train_and_give_the_base_back() -> None:
    ((_, snippet),) = [block for block in PAGES["README.md"].blocks if block[0] == "python"]
    base = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5)).train()
    names = {"spgsurgeon": spgsurgeon, "model": base, "images": torch.rand(2, 3, 4, 4), "labels": torch.tensor([1, 2])}
    exec(snippet.replace("spgsurgeon.graft(model,", "spgsurgeon.graft(model, example=images,"), names)
    assert names["loss"].requires_grad
    assert names["model"] is base


# The guide to recipes is complete


def rows() -> dict[str, str]:
    """Key and default of each row of the tables."""
    found = re.findall(r"^\| `([\w.]+)` \| `(.+?)` \| .+ \|$", PAGES["recipes.md"].text, re.MULTILINE)
    assert len(dict(found)) == len(found)
    return dict(found)


def test_the_guide_to_recipes_explains_every_key() -> None:
    keys = recipe_keys()
    assert rows().keys() == {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}


def test_the_guide_to_recipes_gives_the_schemas_defaults() -> None:
    asked = [["data.source=digits", f"trp.kind={name}"] for name in kinds()]
    of_each_kind = [yaml.safe_load(dump_recipe(read_recipe(None, overrides))) for overrides in asked]
    defaults = {**of_each_kind[0], "trp": {}}
    for document in reversed(of_each_kind):  # the first one's kind is the default
        defaults["trp"] |= document["trp"]
    defaults["data"]["source"] = "folder"
    for key, said in rows().items():
        value = defaults
        for part in key.split("."):
            value = value[part]
        assert yaml.safe_load(said) == value, key


# All of it is there


def test_the_guide_to_commands_names_every_command() -> None:
    spans = {span.split(" -")[0] for span in PAGES["commands.md"].spans}
    for verb in verbs():
        assert any(span.split()[: len(verb)] == list(verb) for span in spans), verb


def test_readme_links_to_every_guide() -> None:
    for one in guides():
        assert f"(spgsurgeon/docs/{one.topic}.md)" in PAGES["README.md"].text


def test_readme_is_read_in_three_minutes() -> None:
    assert len(PAGES["README.md"].text.splitlines()) <= 160
