"""A pickle read as data: disassembled, refused where it asks for more than weights need, and never executed."""

from __future__ import annotations

import re
import warnings
from typing import IO, Any

from spgsurgeon.checkpoint.pickle.allowlist import ALLOWED_GLOBALS
from spgsurgeon.checkpoint.pickle.machine import Machine
from spgsurgeon.checkpoint.pickle.nodes import Persistent
from spgsurgeon.checkpoint.refusals import MalformedError, UnsafeError

# Names, shapes and settings take a few hundred bytes a tensor; the values themselves lie outside of the pickle.
PICKLE_LIMIT = 100_000_000  # bytes

_SHOWN = 5

# Classes of plain data that training scripts leave beside the weights. They are not read either, as nothing needs them,
# but they are no sign of an attack, so whoever trusts the file may unpickle it once.
_HARMLESS = re.compile(
    r"datetime\.(datetime|date|time|timedelta|timezone)|collections\.deque|decimal\.Decimal|uuid\.UUID"
    r"|typing\.Any|mm(engine|cv)(\.\w+)*\.HistoryBuffer|omegaconf\.\w+\.\w*(Config|Node|Metadata)"
)
_SECTIONS = ("state_dict", "model", "model_state_dict")


def read_pickle(stream: IO[bytes]) -> tuple[Any, list[Persistent]]:
    """Return the tree of plain data (see `nodes.py`) in a pickle, and its persistent ids in order.

    Reads one pickle and leaves the stream right behind it. Raises UnsafeError if it asks for anything outside
    `ALLOWED_GLOBALS`, with all of it in `details["unsafe"]`: each `module.name`, `<computed name>` where a name can't
    be known before running the pickle, `<instruction INST>` for an instruction that saved weights never contain; also
    where it is longer than weights ever need. Raises MalformedError if it is cut off or malformed.
    """
    machine, fault, tree = Machine(), None, None
    try:
        with warnings.catch_warnings(action="ignore"):  # the disassembler decodes backslashes, and warns of odd ones
            tree = machine.run(stream)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, UnsafeError) as error:
        fault = error
    # A gadget runs as soon as it is reached, so what a broken pickle asks for comes before its being broken.
    unsafe = [name for name in machine.globals if name not in ALLOWED_GLOBALS]
    if unsafe:
        raise _unsafe(unsafe, tree)
    if isinstance(fault, UnsafeError):
        raise fault
    if fault is not None:
        reason = f"{type(fault).__name__}: {fault}"
        raise MalformedError(f"its pickle is cut off or malformed ({reason:.200})") from fault
    return tree, machine.persistent


def _unsafe(unsafe: list[str], tree: Any) -> UnsafeError:
    more = f" and {len(unsafe) - _SHOWN} more" if len(unsafe) > _SHOWN else ""
    return UnsafeError(
        f"it asks for {', '.join(unsafe[:_SHOWN])}{more}, which reading weights never needs",
        hint=_saving_anew(tree)
        if all(_HARMLESS.fullmatch(name) for name in unsafe)
        else "nothing in it was run; who made the file can save model.state_dict() alone, best as .safetensors",
        code="unsafe-pickle",
        unsafe=unsafe,
    )


def _saving_anew(tree: Any) -> str:
    """Return the line that saves the weights alone, for someone who trusts the file: it is unpickled there."""
    sections = [name for name in _SECTIONS if isinstance(tree, dict) and isinstance(tree.get(name), dict)]
    weights = f"d['{sections[0]}']" if sections else "d"
    return (
        "nothing in it was run. If you trust whoever made it, this runs it and saves the weights alone: "
        f"python -c \"import torch; d = torch.load('FILE', 'cpu', weights_only=False); "
        f"torch.save({weights}, 'weights.pth')\""
    )
