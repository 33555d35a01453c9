"""The data section of a recipe: which images, and what happens to them."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, Strict, model_validator

from spgsurgeon.data import CORPUS, MASKED, SOUNDS, SOURCES, described, form_of, samples_of, taking
from spgsurgeon.errors import UsageError
from spgsurgeon.sections import Count, NonNegative, NonNegativeInt, Probability, Section, fault_at

HOLDOUT = "holdout"


def _known_source(source: str) -> str:
    try:
        form_of(source)
    except UsageError as error:
        raise ValueError("; ".join(filter(None, (error.message, error.hint)))) from error
    return source


def _known_classes(classes: Any) -> tuple[str, ...] | int | None:
    if classes is None or (isinstance(classes, int) and not isinstance(classes, bool) and classes > 0):
        return classes
    if isinstance(classes, list | tuple) and classes and all(isinstance(name, str) and name for name in classes):
        if len(set(classes)) < len(classes):
            raise ValueError("a class is named twice")
        return tuple(classes)
    raise ValueError(
        f"{json.dumps(classes)} is refused, it must be a list of names (quoted, where needed) or their number"
    )


def known_class_map(table: Any) -> dict[str, str] | str | None:
    """Return what the model calls the classes of the data, or the file that says it. Raises ValueError."""
    if table is None or (isinstance(table, str) and table):
        return table
    names = [name for pair in table.items() for name in pair] if isinstance(table, dict) else []
    if names and all(isinstance(name, str) and name for name in names):
        return dict(table)
    raise ValueError(
        f"{json.dumps(table)} is refused, it must be a file, or say the model's name of classes of the data, such as "
        "{n02123045: tabby} (names quoted, where needed)"
    )


def known_mask_values(values: Any) -> dict[int, int] | None:
    """Return the class number that each mask value stands for; documents have text for keys. Raises ValueError."""
    if values is None:
        return None
    pairs = values.items() if isinstance(values, dict) else ()
    found = {int(key) if isinstance(key, str) and key.isdecimal() else key: label for key, label in pairs}
    if found and all(type(number) is int and number >= 0 for pair in found.items() for number in pair):
        return found
    raise ValueError(
        f"{json.dumps(values)} is refused, it must say the class number of mask values, such as {{255: 1}} (or null)"
    )


def known_range(values: Any) -> tuple[float, float] | None:
    """Return the values that are black and white. Raises ValueError for others than two, the second larger."""
    if values is None:
        return None
    if isinstance(values, list | tuple) and len(values) == 2 and all(type(value) in (int, float) for value in values):
        low, high = (float(value) for value in values)
        if math.isfinite(high - low) and low < high:
            return low, high
    raise ValueError(f"{json.dumps(values)} is refused, it must be two numbers, black and white, such as [0, 4095]")


class AugmentSection(Section):
    """What happens to training images."""

    crop: Literal["random-resized", "random-scale", "pad", "resize"] = "random-resized"
    """A random resized crop, a random crop after padding, or only a resize. For images with masks: `random-scale`,
    half to twice the size, then a random crop (their default), or `resize`."""
    flip: Probability = 0.5
    """Probability of a horizontal flip."""
    policy: Literal["autoaugment", "randaugment", "trivialaugment-wide", "augmix"] | None = None
    """An automatic augmentation policy."""
    mixup: NonNegative = 0.0
    """Mixup's alpha; 0 is off."""
    cutmix: NonNegative = 0.0
    """CutMix's alpha; 0 is off. With mixup on too, each batch draws one of them."""
    erase: Probability = 0.0
    """Probability of erasing a random rectangle."""


def _known_pairs(pairs: Any) -> dict[str, str] | None:
    """Return which class each is taken for, by names, of which some may be numbers. Raises ValueError."""
    if pairs is None:
        return None
    found = [*pairs.items()] if isinstance(pairs, dict) else []
    if found and all((name and isinstance(name, str)) or type(name) is int for pair in found for name in pair):
        names = {str(one): str(other) for one, other in found}
        if all(one != other for one, other in names.items()):
            return names
    raise ValueError(
        f"{json.dumps(pairs)} is refused, it must say for classes which other one they are taken for, such as "
        "{cat: dog, dog: cat}"
    )


class LabelNoiseSection(Section):
    """Training labels made wrong by design, to study what training makes of them."""

    kind: Literal["symmetric", "asymmetric"] = "symmetric"
    """What a wrong label is: `symmetric`, any other class, each as likely, or `asymmetric`, the next class."""
    rate: Probability = 0.0
    """How likely a training label is wrong; 0 is off. Labels of evaluation and of what is held out never are."""
    seed: NonNegativeInt = 0
    """What is drawn goes by this seed and the sample, not by training.seed."""
    pairs: Annotated[dict[str, str] | None, BeforeValidator(_known_pairs)] = None
    """For `asymmetric`: which class each is taken for, such as {cat: dog, dog: cat}, where the others keep their
    labels; null is the next one, and the first for the last."""

    @property
    def words(self) -> str:
        """What it is, for messages."""
        pairs = ", ".join(f"{one} for {other}" for one, other in (self.pairs or {}).items())
        return f"{self.kind} label noise, rate {self.rate:g}, seed {self.seed}{f' ({pairs})' if pairs else ''}"

    @model_validator(mode="after")
    def _pairs_are_asymmetric(self) -> Self:
        if self.pairs is not None and self.kind != "asymmetric":
            raise fault_at("pairs", "pairs are for kind: asymmetric; symmetric noise takes a class for any other")
        return self


class DataSection(Section):
    """The images."""

    source: Annotated[str, AfterValidator(_known_source), Field(description=described(SOURCES.values()))] = "folder"
    path: str | None = None
    """The folder that holds the data; `folder` and `wds` need it."""
    train: str = "train"
    """Split or sub-folder to train on; for `wds` a pattern too, such as 'train-{0000..0123}.tar'."""
    eval: str = "val"
    """Split or sub-folder to evaluate on, for `wds` a pattern too; `holdout`: what `holdout` leaves out of training."""
    holdout: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the training split that is left out of training, the same for every seed: each class in proportion,
    of images with masks whichever."""
    limit: Count | None = None
    """The most images of each class to train on, of those that `holdout` leaves; the same for every seed. Samples
    without a class, as questions are, count as one class; images with masks have no such limit."""
    eval_limit: Count | None = None
    """The most samples to evaluate on, the classes in proportion, the same for every seed; scores are of that part."""
    label_noise: LabelNoiseSection = LabelNoiseSection()
    """Training labels made wrong by design. Samples with a class each only; whatever else goes by a training label, as
    `limit` and `balance` do, goes by the wrong one."""
    balance: bool = False
    """Whether each class comes as often as any other in an epoch, which stays as long as it is: samples of small
    classes come again, augmented otherwise, and of large ones some are left out."""
    classes: Annotated[tuple[str, ...] | int | None, BeforeValidator(_known_classes)] = None
    """Names of the classes by mask value or label, or their number; null reads classes.txt in the data's folder, and
    without one goes by the labels. `masks`, `wds`, `texts`, `words` and `sounds` only."""
    columns: dict[str, str] | None = None
    """Columns of a table by what they hold, such as {text: sentence, label: label} or {text: question, pair: answer,
    label: label}, of sounds {file: path, label: word}; null takes those that data sets usually have, and says which."""
    max_length: Count | None = None
    """The most tokens of a text, those that the tokenizer adds included; null: as many as the model takes. Of a
    `corpus` the tokens of a block; null: as many as the model takes, and 1024 at most."""
    mlm_probability: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """How likely a token is to be predicted in training a masked language model; scores are always taken at 0.15.
    `corpus` only."""
    max_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """The most seconds of a sound that are read; null: all of it, unless it lasts more than ten minutes."""
    too_long: Literal["cut", "stop"] = "cut"
    """What a longer text or sound does: it is cut, counted and said, or it can't be used (see `unreadable`)."""
    class_map: Annotated[dict[str, str] | str | None, BeforeValidator(known_class_map)] = None
    """What the model calls the classes of the data, such as {n02123045: tabby}, or a file that says it: a line for each
    class, the data's name, a tab, the model's."""
    class_order: Literal["auto", "natural", "code-point"] = "auto"
    """How class folders are numbered: by the model's names (`auto`), or by number as timm (`natural`) or as torchvision
    (`code-point`) sorts them; `folder` only."""
    ignore: Annotated[tuple[NonNegativeInt, ...], Strict(False)] = ()
    """Mask values that are not scored and teach nothing, besides 255."""
    mask_values: Annotated[dict[int, int] | None, BeforeValidator(known_mask_values)] = None
    """The class number that mask values stand for, of those that are not class numbers themselves, such as {255: 1};
    `masks` only."""
    value_range: Annotated[tuple[float, float] | None, BeforeValidator(known_range)] = None
    """The values that are black and white in images with more than 8 bits of grey; null: 0 to 65535, and images of 32
    bits or of floating-point numbers are refused."""
    max_pixels: Count | None = None
    """The most pixels of an image, height times width; null: what Pillow allows (178,956,970), for a larger one may be
    made to fill the memory."""
    image_size: Count | None = None
    """Height and width of training images, in pixels; null is the model's own."""
    eval_image_size: Count | None = None
    """Height and width for evaluation, in pixels, where `image_size` is given; null is `image_size`."""
    eval_crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of each side that evaluation cuts out of the middle of an image: it resizes to the size divided by this
    before. 1 scores whole images; null is the model's own."""
    augment: AugmentSection = AugmentSection()
    """What happens to training images."""
    unreadable: Literal["stop", "skip"] = "stop"
    """What an image that can't be used does: it ends the run, or is passed over, counted and listed."""
    cache: Literal["none", "memory", "device"] = "none"
    """Where images stay decoded after the first time, if anywhere: `memory` (shared by all loader processes), or the
    training `device`, which augments them there; of one size then. The weights don't depend on it."""
    workers: NonNegativeInt | None = None
    """Loader processes for each training process; null goes by the machine. The weights don't depend on it."""

    @property
    def _has_masks(self) -> bool:
        return samples_of(self.source) == MASKED

    @model_validator(mode="after")
    def _folder_has_a_path(self) -> Self:
        if form_of(self.source).needs_path and not self.path:
            raise fault_at("path", f"source: {self.source} needs the path of the folder that holds the data")
        return self

    @model_validator(mode="after")
    def _parts_of_the_training_split(self) -> Self:
        if self._has_masks and self.eval_crop_pct is not None:
            raise fault_at("eval_crop_pct", "eval_crop_pct is for whole images; those with masks are not cropped")
        if self._has_masks and self.limit is not None:
            raise fault_at("limit", f"limit goes by an image's class; source: {self.source} has masks")
        if self.label_noise.rate and form_of(self.source).classed != "sample":
            raise fault_at(
                "label_noise", f"label_noise is for samples with a class; source: {self.source} has none for each"
            )
        if self.balance and form_of(self.source).classed != "sample":
            raise fault_at("balance", f"balance goes by a sample's class; source: {self.source} has none for each")
        if self.eval == HOLDOUT and self.holdout is None:
            raise fault_at("eval", "eval: holdout needs data.holdout, the share that is left out of training")
        return self

    @model_validator(mode="after")
    def _both_sizes(self) -> Self:
        if self.eval_image_size is not None and self.image_size is None:
            # A run's checkpoints say the size that they were scored at, and a resumed run would train at that.
            raise fault_at("eval_image_size", "where eval_image_size is given, image_size must be too")
        return self

    @model_validator(mode="after")
    def _fits_the_source(self) -> Self:
        takes = form_of(self.source).takes
        self._check_records(takes)
        if "classes" not in takes and self.classes is not None:
            raise fault_at("classes", f"classes is for source: {taking('classes')}; {self.source} has its own")
        if "class_order" not in takes and self.class_order != "auto":
            forms = taking("class_order")
            raise fault_at("class_order", f"class_order is for source: {forms}; {self.source} has its own order")
        if "mask_values" not in takes and self.mask_values:
            forms = taking("mask_values")
            raise fault_at("mask_values", f"mask_values is for source: {forms}; {self.source} has none, or brings them")
        if self.mask_values and (both := sorted({*self.ignore} & {*self.mask_values})):
            raise fault_at("mask_values", f"{both[0]} has a class here, and is in ignore too")
        if not self._has_masks and self.ignore:
            raise fault_at("ignore", f"ignore is for images with masks; source: {self.source} has none")
        if self._has_masks:
            if self.cache != "none":
                raise fault_at("cache", f"images with masks, as source: {self.source} has, can't be kept decoded")
            for key in ("policy", "mixup", "cutmix", "erase"):
                if getattr(self.augment, key):
                    raise fault_at("augment", f"{key} is for whole images; images with masks have crop and flip")
            if "crop" not in self.augment.model_fields_set:
                object.__setattr__(self, "augment", self.augment.model_copy(update={"crop": "random-scale"}))
        crops = ("random-scale", "resize") if self._has_masks else ("random-resized", "pad", "resize")
        if self.augment.crop not in crops:
            also = f", which has {' and '.join([', '.join(crops[:-1]), crops[-1]])}"
            raise fault_at("augment", f"crop {self.augment.crop!r} does not go with source: {self.source}{also}")
        return self

    def _check_records(self, takes: tuple[str, ...]) -> None:
        """Raise for keys of records that images have no use for, and the other way round."""
        kinds = samples_of(self.source)
        used = _OF_SOUNDS if kinds == SOUNDS else _OF_CORPUS if kinds == CORPUS else _OF_TEXTS
        idle = (*_OF_IMAGES, *(key for key in _OF_RECORDS if key not in used)) if "columns" in takes else _OF_RECORDS
        for key in idle:
            if key in self.model_fields_set and getattr(self, key) != type(self).model_fields[key].default:
                raise fault_at(key, f"{key} does not go with source: {self.source}, which has {kinds}")


_OF_IMAGES = ("image_size", "eval_image_size", "value_range", "max_pixels", "augment", "cache", "mask_values")
_OF_TEXTS = ("columns", "max_length", "too_long")
_OF_SOUNDS = ("columns", "max_seconds", "too_long")
_OF_CORPUS = ("columns", "max_length", "mlm_probability")
_OF_RECORDS = tuple(dict.fromkeys((*_OF_TEXTS, *_OF_SOUNDS, *_OF_CORPUS)))
