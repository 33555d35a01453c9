"""`spgsurgeon graft`: from a base to a grafted folder, proven first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from spgsurgeon.checkpoint import (
    TEMPORARY,
    WEIGHTS,
    atomic_folder,
    content_hash,
    read_grafted_folder,
    refuse_existing,
    refuse_overwriting_input,
    write_grafted_folder,
)
from spgsurgeon.commands.inspect import describe
from spgsurgeon.errors import SurgeonError, UsageError, VerificationError
from spgsurgeon.loading import ModelRequest, open_model, state_of
from spgsurgeon.replicas import ReplicaKind, layout_of, layout_of_state
from spgsurgeon.replicas.kinds import DEFAULT, kinds
from spgsurgeon.surgery import ProvenGraft, graft_proven, prove_file


def graft_folder(
    model: str,
    output: Path,
    *,
    replicas: ReplicaKind | None = None,
    num_classes: int | None = None,
    weights: str | None = None,
    arch: str | None = None,
    random_seed: int | None = None,
    task: str | None = None,
    image_size: tuple[int, int] | None = None,
    map_keys: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Graft the base that `model` names, prove laws 1 and 2 on it, and write a grafted folder to `output`.

    `replicas` are by default those of the default kind; `image_size` is (height, width) in pixels and `map_keys` is for
    weights with others' keys, see `ModelRequest`.
    Returns the document of `graft --json`. Raises
    VerificationError, and writes nothing, if a law does not hold or the files, read back, are not what was proven;
    UsageError for a control.
    """
    replicas = replicas or kinds()[DEFAULT]()
    if replicas.control:
        raise UsageError(
            f"{replicas.kind} is a control: it has no replicas to graft",
            hint=f"give `spgsurgeon train` the base, and trp.kind={replicas.kind}",
        )
    refuse_overwriting_input(output, [Path(model)] if os.path.lexists(model) else [])
    refuse_existing(output, force=force)
    opened = open_model(
        ModelRequest(model, weights, arch, num_classes, random_seed, image_size, map_keys=map_keys, task=task)
    )
    if opened.has_replicas:
        raise UsageError(f"{model} is grafted already", hint="strip it first, or give its base")
    refuse_overwriting_input(output, opened.paths())
    proven = graft_proven(opened, replicas)
    with atomic_folder(output, force=force) as folder:
        write_grafted_folder(
            folder,
            base=state_of(proven.grafted.base),
            temporary=state_of(proven.grafted.replicas),
            config=opened.config(),
            manifest=proven.manifest,
            companions=opened.beside(),
        )
        _prove_written(folder, proven)
    return {
        "output": str(output),
        "base": describe(opened, known_hash=proven.manifest.base["content_hash"]),
        "trp": proven.manifest.trp,
        "site": proven.manifest.site,
        "temporary_parameters": proven.manifest.temporary_parameters,
        "proof": proven.proof,
        "notes": opened.notes,
    }


def _prove_written(folder: Path, proven: ProvenGraft) -> None:
    """Prove that the files of a grafted folder, read back, are the base, its replicas, and what goes with them."""
    base, replicas = proven.grafted.base, proven.grafted.replicas
    prove_file(folder / WEIGHTS, proven.manifest.base["content_hash"], layout_of_state(state_of(base)))
    prove_file(folder / TEMPORARY, content_hash(state_of(replicas)), layout_of(replicas))
    try:
        read_grafted_folder(folder)
    except SurgeonError as error:
        raise VerificationError(f"what was written, read back, is damaged: {error.message}") from error
