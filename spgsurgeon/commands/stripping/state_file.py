"""A file with the state dict of a grafted model, as somebody's own loop or Lightning saved it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from spgsurgeon.checkpoint import Outline, TensorSpec, content_hash, content_hash_of
from spgsurgeon.commands.stripping.written import Patient, preprocessing_of
from spgsurgeon.errors import ArchitectureError, UsageError, VerificationError
from spgsurgeon.loading import ModelRequest, open_model, state_of
from spgsurgeon.models import run_in_eval
from spgsurgeon.replicas import BASE, base_of_state, layout_of, layout_of_state, outputs_of
from spgsurgeon.surgery import example_inputs
from spgsurgeon.tasks import TASKS

_IN_PYTHON = "in Python spgsurgeon.strip(state_dict) gives the base's part of any grafted model"


def take_down_file(source: Path, weights: str | None, arch: str | None) -> tuple[nn.Module, Patient]:
    """Return the base of the grafted model whose state dict is in a file, and what must be true of it.

    Nothing says what it was grafted from: the base is an architecture with exactly these keys and shapes, or the one
    that `arch` names. Raises UsageError if the file has no replicas, ArchitectureError for a base that is not of timm
    or torchvision, VerificationError if the base's tensors are not the file's, bit for bit.
    """
    try:
        opened = open_model(ModelRequest(str(source), weights, arch))
    except ArchitectureError as error:
        error.hint = "; ".join(filter(None, (error.hint, _IN_PYTHON)))
        raise
    assert opened.located is not None
    base = _base_in(source, opened.located.outline)
    state = state_of(opened.module)
    if content_hash(state) != content_hash_of(base):
        raise VerificationError(f"the base that was made of {source} does not hold its tensors", hint=_IN_PYTHON)
    inputs = example_inputs(opened)
    return opened.module, Patient(
        identity=opened.identity,
        task=TASKS.get(opened.task_name),
        manifest=None,
        replicas=None,
        config=opened.config(),
        labels=opened.label_names,
        preprocessing=preprocessing_of(opened),
        companions=opened.beside(),
        notes=[
            *opened.notes,
            "which model was grafted is not recorded in it, so the layout is proven against that of "
            f"{opened.identity.name}",
        ],
        content_hash=content_hash(state),
        grafted_outputs=outputs_of(run_in_eval(opened.module, inputs)),
        inputs=inputs,
        layout=layout_of(opened.module),
        written=layout_of_state(state),
    )


def _base_in(source: Path, outline: Outline) -> Mapping[str, TensorSpec]:
    """Return the base's tensors by its own keys. Raises UsageError if nothing shows that it was grafted."""
    try:
        return base_of_state(outline.entries)
    except UsageError as error:
        before = outline.prefixes[-1] if outline.prefixes else ""
        if before == BASE or before.endswith(f".{BASE}"):  # replicas without weights leave nothing else
            return {key.removeprefix(before): spec for key, spec in outline.entries.items() if key.startswith(before)}
        raise UsageError(
            f"{source} holds no replicas, so there is nothing to strip",
            hint="give a run, what `spgsurgeon graft` wrote, or the state dict of a grafted model in a file",
            code="not-grafted",
        ) from error
