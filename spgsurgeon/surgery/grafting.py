"""A graft with its proof, and one that was proven once, attached anew."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from spgsurgeon import __version__
from spgsurgeon.checkpoint import MANIFEST, TEMPORARY, GraftManifest, layout_hash
from spgsurgeon.errors import DamagedFileError
from spgsurgeon.loading import UNTRAINED, OpenedModel, refuse_unsound, state_of
from spgsurgeon.models import limited_to
from spgsurgeon.replicas import GraftedModel, ReplicaKind
from spgsurgeon.replicas.kinds import replicas_from
from spgsurgeon.surgery.proof import example_inputs, fingerprint, prove_graft


@dataclass(frozen=True)
class ProvenGraft:
    """A fresh graft whose laws were checked on the user's own model."""

    grafted: GraftedModel
    manifest: GraftManifest
    proof: dict[str, bool]


def graft_proven(
    opened: OpenedModel, replicas: ReplicaKind, *, head_batch: str = "stacked", seed: int = 0
) -> ProvenGraft:
    """Graft an opened base and prove it; new weights are a function of `seed`.

    Raises VerificationError, ArchitectureError or UsageError if that fails.
    """
    refuse_unsound(state_of(opened.module))
    replicas = replicas.settled(opened)
    inputs = example_inputs(opened)
    before = fingerprint(opened.module, inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        grafted = replicas.attach_to(opened.module, replicas.places(opened), head_batch).eval()
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
            **({"hub_id": opened.hub_id} if opened.hub_id else {}),
            **({UNTRAINED: list(opened.untrained)} if opened.untrained else {}),
        },
        trp=replicas.document(),
        site=replicas.site_document(opened),
        temporary_parameters=sum(p.numel() for p in grafted.replicas.parameters()),
    )
    return ProvenGraft(grafted, manifest, proof)


def _original_keys(opened: OpenedModel) -> dict[str, list[str]]:
    """Return what the original file called its weights, for transformers, which leaves out shared ones and renames."""
    return {"keys": list(opened.located.outline.entries)} if opened.located and opened.located.of_transformers else {}


def regraft(opened: OpenedModel, temporary: dict[str, Tensor] | None, *, head_batch: str = "stacked") -> GraftedModel:
    """Return the grafted model of an opened grafted folder, with its replicas' weights where they are given."""
    assert opened.manifest is not None
    replicas = replicas_from(opened.manifest.trp)
    bounded = nullcontext() if temporary is None else limited_to(temporary, f"{opened.source} with its replicas")
    with torch.random.fork_rng(devices=[]), bounded:
        grafted = replicas.attach_to(opened.module, replicas.places(opened), head_batch).eval()
    if temporary is not None:
        try:
            grafted.replicas.load_state_dict(temporary)
        except RuntimeError as error:  # torch lists the keys and shapes below its first line
            reason = str(error).partition("\n")[2].strip().partition("\n")[0]
            raise DamagedFileError(
                f"{opened.folder} is damaged: {TEMPORARY} does not hold what {MANIFEST} says was grafted: {reason:.200}"
            ) from error
    return grafted
