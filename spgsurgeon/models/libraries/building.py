"""From an identity and a checkpoint's tensors to a module that holds exactly these tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from threading import get_ident

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.limits import limited_to
from spgsurgeon.models.libraries.registry import library
from spgsurgeon.models.preprocessing import of_images
from spgsurgeon.models.recognition.fingerprints import Shape
from spgsurgeon.models.recognition.varying_shapes import number_at, places_between
from spgsurgeon.models.sites.depth import find_depth_site
from spgsurgeon.models.sites.heads import DepthSite, Site
from spgsurgeon.models.sites.inner import InnerSites
from spgsurgeon.models.sites.search import find_sites
from spgsurgeon.models.sites.transformers_depth import find_transformers_depth_site
from spgsurgeon.models.sites.transformers_sites import find_transformers_sites, is_of_transformers

_SHOWN = 5
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_SMALL = 0.01  # of new logits, as a share of the root of the mean square of what the head reads
_CLASSES = 1000, 13  # two numbers that have nothing in common, to see what follows the number of classes


def build(identity: Identity) -> nn.Module:
    """Return the module of `identity` with random weights, in eval mode."""
    return library(identity.library).build(identity).eval()


def build_for_loading(identity: Identity, tensors: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Return the module of `identity` without the numbers of its parameters, which `load_weights` is about to put in.

    They are on the meta device, so a large model is built in no time and no memory. Buffers are computed as usual: some
    are no part of the state dict. Where the library's code needs the numbers of a parameter, all are there, as in
    `build`. The caller's random numbers stay as they are.

    `tensors` are those of the file that the arguments in `identity` may be from: a module far larger than them is an
    ArchitectureError, tried first where nothing takes memory.
    """
    with torch.random.fork_rng(devices=[]), _limits(identity, tensors):
        with suppress(ArchitectureError), _parameters_on_meta():
            module = build(identity)
            if not any(buffer.is_meta for buffer in module.buffers()):
                return module
        return build(identity)


@contextmanager
def _limits(identity: Identity, tensors: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Build once without memory where arguments say how large, to see; without any it is as large as it should be."""
    if tensors is None or not identity.model_args:
        yield
        return
    with limited_to(tensors, identity.name):
        with suppress(ArchitectureError), torch.device("meta"):  # what is over the limit is so from now on
            library(identity.library).build(identity)
        yield


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Take the numbers of each parameter away when it becomes a module's, in this thread."""
    builder = get_ident()

    def hook(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta or get_ident() != builder:
            return None
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    handle = register_module_parameter_registration_hook(hook)  # type: ignore[arg-type]  # it may return a parameter
    try:
        yield
    finally:
        handle.remove()


def sites_of(identity: Identity, module: nn.Module) -> tuple[Site, ...]:
    """Return where dropout replicas attach (see `find_sites`), traced at the model's own input size.

    Those of transformers are known by their class. Raises ArchitectureError if there is no classifier, or none that
    can be grafted.
    """
    if is_of_transformers(module):
        return find_transformers_sites(module)
    return find_sites(module, _example(identity, module))


def depth_site_of(identity: Identity, module: nn.Module) -> DepthSite:
    """Return where depth replicas attach (see `find_depth_site`), traced at the model's own input size.

    Layers of transformers are known by their class. Raises ArchitectureError if there is no classifier, or where the
    family of the model has no such replicas.
    """
    if is_of_transformers(module):
        return find_transformers_depth_site(module)
    return find_depth_site(module, _example(identity, module))


def inner_sites_of(identity: Identity, module: nn.Module) -> InnerSites:
    """Return what looks for layers that replicas run again, traced at the model's own input size.

    Raises ArchitectureError if there is no classifier.
    """
    if is_of_transformers(module):
        raise ArchitectureError(f"{identity.name} has no replicas of its layers: they are known for image models only")
    return InnerSites(module, _example(identity, module))


def _example(identity: Identity, module: nn.Module) -> Tensor:
    """Return an image as the model wants it, which holds no numbers; models without a classifier are refused."""
    if identity.num_classes == 0:
        raise ArchitectureError(f"{identity.name} has no classifier here", hint="give it one: --num-classes N")
    size = of_images(library(identity.library).preprocessing(identity, module), identity.name).input_size
    parameter = next(module.parameters())
    return torch.empty(1, *size, dtype=parameter.dtype, device="meta")


def fit_identity(identity: Identity, tensors: Mapping[str, Tensor], classes: int | None = None) -> Identity:
    """Return `identity` with the input channels, heads and number of classes that the checkpoint's shapes call for.

    `classes` is their number where it is known already. A checkpoint with nothing that follows that number has no
    classifier: 0 classes. Where its shapes contradict each other, the identity's own number stays.
    """
    with limited_to(tensors, identity.name) if identity.model_args else nullcontext():
        args = library(identity.library).args_from_tensors(identity, tensors)
    identity = replace(identity, model_args=identity.model_args | args)
    if classes is not None:
        return replace(identity, num_classes=classes)
    shapes, other = (_shapes(replace(identity, num_classes=number), tensors) for number in _CLASSES)
    places = places_between(shapes, other, *_CLASSES)
    if not places:
        return identity  # an encoder, which has no classes to count
    found = number_at({key: tuple(value.shape) for key, value in tensors.items()}, places, otherwise=0)
    return identity if found is None else replace(identity, num_classes=found)


def _shapes(identity: Identity, tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {key: tuple(value.shape) for key, value in build_for_loading(identity, tensors).state_dict().items()}


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> list[str]:
    """Put `tensors` in place of the module's own, keeping their dtypes and without copying them.

    What nothing can be missed in may be absent: batch norm's counters, which files from before PyTorch 0.4.1 lack, and
    tensors without elements. Returns what the user should know of that. Raises ArchitectureError naming the keys, where
    keys or shapes are not those of the architecture `name`.
    """
    own = module.state_dict()
    absent = [key for key in own if key not in tensors]
    counters = [key for key in absent if key.endswith(".num_batches_tracked")]
    faults = [f"missing {key}" for key in absent if own[key].numel() and key not in counters]
    faults += [f"unexpected {key}" for key in tensors if key not in own]
    faults += [
        f"{key} is {list(tensors[key].shape)}, expected {list(value.shape)}"
        for key, value in own.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise ArchitectureError(
            f"the checkpoint does not fit {name}: {'; '.join(faults[:_SHOWN])}{more}",
            hint="is the architecture right? --arch says which",
            faults=faults,
        )
    _check_dtypes({key: tensors[key] for key, _ in module.named_parameters() if key in tensors}, name)
    own.update({key: torch.empty(own[key].shape) for key in absent if key not in counters} | dict(tensors))
    module.load_state_dict(own, assign=True)  # with the module's own versions: torchvision's MNASNet insists on one
    return [f"{len(counters)} counters of batch norms are absent and start at 0"] if counters else []


def _check_dtypes(parameters: Mapping[str, Tensor], name: str) -> None:
    """Raise ArchitectureError for parameters in 8 bits or as integers, which are weights only with their scales."""
    odd = {
        key: str(value.dtype).removeprefix("torch.") for key, value in parameters.items() if value.dtype not in _FLOATS
    }
    if odd:
        raise ArchitectureError(
            f"{name}: {len(odd)} weights are {', '.join(sorted(set(odd.values())))}, such as {next(iter(odd))}",
            hint="they are quantized: give the weights as they were before, or dequantize them to float32 with what "
            "quantized them",
            code="quantized-weights",
        )


def load_model(identity: Identity, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the module of `identity` with `tensors`, all of them, in eval mode. See `load_weights`."""
    if identity.library == "transformers":
        from spgsurgeon.models.libraries.transformers_library import TransformersLibrary

        with torch.random.fork_rng(devices=[]):
            return TransformersLibrary().load(identity, tensors)[0]
    module = build_for_loading(identity)
    load_weights(module, tensors, identity.name)
    return module


def with_classes(module: nn.Module, identity: Identity, num_classes: int) -> tuple[nn.Module, Identity]:
    """Return the model for another number of classes: every weight kept but those of its heads, which are untrained.

    The new layers of logits start near zero, drawn by torch's own generator: all classes are as likely then, whatever
    the body's scale is, and the first gradients are no larger than they need be. Raises ArchitectureError for an
    encoder, which its library never gives a classifier.
    """
    of_others = ("label_names", "label_descriptions", "tag")  # a tag names published weights, and these are not they
    cfg = {k: v for k, v in (identity.pretrained_cfg or {}).items() if k not in of_others}
    identity = replace(identity, num_classes=num_classes, pretrained_cfg=cfg or None)
    other = build(identity)
    before, dtype = module.state_dict(), next(module.parameters()).dtype
    fresh = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in other.state_dict().items()
        if key not in before or before[key].shape != value.shape  # with other classes, every layer of logits
    }
    if not fresh:
        raise ArchitectureError(
            f"{identity.name} is an encoder: {identity.library} builds it without a classifier, whatever the number of "
            "classes"
        )
    load_weights(other, before | fresh, identity.name)
    _start_near_zero(other, identity)
    return other, identity


def _start_near_zero(module: nn.Module, identity: Identity) -> None:
    """Make logits small, by what follows the number of classes.

    They are not zero: activations that some models have after their logits would let no gradient pass then.
    """
    more = build_for_loading(replace(identity, num_classes=identity.num_classes + 1)).state_dict()
    for name, parameter in module.named_parameters():
        if parameter.shape == more[name].shape:
            continue
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=_SMALL / parameter[0].numel() ** 0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
