"""What a transformers folder's config.json says, and what of it may reach the library. Nothing here needs torch.

Raises ArchitectureError for models that can't be grafted, with the reason, and UnsafeInputError for what would have
transformers run, fetch or convert something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spgsurgeon.errors import ArchitectureError, DamagedFileError, UnsafeInputError, UsageError, did_you_mean
from spgsurgeon.models.sites.transformers_heads import HEADS, LABELLED, MODEL_TYPES, Head, heads_of

_REFUSED = {
    "auto_map": "it names code to run that lies in the folder",
    "custom_pipelines": "it names code to run that lies in the folder",
    "trust_remote_code": "it asks for code to be run that lies in the folder",
    "quantization_config": "its weights are quantized, and quantized weights can't be retrained",
    "fusion_config": "it replaces parts of the model",
    "transformers_weights": "it says which file the weights are read from",
}
_ADAPTER = "adapter_config.json"
_OTHER_TASKS = {
    "ForCTC": "it transcribes speech (CTC), which has no class for each sample",
    "ForConditionalGeneration": "it generates text from other text, which is not supported",
    "ForSpeechClassification": "it is not supported",
}
_PROBLEMS = {
    "regression": "it predicts a number (regression), not a class",
    "multi_label_classification": "a sample of it has several labels at once (multi-label)",
}
_SHOWN = 8
_LONGEST_NAME = 100


@dataclass(frozen=True)
class TransformersConfig:
    """A config.json that was looked through.

    `named` is the class that it says the weights are of, if it says one, and `head` that class in the table, None if it
    has no head that can be grafted; `arguments` are the fields that may reach transformers; `labels` are the names of
    the classes, None if it gives none.
    """

    place: str
    document: dict[str, Any]
    model_type: str
    named: str | None
    head: Head | None
    arguments: dict[str, Any]
    labels: list[str] | None

    @property
    def ties(self) -> bool:
        """Whether its head shares the embeddings' words."""
        return self.head is not None and self.head.ties(self.arguments.get("tie_word_embeddings"))

    def with_head(self, task: str | None) -> Head:
        """Return the head for `task`, None for its own. Raises UsageError if this model type has none for it."""
        if task is None or (self.head is not None and self.head.task == task):
            return self.own_head()
        known = heads_of(self.model_type)
        if task not in known:
            raise UsageError(
                f"no head of a {self.model_type} model is known for the task {task!r}; there are {', '.join(known)}",
                hint=did_you_mean(task, known),
            )
        return known[task]

    def own_head(self) -> Head:
        """Return its head. Raises ArchitectureError with the reason if it has none that can be grafted."""
        if self.head is None:
            raise self.headless()
        return self.head

    def headless(self) -> ArchitectureError:
        """Return why there is nothing to graft at, and what to do."""
        named, known = self.named or f"a {self.model_type} model", heads_of(self.model_type)
        why = next((reason for suffix, reason in _OTHER_TASKS.items() if named.endswith(suffix)), None)
        return ArchitectureError(
            f"{named} can't be grafted as it is: {why or 'it has no head that is known here'}",
            hint=f"with --task {' or '.join(known)} (and --num-classes N) it gets a new, untrained head",
            code="no-head",
        )


def made_up_labels(classes: int) -> list[str]:
    """Return the names that transformers gives classes without any."""
    return [f"LABEL_{number}" for number in range(classes)]


def with_dtype(document: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Return a config.json that says of which type the weights are, such as "float32", if it says it at all.

    By what it says `from_pretrained` reads them, whatever they are.
    """
    return document | {name: dtype for name in ("dtype", "torch_dtype") if name in document}


def with_labels(document: dict[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    """Return a config.json whose classes have these names; without any, or for no classes, it stays as it is."""
    if not names or len(document.get("id2label") or {}) != len(names):
        return document
    id2label = {str(number): name for number, name in enumerate(names)}
    return document | {"id2label": id2label, "label2id": {name: number for number, name in enumerate(names)}}


def is_transformers_config(document: Mapping[str, Any] | None) -> bool:
    """Return whether a config.json is of transformers' own models: its timm wrapper is timm's."""
    return document is not None and document.get("model_type") not in (None, "timm_wrapper")


def refuse_adapter(names: set[str], place: str) -> None:
    """Raise UnsafeInputError for a folder with files `names` if it holds an adapter (PEFT), not a model."""
    if _ADAPTER in names:
        raise UnsafeInputError(
            f"{place} holds an adapter (PEFT: {_ADAPTER}): transformers would fetch its base and change it",
            hint="merge it first: PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(FOLDER)",
            unsafe=[_ADAPTER],
        )


def read_transformers_config(document: Mapping[str, Any], place: str) -> TransformersConfig:
    """Return what the config.json `document` says, which lies at `place`."""
    from spgsurgeon.models.libraries.arguments import allowed_arguments  # pydantic takes its time

    for name, reason in _REFUSED.items():
        if document.get(name) is not None:
            raise UnsafeInputError(f"{place} is refused: it says {name}; {reason}", unsafe=[name])
    model_type = document["model_type"]
    if model_type not in MODEL_TYPES:
        raise ArchitectureError(
            f"{place} is of the model type {model_type!a:.60}; of transformers these are supported: "
            f"{', '.join(MODEL_TYPES)}",
            hint=did_you_mean(str(model_type)[:60], MODEL_TYPES),
        )
    named = _named(document, place)
    head = HEADS.get(named) if named is not None else None
    if head is not None and head.family.model_type != model_type:
        raise DamagedFileError(f"{place} contradicts itself: {named} is not of the model type {model_type!r}")
    arguments = allowed_arguments("transformers", document, place)
    labels = _labels(document, place)
    if head is not None and head.task in LABELLED:
        _check_problem(document, labels, place)
    return TransformersConfig(place, dict(document), model_type, named, head, arguments, labels)


def classes_of(config: TransformersConfig, rows: int, key: str) -> int:
    """Return the number of classes, which is the `rows` of the head's weight `key`; the labels must be as many."""
    counted = config.head is not None and config.head.task in LABELLED
    if counted and config.labels is not None and len(config.labels) != rows:
        raise DamagedFileError(
            f"{config.place} has {len(config.labels)} labels, and {key} has {rows} rows; which is right can't be known"
        )
    if counted and rows == 1:
        raise _refused_problem("regression", config.place)
    return rows


def _named(document: Mapping[str, Any], place: str) -> str | None:
    listed = document.get("architectures")
    if listed is None:
        return None
    if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], str):
        raise DamagedFileError(f"{place} is damaged: architectures is {listed!a:.60}, not a list of one name")
    return listed[0][:_LONGEST_NAME]


def _labels(document: Mapping[str, Any], place: str) -> list[str] | None:
    """Return the names by number; None if there are none, or only those that transformers makes up."""
    given = document.get("id2label")
    if given is None:
        return None
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given.values()):
        raise DamagedFileError(f"{place} is damaged: id2label does not give a name for each number")
    named = {str(number): name for number, name in given.items()}
    if named.keys() != {str(number) for number in range(len(named))}:
        shown = ", ".join(ascii(number) for number in list(named)[:_SHOWN])
        raise DamagedFileError(f"{place} is damaged: the numbers of id2label are not 0 to {len(named) - 1}: {shown}")
    return [named[str(number)] for number in range(len(named))]


def _check_problem(document: Mapping[str, Any], labels: list[str] | None, place: str) -> None:
    problem = document.get("problem_type")
    if problem in _PROBLEMS:
        raise _refused_problem(problem, place)
    count = len(labels) if labels is not None else document.get("num_labels")
    if count == 1:
        raise _refused_problem("regression", place)


def _refused_problem(problem: str, place: str) -> ArchitectureError:
    return ArchitectureError(
        f"{place} can't be grafted: {_PROBLEMS[problem]}, and an episode needs one right class",
        hint="--num-classes N gives it a new, untrained head for N classes",
        code=problem.replace("_", "-"),
    )
