"""The packages this one stands on: their versions, what they require of each other, and whether they import.

Versions are read from the metadata of what is installed (importlib.metadata), so a package too broken to import is
still named. `torch.utils.collect_env` lists versions too, but runs pip for it and judges nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from spgsurgeon.errors import UsageError
from spgsurgeon.runtime.checks import Check, Status, in_a_line

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_OURSELVES = "spgsurgeon"

# The module of each distribution, and what stands still while it does not import (None: not tried).
_PACKAGES: dict[str, tuple[str, str | None]] = {
    "torch": ("torch", "every command that opens a model"),
    "torchvision": ("torchvision", "every command that opens a model"),
    "timm": ("timm", "models of timm, and training"),
    "safetensors": ("safetensors", "writing weights"),
    "numpy": ("numpy", "every command that opens a model"),
    "pydantic": ("pydantic", None),
    "typer": ("typer", None),
    "rich": ("rich", None),
    "PyYAML": ("yaml", None),
    "Pillow": ("PIL", "every command that opens images"),
    "huggingface_hub": ("huggingface_hub", "strip, and models of the Hugging Face Hub"),
    "onnx": ("onnx", "strip --export onnx"),
    "onnxscript": ("onnxscript", None),
    "onnxruntime": ("onnxruntime", "strip --export onnx"),
    "matplotlib": ("matplotlib", "report, and figures of compare"),
    "Jinja2": ("jinja2", None),
    "tensorboard": ("tensorboard", "TensorBoard events of train"),
    "wandb": ("wandb", None),
    "mlflow-skinny": ("mlflow", None),
    "trackio": ("trackio", None),
}
EXTRAS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "report": ("matplotlib", "Jinja2"),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow-skinny",),
    "trackio": ("trackio",),
}
"""What each extra of this package installs: without it all else works."""
_EXTRA_OF = {package: extra for extra, found in EXTRAS.items() for package in found}


def missing(extra: str) -> list[str]:
    """Return the packages of an extra that are not installed."""
    return [name for name in EXTRAS[extra] if find_spec(_PACKAGES[name][0]) is None]


def extra_hint(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install '{_OURSELVES}[{extra}]'"


def require(extra: str, what: str) -> None:
    """Raise UsageError if `what` can't be done because the packages of an extra are not installed."""
    if lacking := missing(extra):
        verb = "is" if len(lacking) == 1 else "are"
        raise UsageError(
            f"{what} needs {' and '.join(lacking)}, which {verb} not installed",
            hint=extra_hint(extra),
            code="missing-package",
        )


def packages() -> list[dict[str, Any]]:
    """Return `name`, `version`, `required` and `ok` of each package; None if it is not installed or not known.

    `required` is what our own distribution's metadata asks for, its extras included; a package of an extra may be
    missing. `ok` is None if that can't be compared.
    """
    asked = _requirements_of(_OURSELVES, ("", *EXTRAS))
    ours = {_normal(requirement.name): requirement for requirement in asked}
    rows: list[dict[str, Any]] = [{"name": _OURSELVES, "version": _version(_OURSELVES), "required": None, "ok": None}]
    for name, (module, _) in _PACKAGES.items():
        found, requirement = _version(name) or _version_by_module(module), ours.get(_normal(name))
        absent = name in _EXTRA_OF  # whether it may be
        fits = None if requirement is None else absent if found is None else _accepts(requirement, found)
        rows.append({"name": name, "version": found, "required": _specifier(requirement), "ok": fits})
    return rows


def _normal(name: str) -> str:
    """Return the name as the metadata of a wheel may write it: huggingface-hub for huggingface_hub."""
    return name.lower().replace("_", "-")


def version_checks(rows: Iterable[dict[str, Any]]) -> Iterator[Check]:
    """Yield what the `rows` of `packages` come to: one check if all is well, else one for each that is not."""
    rows = [row for row in rows if row["name"] != _OURSELVES]
    unknown = [row["name"] for row in rows if row["ok"] is None]
    misfits = [row for row in rows if row["ok"] is False]
    if unknown:
        yield Check(
            "versions",
            "warning",
            f"not checked: the requirements on {', '.join(unknown)} can't be read from the installed metadata",
            "install spgsurgeon with pip, from its source tree too: pip install -e .",
        )
    for row in misfits:
        found = f"is {row['version']}" if row["version"] else "is not installed"
        hint = f"pip install '{row['name']}{row['required']}'"
        yield Check("versions", "problem", f"{row['name']} {found}; spgsurgeon needs {row['required']}", hint)
    if not unknown and not misfits:
        yield Check("versions", "ok", f"all {len(rows)} packages are as new as spgsurgeon needs")


def combination_checks() -> list[Check]:
    """Return what the installed packages have against each other by their metadata: demands, and the same module.

    Of two distributions of one module, such as onnxruntime and onnxruntime-gpu, each overwrites files of the other, and
    no requirement says so.
    """
    found = [check for name in _PACKAGES for check in _demands(name)]
    owners = packages_distributions()
    for module, _ in _PACKAGES.values():
        several = sorted(set(owners.get(module, [])))
        if len(several) > 1:
            message = f"{' and '.join(several)} are the same module: the one installed last overwrote the other"
            hint = f"keep one: pip uninstall {' '.join(several)}, then install the one you want"
            found.append(Check("combinations", "warning", message, hint))
    return found or [Check("combinations", "ok", "the packages' demands on each other are met")]


def import_checks() -> Iterator[Check]:
    """Import each package that has compiled parts, and yield how that went."""
    for name, (module, stands_still) in _PACKAGES.items():
        if stands_still is None:
            continue
        if name in _EXTRA_OF and find_spec(module) is None:
            hint = extra_hint(_EXTRA_OF[name])
            yield Check(f"import {module}", "ok", f"not installed, so there is no: {stands_still}", hint)
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import_module(module)
        except Exception as error:  # torchvision, for one, fails with RuntimeError where its operators do not load
            hint = f"without it there is no: {stands_still}; {_reinstall(name)}"
            yield Check(f"import {module}", "problem", in_a_line(error), hint)
        else:
            yield Check(f"import {module}", "ok", "imports")


def _demands(name: str) -> Iterator[Check]:
    """Yield what the installed distribution `name` requires and does not find.

    torchvision's own requirement says which torch it was compiled for: up to 0.29.0 one release exactly, 2.N for
    0.(N + 15), since then any from 2.14 on.
    """
    for requirement in _requirements_of(name):
        found = _version(requirement.name)
        if found is None:
            message = f"{name} requires {requirement.name}, which is not installed"
            yield Check("combinations", "warning", message, f"pip install '{_plain(requirement)}'")
        elif not _accepts(requirement, found):
            status: Status = "problem" if requirement.name == "torch" else "warning"  # compiled against it
            message = f"{name} {_version(name)} requires {_plain(requirement)}; {found} is installed"
            yield Check("combinations", status, message, _reinstall(name))


def _reinstall(name: str) -> str:
    if name in ("torch", "torchvision"):
        return "install torch and torchvision anew, both from the same index: pytorch.org/get-started"
    return f"pip install --upgrade --force-reinstall {name}"


def _requirements_of(name: str, extras: Iterable[str] = ("",)) -> list[Requirement]:
    """Return what a distribution requires here, with these extras; none where it or `packaging` is not installed."""
    try:  # packaging is not a dependency of ours, but of huggingface-hub, which is
        from packaging.requirements import InvalidRequirement, Requirement

        texts = requires(name) or []
    except (ImportError, PackageNotFoundError):
        return []
    found = []
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            found.append(requirement)
    return found


def _accepts(requirement: Requirement, found: str) -> bool:
    return requirement.specifier.contains(found, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _version_by_module(module: str) -> str | None:
    """Return the version of another distribution of the same module, as onnxruntime-gpu is one."""
    others = packages_distributions().get(module, [])
    return _version(others[0]) if others else None


def _specifier(requirement: Requirement | None) -> str | None:
    return str(requirement.specifier) if requirement else None


def _plain(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"
