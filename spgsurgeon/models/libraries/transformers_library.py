"""transformers: building its classes from fields that were looked through, and loading them with given tensors.

Nothing is fetched and no file is read here: weights come from this package's own reader, and the library only puts them
where they belong, as its own `from_pretrained` does (older names, words that are shared).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.checkpoint import CONFIG
from spgsurgeon.errors import ArchitectureError, SurgeonError, UnsafeInputError, UsageError, did_you_mean
from spgsurgeon.models.image_preprocessing import image_preprocessing
from spgsurgeon.models.libraries.identity import Converter, Identity
from spgsurgeon.models.libraries.transformers_config import made_up_labels
from spgsurgeon.models.sample_preprocessing import SamplePreprocessing
from spgsurgeon.models.sites.transformers_heads import HEADS, LABELLED, Head
from spgsurgeon.models.sound_preprocessing import sound_preprocessing
from spgsurgeon.models.text_preprocessing import text_preprocessing
from spgsurgeon.runtime import extra_hint

_SHOWN = 5
_OLDEST = 5  # the first major version that takes tensors and no file, and whose fields are typed
# What every config has and a file may leave as it is: metadata, what outputs look like, of which logits are read, and
# what image models have for other heads than a classifier.
_WITHOUT_EFFECT = {
    *("architectures", "model_type", "transformers_version", "dtype", "torch_dtype", "id2label", "label2id"),
    *("problem_type", "num_labels", "output_hidden_states", "output_attentions", "return_dict", "is_encoder_decoder"),
    *("out_indices", "out_features", "stage_names", "reshape_hidden_states", "add_fpn", "pool_scales"),
    *("use_auxiliary_head", "auxiliary_loss_weight", "auxiliary_channels", "auxiliary_num_convs"),
    *("auxiliary_concat_input", "semantic_loss_ignore_index"),
}


_Prepares = Callable[[Head, Any, Sequence[Path], str], SamplePreprocessing]
_PREPARED: dict[str, _Prepares] = {"text": text_preprocessing, "images": image_preprocessing}


class TransformersLibrary:
    """See `identity.Library`. Its architectures are classes: `BertForSequenceClassification`."""

    name = "transformers"

    def architectures(self) -> list[str]:
        """Return the names of the classes that can be grafted."""
        return sorted(HEADS)

    def task(self, architecture: str) -> str:
        """Return what the class is for."""
        return _head(architecture).task

    def default_classes(self, architecture: str) -> int:
        """Return the number of labels that the library gives a class without being asked."""
        return 2

    def build(self, identity: Identity) -> nn.Module:
        """Return the module with random weights."""
        kind = _class_of(identity.architecture)
        with _quiet(), _explained(identity.name):
            module: nn.Module = kind(_config_of(kind, identity))
        return module

    def load(
        self, identity: Identity, tensors: Mapping[str, Tensor], *, new_head: bool = False
    ) -> tuple[nn.Module, list[str], tuple[str, ...]]:
        """Return the module with `tensors`, as `from_pretrained` has them, in eval mode, and what the user should know.

        The third are the names of what is new. With `new_head` what lies outside the body, and a pooler in it, may be
        missing: it is drawn by torch's own generator. Raises ArchitectureError naming the keys if anything else is
        missing or of another shape.
        """
        head, kind = _head(identity.architecture), _class_of(identity.architecture)
        dtype, notes = _dtype_of(tensors)
        old = f"{head.logits}." if new_head else None
        given = {key: value for key, value in tensors.items() if old is None or not key.startswith(old)}
        with _quiet(), _explained(identity.name):
            config = _config_of(kind, identity)
            module, found = kind.from_pretrained(
                None,  # no name and no folder: the tensors are given
                config=config,
                state_dict=given,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below
            )
        missing, faults = sorted(found["missing_keys"]), [*map(str, found["error_msgs"])]
        faults += [f"missing {key}" for key in missing if not (new_head and _may_be_new(key, head))]
        faults += [f"{key} is {list(was)}, expected {list(now)}" for key, was, now in sorted(found["mismatched_keys"])]
        if faults:
            more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
            raise ArchitectureError(
                f"the weights do not fit {identity.name}: {'; '.join(faults[:_SHOWN])}{more}",
                hint=f"was {CONFIG} changed, or is the folder incomplete?",
                faults=faults,
            )
        left = sorted(found["unexpected_keys"])
        notes += [f"new and untrained: {', '.join(missing)}"] if missing else []
        notes += [f"left out, as {identity.architecture} has no use for them: {_few(left)}"] if left else []
        return _out_of_the_file(module).eval(), notes, tuple(missing)

    def pretrained(self, architecture: str, tag: str | None) -> tuple[nn.Module, Identity]:
        """Raise UsageError: its models come as folders."""
        raise UsageError(
            f"models of transformers are given as a folder, not by a name such as {architecture!r}",
            hint=f"hf download {architecture} --local-dir FOLDER, then give FOLDER",
        )

    def args_from_tensors(self, identity: Identity, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return nothing: config.json says all that shapes the model."""
        return {}

    def converters(self, architecture: str) -> tuple[Converter, ...]:
        """Return nothing: the library has none that are of use here."""
        return ()

    def preprocessing(
        self, identity: Identity, module: nn.Module, companions: Sequence[Path] = ()
    ) -> SamplePreprocessing:
        """Return how the model wants its samples, as the files beside its weights say."""
        head = _head(identity.architecture)
        made: _Prepares = _PREPARED.get(head.family.modality, sound_preprocessing)
        config: Any = module.config
        return made(head, config, companions, identity.name)

    def config(self, identity: Identity, module: nn.Module, label_names: list[str] | None) -> dict[str, Any]:
        """Return what the library itself writes."""
        document: dict[str, Any] = json.loads(module.config.to_json_string())  # type: ignore[union-attr, operator]
        return document

    def builder_arguments(self, identity: Identity, outputs: int) -> dict[str, Any]:
        """Return nothing: config.json says all that the builder needs."""
        return {}

    def identity_from_config(self, config: Mapping[str, Any]) -> Identity:
        """Raise ArchitectureError: the number of classes is known by the weights only, see `transformers_folder`."""
        raise ArchitectureError(f"a {CONFIG} of transformers needs its weights beside it")

    def identity_from_checkpoint(self, architecture: str, model_args: Mapping[str, Any]) -> Identity:
        """Raise ArchitectureError: training scripts record no models of transformers."""
        raise ArchitectureError(f"{architecture} needs a folder with its {CONFIG}", hint="give the folder")


def from_folder(identity: Identity, folder: Path, dtype: str | None) -> nn.Module:
    """Return what the library's own `from_pretrained` reads from a `folder` that this package wrote, in eval mode.

    `dtype` is the type of weights that its config.json says, if it says one.
    """
    kind = _class_of(identity.architecture)
    with _quiet(), _explained(identity.name):
        module: nn.Module = kind.from_pretrained(
            str(folder),
            config=_config_of(kind, identity),
            dtype=dtype or "auto",
            local_files_only=True,
            use_safetensors=True,
        )
    return _out_of_the_file(module).eval()


def _out_of_the_file(module: nn.Module) -> nn.Module:
    """Give each tensor memory of its own, shared ones a common one: where a file has them, products are rounded by it.

    A layer of one row is summed up otherwise where its memory is aligned otherwise, and proofs compare bits.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.detach().clone()
    return module


def refuse_unlisted(architecture: str, document: Mapping[str, Any], listed: Mapping[str, Any], place: str) -> None:
    """Raise UnsafeInputError for a field of a config.json that the class would follow and that is not among `listed`.

    Fields that the class does not know have no effect, and neither have those that say what it does by itself.
    """
    known = _class_of(architecture).config_class.__dataclass_fields__
    for name in sorted(document.keys() & known.keys() - listed.keys() - _WITHOUT_EFFECT):
        field = known[name]
        default = field.default_factory() if callable(field.default_factory) else field.default
        if document[name] is not None and document[name] != default:
            raise UnsafeInputError(
                f"{place} is refused: {name} is not among the fields that a file may give to transformers",
                hint=f"leave it out if the model is the same without it: transformers' own value is {default!a:.60}",
                unsafe=[name],
            )


def _head(architecture: str) -> Head:
    if architecture not in HEADS:
        raise ArchitectureError(
            f"{architecture!a:.80} is not a class of transformers that can be grafted",
            hint=did_you_mean(architecture, HEADS),
        )
    return HEADS[architecture]


def _class_of(architecture: str) -> Any:
    """Return the class of that name, which is in the table. Raises UsageError if transformers is missing or too old."""
    _head(architecture)
    if importlib.util.find_spec("transformers") is None:
        raise UsageError(
            f"{architecture} needs the package transformers, which is not installed",
            hint=extra_hint("transformers"),
            code="missing-package",
        )
    import transformers

    if int(transformers.__version__.partition(".")[0]) < _OLDEST:
        raise UsageError(
            f"{architecture} needs transformers {_OLDEST} or newer; {transformers.__version__} is installed",
            hint=extra_hint("transformers"),
            code="missing-package",
        )
    kind = getattr(transformers, architecture, None)
    if kind is None:
        raise ArchitectureError(f"transformers {transformers.__version__} has no class {architecture}")
    return kind


def _config_of(kind: Any, identity: Identity) -> Any:
    """Return the config of the fields in `identity`, which were looked through when it was made."""
    fields = dict(identity.model_args)
    if _head(identity.architecture).task in LABELLED:
        names = (identity.pretrained_cfg or {}).get("label_names") or made_up_labels(identity.num_classes)
        fields |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    return kind.config_class(**fields)


def _dtype_of(tensors: Mapping[str, Tensor]) -> tuple[torch.dtype, list[str]]:
    """Return the type that all weights have. Of several it is the one that holds each value, which the notes say."""
    kinds = list(dict.fromkeys(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()))
    if not kinds:
        return torch.float32, []
    common = reduce(torch.promote_types, kinds)
    if len(kinds) == 1:
        return common, []
    return common, [f"weights of {' and '.join(map(str, kinds))} are all read as {common}, as transformers does"]


def _may_be_new(key: str, head: Head) -> bool:
    """Return whether a tensor is one that a new head brings with it: outside the body, or its pooler."""
    return not key.startswith(f"{head.family.body}.") or ".pooler." in key


def _few(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from reporting what this package says itself."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say of any failure which model could not be built: its fields come from a file, and trip what is in their way."""
    try:
        yield
    except SurgeonError:
        raise
    except Exception as error:
        reason = str(error).strip().replace("\n", " ") or type(error).__name__
        raise ArchitectureError(f"transformers can't build {name.partition('/')[2]}: {reason[:300]}") from error
