"""Files around a hand-made pickle: all kinds that the readers open, with a good tensor where there is room for it."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from forms import text

VALUES = struct.pack("<2f", 1.0, 2.0)

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x02tQ"
_REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n(" + _STORAGE + b"K\x00K\x02\x85K\x01\x85\x89" + b"ccollections\n"
TENSOR = _REBUILD + b"OrderedDict\n)RtR"  # of two values
GOOD = b"}" + text("fc.weight") + TENSOR + b"s"

Write = Callable[[Path, bytes, int], Path]


def begun(protocol: int) -> bytes:
    return b"" if protocol < 2 else b"\x80" + bytes([protocol])


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"model/{name}"), content)
    return buffer.getvalue()


def torch_zip(tree: bytes, protocol: int) -> bytes:
    return zipped(
        {"data.pkl": begun(protocol) + tree + b".", "byteorder": b"little", "data/0": VALUES, "version": b"3"}
    )


def torch_legacy(tree: bytes, protocol: int, place: int = 3) -> bytes:
    """Return a file of before torch 1.6; `tree` is the one of its five pickles at `place`, the others are good."""
    facts = {"protocol_version": _VERSION, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    pickles = [pickle.dumps(value, 2) for value in (_MAGIC, _VERSION, facts)]
    pickles += [b"\x80\x02" + GOOD + b".", pickle.dumps(["0"], 2)]
    pickles[place] = begun(protocol) + tree + b"."
    return b"".join(pickles) + struct.pack("<q", 2) + VALUES


def beside_weights(expression: bytes) -> bytes:
    return b"}(" + text("state_dict") + GOOD + text("optimizer") + b"]" + expression + b"au"


def as_weight(expression: bytes) -> bytes:
    return b"}(" + text("fc.weight") + TENSOR + text("fc.bias") + expression + b"u"


def as_settings(expression: bytes) -> bytes:
    arguments = b"cargparse\nNamespace\n)R}" + text("model") + expression + b"sb"
    return b"}(" + text("model") + GOOD + text("args") + arguments + b"u"


def as_storage(expression: bytes) -> bytes:
    return b"}" + text("fc.weight") + TENSOR.replace(b"ctorch\nFloatStorage\n", expression) + b"s"


def _file(name: str, content: Callable[[bytes, int], bytes]) -> Write:
    def write(folder: Path, expression: bytes, protocol: int) -> Path:
        (folder / name).write_bytes(content(expression, protocol))
        return folder / name

    return write


def _hub(folder: Path, expression: bytes, protocol: int) -> Path:
    (folder / "config.json").write_text(json.dumps({"architecture": "test_resnet"}))
    return _file("pytorch_model.bin", torch_zip)(folder, expression, protocol)


def _shards(folder: Path, expression: bytes, protocol: int) -> Path:
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    (folder / names[0]).write_bytes(torch_zip(GOOD, 2))
    (folder / names[1]).write_bytes(torch_zip(expression, protocol))
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"fc.weight": names[0], "fc.bias": names[1]}}))
    return index


CONTAINERS: dict[str, Write] = {
    "a zip": _file("model.pth", torch_zip),
    "a zip, beside the weights": _file("model.ckpt", lambda e, p: torch_zip(beside_weights(e), p)),
    "a zip, as a weight": _file("model.pt", lambda e, p: torch_zip(as_weight(e), p)),
    "a zip, in the settings": _file("model.tar", lambda e, p: torch_zip(as_settings(e), p)),
    "a zip, as a storage's class": _file("model.bin", lambda e, p: torch_zip(as_storage(e), p)),
    **{
        f"a legacy file's pickle {place}": _file("old.pth", lambda e, p, place=place: torch_legacy(e, p, place))
        for place in range(5)
    },
    "a legacy file, beside the weights": _file("old.tar", lambda e, p: torch_legacy(beside_weights(e), p)),
    "a bare pickle": _file("bare.pkl", lambda e, p: begun(p) + e + b"."),
    "a bare pickle called weights": _file("bare.pth", lambda e, p: begun(p) + e + b"."),
    "a bare pickle called safetensors": _file("model.safetensors", lambda e, p: begun(p) + e + b"."),
    "beside a config.json": _hub,
    "a shard": _shards,
}

# What makes each of these files a good one, so that nothing but the gadget is refused.
INSTEAD: dict[str, bytes] = {
    "a zip": GOOD,
    "a zip, beside the weights": b"N",
    "a zip, as a weight": TENSOR,
    "a zip, in the settings": text("resnet18"),
    "a zip, as a storage's class": b"ctorch\nFloatStorage\n",
    "a legacy file's pickle 3": GOOD,
    "a legacy file, beside the weights": b"N",
    "beside a config.json": GOOD,
    "a shard": b"}" + text("fc.bias") + TENSOR + b"s",
}
