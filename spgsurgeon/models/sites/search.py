"""Where dropout replicas attach: the layers that make the logits, found by tracing and without guessing at names.

Shapes: N images; C = number of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.utils.parametrize import is_parametrized

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.sites.heads import Site
from spgsurgeon.models.sites.segmentation import find_segmentation_sites, is_segmentation_model
from spgsurgeon.models.sites.tracing import meta_twin, run_twin
from spgsurgeon.models.sites.transformers_sites import find_transformers_sites, is_of_transformers
from spgsurgeon.objective import named_logits


def find_sites(model: nn.Module, example: Tensor) -> tuple[Site, ...]:
    """Return the layers that make the logits of `model`, an image classifier; the first makes those of its main output.

    Models of transformers, of any task, are known by their class: see `find_transformers_sites`. Segmentation models of
    torchvision are replicated before their whole heads: see `find_segmentation_sites`. Otherwise these are the layers
    whose output reaches the model's in train mode through no further layer: distilled and two-branch models have
    several, which they combine, others an auxiliary head. They are found in the autograd graph of one pass on the meta
    device, so nothing is computed and the model stays as it is; of `example` [N, channels, H, W] only the size and type
    matter.

    Raises ArchitectureError, saying what was found, where a head is not a Linear or 1x1 convolution.
    """
    if getattr(model, "num_classes", None) == 0:
        raise ArchitectureError("the model has no classifier", hint="give it one: --num-classes N")
    if is_of_transformers(model):
        return find_transformers_sites(model)
    if is_segmentation_model(model):
        return find_segmentation_sites(model, example)
    twin = meta_twin(model)
    outputs, makers = _trace(twin, example)
    names = {module: name for name, module in twin.named_modules()}
    calls, heads = list(makers.values()), _last_layers(outputs, makers)
    if len({output.shape for output in outputs}) > 1:
        raise _other_classes(outputs, [names[head] for head in heads])
    sites = []
    for head in heads:
        if calls.count(head) > 1:
            raise ArchitectureError(f"the head {names[head]!r} is called {calls.count(head)} times in one forward pass")
        sites.append(_site(names[head], head, classes=outputs[0].shape[1]))
    if not sites:
        raise ArchitectureError("the model is not an image classifier: no layer makes its output")
    return tuple(sites)


def _other_classes(outputs: Sequence[Tensor], paths: Sequence[str]) -> ArchitectureError:
    """Return the refusal of a model whose outputs have not the same classes: one loss can't be of all of them."""
    return ArchitectureError(
        f"the model has heads of different classes ({', '.join(str(output.shape[1]) for output in outputs)}), each of "
        "which needs a loss of its own",
        hint=f"name the heads that get replicas, graft(model, site={paths}): in train mode their logits come as a "
        "tuple, and spg_loss takes one of them at a time",
        code="other-classes",
    )


def _trace(twin: nn.Module, example: Tensor) -> tuple[list[Tensor], dict[Node, nn.Module]]:
    """Return the outputs [2, C] of a pass, and which layer made what in their autograd graph."""
    makers: dict[Node, nn.Module] = {}

    def note(layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.grad_fn is not None:
            makers[output.grad_fn] = layer

    for layer in twin.modules():
        if (not any(layer.children()) or is_parametrized(layer)) and any(True for _ in layer.parameters()):
            layer.register_forward_hook(note)
    output = run_twin(twin, example)
    if (logits := named_logits(output)) is not None:
        output = logits
    outputs = list(output) if isinstance(output, (tuple, list)) else [output]
    if not outputs or any(not isinstance(o, Tensor) or o.dim() != 2 for o in outputs):
        maps = isinstance(outputs[0], Tensor) and outputs[0].dim() == 4 if outputs else False
        raise ArchitectureError(
            f"the model is not an image classifier: its output is {_describe_output(output)}",
            hint="for maps, in Python, name its heads: graft(model, site=spgsurgeon.Place(PATH, width=D))"
            if maps
            else "in Python, name the layers that make logits, graft(model, site='fc')",
        )
    return outputs, makers


def _last_layers(outputs: Sequence[Tensor], makers: dict[Node, nn.Module]) -> list[nn.Module]:
    """Return the layers that a walk back from the outputs meets first, in the outputs' order and each once."""
    pending = [output.grad_fn for output in reversed(outputs)]
    seen: set[Node] = set()
    layers: dict[nn.Module, None] = {}
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in makers:
            layers[makers[node]] = None
        else:
            pending += [before for before, _ in reversed(node.next_functions)]
    return list(layers)


def _site(path: str, head: nn.Module, classes: int) -> Site:
    if isinstance(head, nn.Linear):
        site = Site(path, "Linear", head.in_features, head.out_features)
    elif isinstance(head, nn.Conv2d) and head.kernel_size == (1, 1) and head.groups == 1:
        site = Site(path, "Conv2d", head.in_channels, head.out_channels)
    else:
        kind = f"a {type(head).__name__}"
        raise ArchitectureError(
            f"the head at {path!r} is {kind}; replicas attach before a Linear or a 1x1 convolution only", head=kind
        )
    if site.classes != classes:
        raise ArchitectureError(
            f"the layer at {path!r} makes {site.classes} numbers, not the logits of {classes} classes"
        )
    return site


def _describe_output(output: object) -> str:
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {', '.join(map(_describe_output, output))}"
    return f"a tensor {list(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
