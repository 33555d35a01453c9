from .grafting import ProvenGraft, graft_proven, regraft
from .proof import Inputs, Layout, example_inputs, prove_file, prove_strip

__all__ = ["Inputs", "Layout", "ProvenGraft", "example_inputs", "graft_proven", "prove_file", "prove_strip", "regraft"]
