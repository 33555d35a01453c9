"""The forms of data that can be read, each registered by one entry; the recipe, help texts and messages list these.

Nothing here needs torch: the module that reads a form is imported when a data set of it is opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from spgsurgeon.errors import UsageError, did_you_mean

LABELLED, MASKED, TEXTS = "labelled images", "images with masks", "labelled texts"
QUESTIONS, WORDS, CHOICES = "questions with answers", "labelled words", "questions with choices"
SOUNDS, CORPUS = "labelled sounds", "texts without labels"
"""What the samples of a source are."""

Setting = Literal["class_order", "classes", "mask_values", "columns"]
Classed = Literal["sample", "unit", "nothing"]


@dataclass(frozen=True)
class SourceForm:
    """A form of data: what `data.source` names, or the part before the name of a data set, as in torch/NAME."""

    name: str
    reads: str
    """What it is, for people."""
    opener: str
    """MODULE:FUNCTION, called as `opening.open_source` does."""
    samples: str = LABELLED
    needs_path: bool = True
    """Whether it lies in a folder that has to be given."""
    takes: tuple[Setting, ...] = ()
    """Which keys of the data section it has a use for; the others it brings itself."""
    on_hub: bool = False
    """Whether NAME is that of a data set of the Hub."""
    parts: tuple[str, ...] = ()
    """Its folders that are not called like a split."""
    classed: Classed = "sample"
    """What has one of the classes that a head's outputs stand for: a sample, or each of its units, as pixels."""

    @property
    def spelled(self) -> str:
        """How a source of this form is written."""
        return f"{self.name}NAME" if self.name.endswith("/") else self.name


SOURCES = {
    form.name: form
    for form in (
        SourceForm(
            "folder",
            "a tree with one folder a class",
            "spgsurgeon.data.sources.images:open_folder",
            takes=("class_order",),
        ),
        SourceForm(
            "wds", "WebDataset's shards, tar files", "spgsurgeon.data.sources.shards:open_wds", takes=("classes",)
        ),
        SourceForm("digits", "built in", "spgsurgeon.data.sources.images:open_digits", needs_path=False),
        SourceForm("torch/", "torchvision's data sets", "spgsurgeon.data.sources.images:open_torchvision"),
        SourceForm(
            "hfds/",
            "Hugging Face data sets",
            "spgsurgeon.data.sources.images:open_hugging_face",
            needs_path=False,
            on_hub=True,
        ),
        SourceForm(
            "masks",
            "SPLIT/images and SPLIT/masks",
            "spgsurgeon.data.sources.masks:open_folder",
            MASKED,
            takes=("classes", "mask_values"),
            parts=("images", "masks"),
            classed="unit",
        ),
        SourceForm(
            "voc",
            "Pascal VOC 2012",
            "spgsurgeon.data.sources.masks:open_voc",
            MASKED,
            parts=("VOCdevkit",),
            classed="unit",
        ),
        SourceForm(
            "coco",
            "COCO with VOC's classes",
            "spgsurgeon.data.sources.masks:open_coco_split",
            MASKED,
            parts=("annotations", "train2017", "val2017"),
            classed="unit",
        ),
        SourceForm(
            "texts",
            "SPLIT.tsv, .csv or .jsonl with columns for texts and labels, or what save_to_disk of Hugging Face's "
            "datasets wrote",
            "spgsurgeon.data.sources.records.texts:open_texts",
            TEXTS,
            takes=("classes", "columns"),
        ),
        SourceForm(
            "questions",
            "the same with columns for questions, contexts and answers, as SQuAD has them",
            "spgsurgeon.data.sources.records.questions:open_questions",
            QUESTIONS,
            takes=("columns",),
            classed="nothing",
        ),
        SourceForm(
            "words",
            "SPLIT.jsonl, or what save_to_disk wrote, with columns for lists of words and of their labels",
            "spgsurgeon.data.sources.records.words:open_words",
            WORDS,
            takes=("classes", "columns"),
            classed="unit",
        ),
        SourceForm(
            "choices",
            "tables with columns for a question, its choices and the number of the right one",
            "spgsurgeon.data.sources.records.choices:open_choices",
            CHOICES,
            takes=("columns",),
            classed="nothing",
        ),
        SourceForm(
            "corpus",
            "SPLIT.txt with a text a line, or a table as of texts, with a column for them",
            "spgsurgeon.data.sources.records.corpus:open_corpus",
            CORPUS,
            takes=("columns",),
            classed="nothing",
        ),
        SourceForm(
            "sounds",
            "SPLIT/CLASS/x.wav, or .flac or .ogg; or SPLIT.tsv, .csv or .jsonl with columns for files and labels",
            "spgsurgeon.data.sources.sounds.labelled:open_sounds",
            SOUNDS,
            takes=("classes", "columns"),
        ),
    )
}
_STREAMS = ("tfds/", "hfids/")


def form_of(source: str) -> SourceForm:
    """Return the form that a `data.source` is of. Raises UsageError for one that is not registered."""
    prefix = source.partition("/")[0] + "/"
    if source in SOURCES and not source.endswith("/"):
        return SOURCES[source]
    if prefix in SOURCES and source != prefix:
        return SOURCES[prefix]
    if prefix in _STREAMS:
        raise UsageError(
            f"{source!r} is a stream: it can't be read at random, so training could not resume exactly",
            hint=f"unpack it to a folder with one sub-folder a class, or write shards of it; sources are {spelled()}",
        )
    if prefix.removesuffix("/") in SOURCES:
        form = SOURCES[prefix.removesuffix("/")]
        raise UsageError(
            f"{source!r} names a data set, and {form.name} data is found by its folder",
            hint=f"the source is just {form.name}; the path is the folder that holds the data",
        )
    near = did_you_mean(source, [form.name for form in SOURCES.values()])
    raise UsageError(
        f"{source!r} is not a data source",
        hint=f"{near + '; ' if near else ''}sources are {spelled()}",
    )


def samples_of(source: str) -> str:
    """Return what the samples of a data source are."""
    return form_of(source).samples


def listed(samples: str) -> list[SourceForm]:
    """Return the forms whose samples are such."""
    return [form for form in SOURCES.values() if form.samples == samples]


def spelled(forms: Iterable[SourceForm] | None = None) -> str:
    """Return how sources of these forms (None: of all) are written: "folder, wds, torch/NAME"."""
    return ", ".join(form.spelled for form in (SOURCES.values() if forms is None else forms))


def described(forms: Iterable[SourceForm]) -> str:
    """Return the forms with what they are, for help texts: "folder (a tree ...), wds (...)"."""
    return ", ".join(f"{form.spelled} ({form.reads})" for form in forms)


def taking(setting: Setting) -> str:
    """Return the names of the forms that have a use for a key of the data section."""
    *others, last = (form.name for form in SOURCES.values() if setting in form.takes)
    return f"{', '.join(others)} and {last}" if others else last
