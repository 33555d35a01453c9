"""`spgsurgeon strip`: back to the base architecture, with the proof; what fails it is not written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from spgsurgeon import __version__
from spgsurgeon.checkpoint import (
    CONFIG,
    TEMPORARY,
    GraftManifest,
    atomic_file,
    atomic_folder,
    content_hash,
    kind_of,
    layout_hash,
    read_checkpoint,
    read_manifest,
    read_safetensors,
    refuse_existing,
    refuse_overwriting_input,
    same_bits,
    write_json,
    write_safetensors,
    write_torch,
)
from spgsurgeon.commands.measured import control_of, evaluation_of, scores_of
from spgsurgeon.commands.modules import FORMATS, SUFFIXES, format_of
from spgsurgeon.errors import SurgeonError, UsageError, VerificationError, did_you_mean
from spgsurgeon.exporting import CARD, FILES, check_outputs, export_onnx, model_card
from spgsurgeon.loading import ModelRequest, OpenedModel, open_model, resolve_folder, state_of
from spgsurgeon.models import (
    CHOICE,
    PIPELINES,
    Identity,
    is_of_transformers,
    library,
    load_model,
    of_images,
    run_in_eval,
)
from spgsurgeon.recipe import read_recipe
from spgsurgeon.replicas import detach, layout_of, layout_of_state, outputs_of
from spgsurgeon.replicas.kinds import replicas_from
from spgsurgeon.runs import RECIPE, recipe_of
from spgsurgeon.surgery import Inputs, Layout, example_inputs, prove_file, prove_strip, regraft
from spgsurgeon.tasks import TASKS, Task
from spgsurgeon.training import inputs_of


@dataclass(frozen=True)
class _OnnxOptions:
    """What was asked of the ONNX file; None is left to the exporter, to the model, and is `main`."""

    opset: int | None
    image_size: tuple[int, int] | None
    outputs: str | None


@dataclass(frozen=True)
class _Patient:
    """What is known of a base whose replicas were taken down, apart from its weights.

    `written` is the layout of its files, which is not that of the module if the library leaves out shared weights.
    `task` is None if the package has none for it.
    """

    identity: Identity
    task: Task | None
    manifest: GraftManifest
    replicas: str | None
    config: dict[str, Any]
    input_size: tuple[int, int, int] | None
    companions: dict[str, bytes]
    notes: list[str]
    content_hash: str
    grafted_outputs: tuple[Tensor, ...]
    inputs: Inputs
    layout: Layout
    written: Layout

    @property
    def of_transformers(self) -> bool:
        return self.identity.library == "transformers"


def strip_folder(
    source: Path,
    output: Path,
    *,
    exports: Sequence[str] = (),
    weights: str | None = None,
    reference: str | None = None,
    opset: int | None = None,
    image_size: tuple[int, int] | None = None,
    onnx_outputs: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Strip the grafted folder or run `source` and write it to `output`, proven.

    `output` is a folder, or a single file where it ends in .safetensors, .pt or .onnx; `exports` names the formats
    (default: safetensors, or the file's own). Of an ONNX file, `opset`, the `image_size` (height, width) of its
    pictures in pixels (default: the model's own) and its outputs, "main" or "all", can be chosen. The proof: the layout
    is the original's (and that of the model `reference`, if given), nothing of the graft is left, the written file has
    the same bits when it is read back, and the model read from it gives the grafted model's outputs bit for bit; an
    ONNX file agrees with it to float rounding. Returns the document of `strip --json`; raises VerificationError, and
    writes nothing, where any of it fails.
    """
    formats, single = _formats(output, exports)
    onnx = _OnnxOptions(opset, image_size, onnx_outputs)
    if "onnx" not in formats:
        _refuse_options(onnx)
    check_outputs(onnx.outputs or "main")
    document = output.with_name(output.name + ".json") if single and formats == ["onnx"] else None
    written = (output, document) if document else (output,)
    for path in written:
        refuse_overwriting_input(path, [source, *_behind(source)])
    refuse_existing(output, force=force)
    module, patient = _take_down(source, weights)
    proof = {"layout_is_the_originals": True}
    if formats == ["onnx"]:  # the others are proven on the file read back
        proof |= prove_strip(patient.grafted_outputs, module, patient.layout, patient.inputs)
    if reference is not None:
        _compare_layout(patient, reference, output)
        proof["layout_is_the_references"] = True
    target: AbstractContextManager[Path] = (atomic_file if single else atomic_folder)(output, force=force)
    beside: AbstractContextManager[Path | None] = nullcontext()
    if document is not None:
        beside = atomic_file(document, force=force)
    with beside as proof_file, target as temporary:
        paths = {kind: temporary if single else temporary / FILES[kind] for kind in formats}
        reports = {kind: _write(kind, path, module, patient, onnx) for kind, path in paths.items()}
        del module  # so that a large model is not in memory twice when the written files are read back
        outputs = []
        for kind, path in paths.items():
            report = reports[kind] or _prove(path, patient)
            proof |= report.pop("proof")
            outputs.append({"path": str(output if single else output / FILES[kind]), "format": kind, **report})
        if not single:
            write_json(temporary / CONFIG, patient.config)
            if patient.of_transformers and "safetensors" in formats:
                proof |= _prove_from_pretrained(temporary, patient)
            for name, content in patient.companions.items():
                (temporary / name).write_bytes(content)
            card = _card(patient, source, proof, formats)
            (temporary / CARD).write_text(card, encoding="utf-8")
        if proof_file is not None:
            write_json(proof_file, {**outputs[0], "proof": proof, "package_version": __version__})
    return {
        "outputs": outputs,
        "proof": proof,
        "proven": True,
        "notes": [*patient.notes, *_no_gain(source, patient.task)],
    }


def _behind(source: Path) -> list[Path]:
    """Return the files and folders that a grafted folder or a run came from, as far as they are known and there."""
    found: list[Path] = []
    with suppress(SurgeonError):  # what is wrong with the source is said when it is opened
        found.append(Path(read_manifest(resolve_folder(source)).base["source"]))
        if kind_of(source) == "run":
            found += inputs_of(read_recipe(source / RECIPE), None)
    return [path for path in found if path.exists()]


def _formats(output: Path, exports: Sequence[str]) -> tuple[list[str], bool]:
    """Return the formats to write, and whether `output` is a single file."""
    for kind in exports:
        if kind not in FORMATS:
            known = ", ".join(FORMATS)
            raise UsageError(f"unknown format {kind!r}; there are {known}", hint=did_you_mean(kind, FORMATS))
    if output.suffix not in SUFFIXES or output.is_dir():
        return list(dict.fromkeys(exports)) or ["safetensors"], False
    kind = format_of(output)
    if set(exports) - {kind}:
        wanted = ", ".join(exports)
        raise UsageError(f"{output.name} is one {kind} file, but {wanted} was asked for", hint="give a folder")
    return [kind], True


def _refuse_options(onnx: _OnnxOptions) -> None:
    given = {"--opset": onnx.opset, "--image-size": onnx.image_size, "--onnx-outputs": onnx.outputs}
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"{name} is for --export onnx")


def _take_down(source: Path, weights: str | None) -> tuple[nn.Module, _Patient]:
    """Return the base of a grafted folder or run, and what must be true of it."""
    if not source.exists():
        raise UsageError(f"there is no folder {source}", hint="give a run or a grafted folder")
    if source.is_file() or kind_of(source) not in ("grafted", "run"):
        raise UsageError(
            f"{source} is not grafted, so there is nothing to strip",
            hint="give a run, or what `spgsurgeon graft` wrote",
        )
    folder = resolve_folder(source)
    opened = open_model(ModelRequest(str(folder), weights=weights))
    assert opened.manifest is not None
    grafted = regraft(opened, read_safetensors(folder / TEMPORARY)[0])
    inputs = example_inputs(opened)
    outputs = outputs_of(run_in_eval(grafted, inputs))
    base = detach(grafted)
    state = state_of(base)
    if layout_hash(state) != opened.manifest.base["layout"]:
        raise VerificationError("keys, order, shapes or dtypes are not those of the model that was grafted (law 3)")
    return base, _Patient(
        identity=opened.identity,
        task=TASKS.get(opened.task_name),
        manifest=opened.manifest,
        replicas=_replicas(opened),
        config=opened.config(),
        input_size=None if is_of_transformers(base) else of_images(opened.preprocessing, opened.source).input_size,
        companions=opened.beside(),
        notes=opened.notes,
        content_hash=content_hash(state),
        grafted_outputs=outputs,
        inputs=inputs,
        layout=layout_of(base),
        written=layout_of_state(state),
    )


def _replicas(opened: OpenedModel) -> str | None:
    """Return what the replicas were, in words; None for a control, which had none."""
    assert opened.manifest is not None
    replicas = replicas_from(opened.manifest.trp)
    return None if replicas.control else replicas.words_on(opened)


def _compare_layout(patient: _Patient, reference: str, output: Path) -> None:
    opened = open_model(ModelRequest(reference))
    refuse_overwriting_input(output, opened.paths())
    layout = layout_of(opened.module)
    if layout == patient.layout:
        return
    differing = [mine[0] for mine, other in zip(patient.layout, layout, strict=False) if mine != other]
    raise VerificationError(
        f"the stripped model's layout differs from {reference}'s, first at "
        f"{differing[0] if differing else 'its end'} ({len(patient.layout)} and {len(layout)} tensors)"
    )


def _write(kind: str, path: Path, module: nn.Module, patient: _Patient, onnx: _OnnxOptions) -> dict[str, Any] | None:
    """Write one format; return its report if writing proved it, as it does for ONNX.

    The content hash of an ONNX file is that of the weights it was made from: it need not hold them as they are. Its
    bytes have a hash as well.
    """
    if kind == "onnx":
        if patient.input_size is None:
            raise UsageError(
                f"ONNX files are written of models that take images only, and {patient.identity.name} does not",
                hint="strip to a folder; optimum-cli exports what from_pretrained reads",
            )
        channels, height, width = patient.input_size
        size = (channels, *(onnx.image_size or (height, width)))
        report = export_onnx(module, path, size, outputs=onnx.outputs or "main", opset=onnx.opset)
        return {
            "content_hash": patient.content_hash,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "largest_difference": report.largest_difference,
            "logits_scale": report.logits_scale,
            "opset": report.opset,
            "batch_sizes": list(report.batch_sizes),
            "image_size": list(size[1:]),
            "graph_outputs": {name: asdict(agreement) for name, agreement in report.outputs.items()},
            "proof": {"onnx_agrees": True},
        }
    (write_safetensors if kind == "safetensors" else write_torch)(path, state_of(module))
    return None


def _prove(path: Path, patient: _Patient) -> dict[str, Any]:
    """Read a written file back and prove it; return its report."""
    content_hash = prove_file(path, patient.content_hash, patient.written)
    stripped = _read_back(path, patient)
    proof = prove_strip(patient.grafted_outputs, stripped, patient.layout, patient.inputs)
    outputs = zip(outputs_of(run_in_eval(stripped, patient.inputs)), patient.grafted_outputs, strict=True)
    difference = max((a - b).abs().max().item() for a, b in outputs)
    return {
        "content_hash": content_hash,
        "largest_difference": difference,
        "proof": proof | {"file_read_back_equal": True},
    }


def _read_back(path: Path, patient: _Patient) -> nn.Module:
    """Return the architecture, built anew, with the weights of the written file."""
    return load_model(patient.identity, read_checkpoint(path).tensors)


def _prove_from_pretrained(folder: Path, patient: _Patient) -> dict[str, bool]:
    """Prove that transformers itself reads the written folder to the same outputs, bit for bit."""
    from spgsurgeon.models import from_folder

    dtype = patient.config.get("dtype") or patient.config.get("torch_dtype")
    outputs = outputs_of(run_in_eval(from_folder(patient.identity, folder, dtype), patient.inputs))
    if not all(map(same_bits, outputs, patient.grafted_outputs)):
        raise VerificationError("what from_pretrained makes of the written folder gives other outputs")
    return {"from_pretrained_equal": True}


def _public_name(source: str) -> str:
    """Return a model's name, or the last part of a local path: a card is published, the rest of the path is not."""
    return Path(source).name if Path(source).is_absolute() else source


def _no_gain(source: Path, task: Task | None) -> list[str]:
    """Return the note that the retraining has not helped by its own scores, where it has not."""
    scores = None if task is None else scores_of(source, task)
    if task is None or scores is None:
        return []
    metric = task.primary
    original, best = (scores[when][metric.name] for when in ("original", "best"))
    if metric.better(best, original):
        return []
    said = "worse than the original" if metric.better(original, best) else "no gain"
    return [f"{said}: the run's best {metric.name} is {best:.3f}, the original's {original:.3f}"]


def _in_the_hub(patient: _Patient) -> dict[str, Any]:
    """Return what a card says of the task in the Hub's words, and how the model is used."""
    if patient.of_transformers:
        name = library("transformers").task(patient.identity.architecture)
        pipeline = "" if name == CHOICE else f'predict = transformers.pipeline("{PIPELINES[name]}", model=".")\n'
        return {"pipeline_tag": PIPELINES[name], "usage": pipeline}  # there is no pipeline that chooses
    assert patient.task is not None
    return {"pipeline_tag": patient.task.pipeline_tag, "usage": patient.task.usage}


def _card(patient: _Patient, source: Path, proof: dict[str, bool], formats: Sequence[str]) -> str:
    manifest, identity = patient.manifest, patient.identity
    recipe, task = (recipe_of(source) if kind_of(source) == "run" else None), patient.task
    return model_card(
        architecture=identity.architecture,
        library=identity.library,
        num_classes=identity.num_classes,
        builder_arguments=library(identity.library).builder_arguments(identity, len(patient.grafted_outputs)),
        replicas=patient.replicas,
        **_in_the_hub(patient),
        recipe=recipe,
        scores=scores_of(source, task) if task else None,
        higher_is_better=task is None or task.primary.higher_is_better,
        proof=dict(proof),
        content_hash=patient.content_hash,
        base_source=_public_name(manifest.base["source"]),
        base_content_hash=manifest.base["content_hash"],
        base_model=manifest.base.get("hub_id"),
        license=patient.config.get("pretrained_cfg", {}).get("license"),
        base_notes=manifest.base.get("notes", []),
        evaluation=evaluation_of(source, task) if task else None,
        control=control_of(source),
        package_version=__version__,
        formats=formats,
    )
