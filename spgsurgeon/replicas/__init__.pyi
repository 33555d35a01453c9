from .grafted import GraftedModel, detach, layout_of, layout_of_state, refuse_grafted
from .kinds.kind import ReplicaKind
from .outputs import joined, logits_names, main_output, outputs_of
from .places import Place
from .stacking import ReplicaChain, running_statistics_kept

__all__ = [
    "GraftedModel",
    "Place",
    "ReplicaChain",
    "ReplicaKind",
    "detach",
    "joined",
    "layout_of",
    "layout_of_state",
    "logits_names",
    "main_output",
    "outputs_of",
    "refuse_grafted",
    "running_statistics_kept",
]
