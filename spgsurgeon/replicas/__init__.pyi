from .grafted import GraftedModel, detach, layout_of, layout_of_state, refuse_grafted
from .kinds.kind import ReplicaKind
from .outputs import joined, logits_names, main_output, outputs_of
from .places import Place
from .stacking import ReplicaChain, running_statistics_kept
from .states import BASE, base_of_state, holds_replicas
from .wrappers import refuse_wrapped, unwrapped

__all__ = [
    "BASE",
    "GraftedModel",
    "Place",
    "ReplicaChain",
    "ReplicaKind",
    "base_of_state",
    "detach",
    "holds_replicas",
    "joined",
    "layout_of",
    "layout_of_state",
    "logits_names",
    "main_output",
    "outputs_of",
    "refuse_grafted",
    "refuse_wrapped",
    "running_statistics_kept",
    "unwrapped",
]
