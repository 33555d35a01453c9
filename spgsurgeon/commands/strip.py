"""`spgsurgeon strip`: back to the base architecture, with the proof; what fails it is not written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from torch import nn

from spgsurgeon import __version__
from spgsurgeon.checkpoint import (
    CONFIG,
    TEMPORARY,
    atomic_file,
    atomic_folder,
    content_hash,
    kind_of,
    layout_hash,
    read_manifest,
    read_safetensors,
    refuse_existing,
    refuse_overwriting_input,
    write_json,
)
from spgsurgeon.commands.measured import basis_of_run, judged, scores_of
from spgsurgeon.commands.modules import FORMATS, format_of
from spgsurgeon.commands.stripping.card import card_of
from spgsurgeon.commands.stripping.graphs import GraphOptions, write_graph
from spgsurgeon.commands.stripping.state_file import take_down_file
from spgsurgeon.commands.stripping.written import (
    Patient,
    preprocessing_of,
    prove_from_pretrained,
    prove_written,
    write_weights,
)
from spgsurgeon.errors import SurgeonError, UsageError, VerificationError, did_you_mean
from spgsurgeon.exporting import CARD, FILES, GRAPHS, SUFFIXES, check_onnx, check_outputs
from spgsurgeon.loading import ModelRequest, OpenedModel, open_model, resolve_folder, state_of
from spgsurgeon.models import run_in_eval
from spgsurgeon.recipe import read_recipe
from spgsurgeon.replicas import detach, layout_of, layout_of_state, outputs_of
from spgsurgeon.replicas.kinds import replicas_from
from spgsurgeon.runs import RECIPE
from spgsurgeon.surgery import example_inputs, prove_strip, regraft
from spgsurgeon.tasks import TASKS, Task
from spgsurgeon.training import inputs_of


def strip_folder(
    source: Path,
    output: Path,
    *,
    exports: Sequence[str] = (),
    weights: str | None = None,
    arch: str | None = None,
    reference: str | None = None,
    opset: int | None = None,
    image_size: tuple[int, int] | None = None,
    onnx_outputs: str | None = None,
    half: bool = False,
    force: bool = False,
    told: Callable[[int, int, str], None] = lambda done, total, doing: None,
) -> dict[str, Any]:
    """Strip the grafted folder or run `source` and write it to `output`, proven.

    Or the file `source` with the state dict of a grafted model, whose base is recognised, or is what `arch` says.
    `output` is a folder, or a single file if it ends in .safetensors, .pt, .onnx or .pt2; `exports` names the formats
    (default: safetensors, or the file's own). Of an ONNX file, `opset` and its outputs, "main" or "all", can be chosen;
    of both kinds of graph the `image_size` (height, width) of their images in pixels (default: the model's own) and
    half precision. The proof: the layout is the original's, of a file the
    architecture's (and that of the model `reference`, if given), nothing of
    the graft is left, the written file has the same bits when it is read back, and the model read from it gives the
    grafted model's outputs bit for bit; a
    graph agrees with it to float rounding. Returns the document of `strip --json`; raises VerificationError, and
    writes nothing, if any of it fails. `told` hears how many stages are done, of how many, and which one begins.
    """
    formats, single = _formats(output, exports)
    options = GraphOptions(opset, image_size, onnx_outputs, half)
    options.refuse_idle(formats)
    check_outputs(options.outputs or "main")
    if "onnx" in formats:
        check_onnx()
    document = output.with_name(output.name + ".json") if single and formats[0] in GRAPHS else None
    written = (output, document) if document else (output,)
    for path in written:
        refuse_overwriting_input(path, [source, *_behind(source)])
    refuse_existing(output, force=force)
    stages = _Stages(1 + 2 * len(formats), told)
    stages.begin("taking replicas down")
    module, patient = _take_down(source, weights, arch)
    proof = {"layout_is_the_architectures" if patient.manifest is None else "layout_is_the_originals": True}
    if set(formats) <= set(GRAPHS):  # the others are proven on the file read back
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
        reports: dict[str, Any] = {}
        for kind, path in paths.items():
            stages.begin(f"writing {kind}")
            if kind in GRAPHS:
                reports[kind] = write_graph(kind, path, module, patient, options)
            else:
                write_weights(kind, path, module, patient)
        del module  # so that a large model is not in memory twice when the written files are read back
        outputs = []
        for kind, path in paths.items():
            stages.begin(f"proving {kind}")
            report = reports.get(kind) or prove_written(path, patient)
            proof |= report.pop("proof")
            outputs.append({"path": str(output if single else output / FILES[kind]), "format": kind, **report})
        if not single:
            proof = _completed(temporary, patient, source, proof, outputs)
        if proof_file is not None:
            write_json(proof_file, {**outputs[0], "proof": proof, "package_version": __version__})
    return {
        "outputs": outputs,
        "proof": proof,
        "proven": True,
        "notes": [*patient.notes, *_said_of_graphs(patient, formats), *_no_gain(source, patient.task)],
    }


class _Stages:
    """Counts the stages of a strip for whoever is told of them."""

    def __init__(self, total: int, told: Callable[[int, int, str], None]) -> None:
        self._begun, self._total, self._told = 0, total, told

    def begin(self, doing: str) -> None:
        self._told(self._begun, self._total, doing)
        self._begun += 1


def _completed(
    folder: Path, patient: Patient, source: Path, proof: dict[str, bool], outputs: Sequence[Mapping[str, Any]]
) -> dict[str, bool]:
    """Write what goes beside the weights into their folder, and return the proof of all of it."""
    formats = [output["format"] for output in outputs]
    graph_inputs = next((output["graph_inputs"] for output in outputs if "graph_inputs" in output), ())
    write_json(folder / CONFIG, patient.config)
    if patient.of_transformers and "safetensors" in formats:
        proof = proof | prove_from_pretrained(folder, patient)
    for name, content in patient.companions.items():
        (folder / name).write_bytes(content)
    (folder / CARD).write_text(card_of(patient, source, proof, formats, graph_inputs), encoding="utf-8")
    return proof


def _behind(source: Path) -> list[Path]:
    """Return the files and folders that a grafted folder or a run came from, as far as they are known and there."""
    found: list[Path] = []
    if source.is_file():
        return found
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


def _take_down(source: Path, weights: str | None, arch: str | None) -> tuple[nn.Module, Patient]:
    """Return the base of a grafted folder, run or file, and what must be true of it."""
    if not source.exists():
        raise UsageError(
            f"there is no {source}", hint="give a run, a grafted folder, or a grafted model's state dict in a file"
        )
    if source.is_file():
        return take_down_file(source, weights, arch)
    if arch is not None:
        raise UsageError(f"--arch is for a file that does not say what was grafted; {source} does", hint="leave it out")
    if kind_of(source) not in ("grafted", "run"):
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
    return base, Patient(
        identity=opened.identity,
        task=TASKS.get(opened.task_name),
        manifest=opened.manifest,
        replicas=_replicas(opened),
        config=opened.config(),
        labels=opened.label_names,
        preprocessing=preprocessing_of(opened),
        companions=opened.beside(),
        notes=opened.notes,
        content_hash=content_hash(state),
        grafted_outputs=outputs,
        inputs=inputs,
        layout=layout_of(base),
        written=layout_of_state(state),
    )


def _said_of_graphs(patient: Patient, formats: Sequence[str]) -> list[str]:
    if patient.preprocessing is not None or not set(formats) & set(GRAPHS):
        return []
    return ["no file beside the weights says how samples are prepared, so the graph does not say how either"]


def _replicas(opened: OpenedModel) -> str | None:
    """Return what the replicas were, in words; None for a control, which had none."""
    assert opened.manifest is not None
    replicas = replicas_from(opened.manifest.trp)
    return None if replicas.control else replicas.words_on(opened)


def _compare_layout(patient: Patient, reference: str, output: Path) -> None:
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


def _no_gain(source: Path, task: Task | None) -> list[str]:
    """Return the note that the retraining has not helped by its own scores, where it has not."""
    scores = None if task is None else scores_of(source, task)
    if task is None or scores is None:
        return []
    metric = judged(source, task).primary
    basis = basis_of_run(source)
    assert basis is not None
    said = [basis.said] if basis.said else []
    if "original" not in scores:
        return said
    original, best = (scores[when][metric.name] for when in ("original", "best"))
    if metric.better(best, original):
        return said
    verdict = f"worse than {basis.name}" if metric.better(original, best) else "no gain"
    return [*said, f"{verdict}: the run's best {metric.name} is {best:.3f}, that of {basis.name} {original:.3f}"]
