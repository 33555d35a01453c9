"""`spgsurgeon graft`: from a base to a grafted folder, proven first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spgsurgeon import __version__
from spgsurgeon.checkpoint.folders import GraftManifest, write_grafted_folder
from spgsurgeon.checkpoint.hashing import layout_hash
from spgsurgeon.checkpoint.writing import atomic_folder, refuse_existing, refuse_overwriting_input
from spgsurgeon.commands.inspect import describe
from spgsurgeon.errors import SurgeonError, UsageError
from spgsurgeon.loading.opening import OpenedModel, non_finite, open_model, state_of
from spgsurgeon.replicas.grafted import GraftedModel
from spgsurgeon.surgery.attaching import DROPOUT, Replicas, attach_replicas, replicas_from, site_document
from spgsurgeon.surgery.proof import example_inputs, fingerprint, prove_graft


@dataclass(frozen=True)
class ProvenGraft:
    """A fresh graft whose laws were checked on the user's own model."""

    grafted: GraftedModel
    manifest: GraftManifest
    proof: dict[str, bool]


def graft_folder(
    model: str,
    output: Path,
    *,
    replicas: Replicas = DROPOUT,
    num_classes: int | None = None,
    weights: str | None = None,
    arch: str | None = None,
    random_seed: int | None = None,
    task: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Graft the base that `model` names, prove laws 1 and 2 on it, and write a grafted folder to `output`.

    Returns the document of `graft --json`. Raises VerificationError, and writes nothing, where a law does not hold.
    """
    refuse_existing(output, force=force)
    opened = open_model(model, weights=weights, arch=arch, num_classes=num_classes, random_seed=random_seed, task=task)
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
    return {
        "output": str(output),
        "base": describe(opened, known_hash=proven.manifest.base["content_hash"]),
        "trp": proven.manifest.trp,
        "temporary_parameters": proven.manifest.temporary_parameters,
        "proof": proven.proof,
        "notes": opened.notes,
    }


def graft_proven(opened: OpenedModel, replicas: Replicas, *, head_batch: str = "stacked", seed: int = 0) -> ProvenGraft:
    """Graft an opened base and prove it; new weights are a function of `seed`.

    Raises VerificationError, ArchitectureError or UsageError where that fails.
    """
    if bad := non_finite(state_of(opened.module)):
        raise SurgeonError(
            f"{len(bad)} tensors hold NaN or infinity: {', '.join(bad[:5])}",
            hint="such weights can't be retrained; was the checkpoint written by a run that diverged?",
        )
    replicas = replicas.settled(opened)
    inputs = example_inputs(opened)
    before = fingerprint(opened.module, inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        grafted = attach_replicas(opened.module, opened, replicas, head_batch).eval()
    proof = prove_graft(grafted, before, inputs)
    identity, state = opened.identity, state_of(opened.module)
    manifest = GraftManifest(
        package_version=__version__,
        base={
            "source": opened.source,
            "library": identity.library,
            "architecture": identity.architecture,
            "num_classes": identity.num_classes,
            "model_args": identity.model_args,
            "content_hash": before.content_hash,
            "tensors": len(state),
            "layout": layout_hash(state),
            "notes": opened.notes,
            **_original_keys(opened),
        },
        trp=replicas.document(),
        site=site_document(opened, replicas),
        temporary_parameters=sum(p.numel() for p in grafted.replicas.parameters()),
    )
    return ProvenGraft(grafted, manifest, proof)


def _original_keys(opened: OpenedModel) -> dict[str, list[str]]:
    """Return what the original file called its weights, for transformers, which leaves out shared ones and renames."""
    return {"keys": list(opened.located.outline.entries)} if opened.located and opened.located.of_transformers else {}


def regraft(opened: OpenedModel, temporary: dict[str, Tensor] | None, *, head_batch: str = "stacked") -> GraftedModel:
    """Return the grafted model of an opened grafted folder, with its replicas' weights where they are given."""
    assert opened.manifest is not None
    with torch.random.fork_rng(devices=[]):
        grafted = attach_replicas(opened.module, opened, replicas_from(opened.manifest.trp), head_batch).eval()
    if temporary is not None:
        grafted.replicas.load_state_dict(temporary)
    return grafted
