"""The application: every verb registered, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import errno
import gc
import os
import platform
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import Annotated

import typer

from spgsurgeon import __version__
from spgsurgeon.cli.terminal.console import ClosedOutputError, fail, is_one_of_several, verbosity
from spgsurgeon.cli.terminal.first_line import clear_first_line
from spgsurgeon.cli.terminal.options import with_common_options
from spgsurgeon.errors import SurgeonError, UsageError
from spgsurgeon.runtime import as_json, in_a_line

VERBS = {
    "inspect": "Say what a checkpoint is.",
    "graft": "Add temporary replicas to a base.",
    "check": "Say what a data set holds, and what would go wrong with it.",
    "train": "Retrain a model by a recipe.",
    "strip": "Write the base without replicas, proven.",
    "eval": "Score a model on a data set.",
    "predict": "Say which class a model sees in images, and how likely it is.",
    "diff": "Say what became of a model's tensors, from A to B.",
    "compare": "Compare ways to train a model on your own data, at the same cost.",
    "report": "Show what runs recorded, over each other, and what comparisons found.",
    "episodes": "Say which training samples a run accepts least.",
    "bench": "Measure what a training step costs: plain against grafted.",
    "recipes": "Shipped recipes: list, show, copy; check and compare your own.",
    "demo": "Do the whole job on handwritten digits.",
    "doctor": "Say whether this installation and this machine can do the work.",
    "docs": "Show a guide, or list them.",
}
"""Each verb and its line in the list of them; the rest of its help is in its module, which is imported if it is run."""

_MODULES = {"eval": "evaluate", "check": "data.check", "episodes": "data.episodes"}
_QUICK = ("docs",)
"""Verbs that import nothing that takes seconds."""
_EXAMPLES = """\b
Examples:
  spgsurgeon demo                                      the whole job
  spgsurgeon inspect timm/resnet50                     what a model is
  spgsurgeon train base/ --recipe my.yaml -o runs/spg  graft and retrain
  spgsurgeon strip runs/spg -o better --export onnx    the base again
  spgsurgeon compare base/ --recipe my.yaml            does it help?
"""
"""The first character keeps the parser from filling the lines anew."""


def application(verbs: Iterable[str] = VERBS, *, listed: bool = False) -> typer.Typer:
    """Return the command line with these verbs; if they are only `listed`, none can be run, and none is imported."""
    app = typer.Typer(
        name="spgsurgeon",
        help="Graft temporary modules onto a checkpoint, retrain it with Sequential Policy Gradient, strip "
        "them: a better checkpoint of exactly the same architecture, with proof.",
        epilog=_EXAMPLES,
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help: the other kind takes longer to import than all the rest
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    app.callback()(_root)
    for verb in verbs:
        if listed:
            app.command(verb, help=VERBS[verb])(_listed)
            continue
        module = import_module(f"spgsurgeon.cli.{_MODULES.get(verb, verb)}")
        if hasattr(module, "group"):
            app.add_typer(module.group, name=verb)
        else:
            app.command(verb)(with_common_options(module.command, loads=None if verb in _QUICK else "torch"))
    return app


def _asked_for(arguments: list[str]) -> typer.Typer:
    """Return as much of the command line as the arguments need: to import all of it takes as long as Typer itself."""
    completed = os.environ.get(_COMPLETE, "").startswith("complete")
    words = _completed_words() if completed else arguments
    first = words[0] if words else "--help"
    if first in VERBS:
        return application([first])
    return application(listed=completed or first in ("-h", "--help", "--version"))


_COMPLETE = "_SPGSURGEON_COMPLETE"
"""The variable by which a shell asks, at each press of the key, what a word may become."""


def _completed_words() -> list[str]:
    """Return the words behind the program's name, as the scripts of the shells hand them over."""
    return (os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or "").split()[1:]


def _listed() -> None:
    pass


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    if verbosity.json:
        print(as_json(_versions(), indent=2))
    else:
        print(f"spgsurgeon {__version__}")
    raise typer.Exit


def _versions() -> dict[str, str | None]:
    """Return the versions that a bug report needs, by the metadata of what is installed."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {"version": __version__, "python": platform.python_version()}
    for name in ("torch", "torchvision", "timm", "onnx", "onnxruntime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --version: of torch and others too, as JSON.")] = False,
) -> None:
    if as_json:
        raise UsageError("--json goes behind the command, or with --version", hint="spgsurgeon COMMAND --json")


_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Run the command line and leave with its exit code."""
    _open_streams()
    handled = [n for n in _HANDLED if signal.getsignal(n) != signal.SIG_IGN]
    for number in handled:
        signal.signal(number, _leave)
    sys.unraisablehook = _take_up
    code = run(sys.argv[1:])
    for number in handled:
        signal.signal(number, signal.SIG_DFL)  # Python would show where it is on its way out
    code = _flushed(code)
    if code and is_one_of_several():
        sys.stderr.flush()
        os._exit(code)  # threads that still wait for a lost process would abort the interpreter on its own way out
    gc.freeze()  # or Python looks through every object before it ends: with torch there, that takes seconds
    sys.exit(code)


def _open_streams() -> None:
    """Take the places of streams that whoever started this has closed (`>&-`), before a file that is opened does.

    Python has None for them. Writing to stdout fails as it should, with an OSError; stderr goes nowhere.
    """
    if sys.stdout is None:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 1)
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _flushed(code: int) -> int:
    """Return the exit code once what is left for stdout is written: 1 where that fails, and nothing else had."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # that reader has gone, as `head` does
            fail(ClosedOutputError(f"stdout can't be written to: {error.strerror}", code="stdout-failed"))
            return code or 1
    return code


class _Terminated(BaseException):
    """A signal, `number`, other than SIGINT came where nothing else takes it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _leave(number: int, frame: FrameType | None) -> None:
    """Tidy up what is half done, and end; a second signal ends the process where it stands, and so does one in imports.

    Native code aborts where an exception comes out of an import. Where an error ends one of several processes, that
    goes on to say so: torchrun ends the others with a signal.
    """
    signal.signal(number, signal.SIG_DFL)
    if _imports(frame):
        os.kill(os.getpid(), number)
    elif sys.exc_info()[1] is None or not is_one_of_several():
        raise KeyboardInterrupt if number == signal.SIGINT else _Terminated(number)


def _take_up(lost: sys.UnraisableHookArgs) -> None:
    """Signal once more where a signal came in a finalizer or a callback: Python drops what is raised there."""
    if isinstance(lost.exc_value, KeyboardInterrupt | _Terminated):
        number = lost.exc_value.number if isinstance(lost.exc_value, _Terminated) else signal.SIGINT
        signal.signal(number, _leave)
        threading.Timer(0.01, os.kill, (os.getpid(), number)).start()  # when this hook has been left, too
    else:
        sys.__unraisablehook__(lost)


def _imports(frame: FrameType | None) -> bool:
    """Whether the frame is inside an import."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; nothing but exit codes leaves here."""
    verbosity.json, verbosity.quiet, verbosity.verbose = "--json" in arguments, False, 0
    verbosity.noted.clear()
    if not {"-v", "-vv", "--verbose"} & set(arguments):
        warnings.simplefilter("ignore")
    try:
        result = _asked_for(arguments)(args=arguments, prog_name="spgsurgeon", standalone_mode=False)
    except SurgeonError as error:
        return _report(error)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except _Terminated as terminated:
        return 128 + terminated.number
    except (BrokenPipeError, SystemExit):  # the reader of stdout has gone: the parser then leaves by sys.exit
        return 0
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
            print(_usage(error) or "")
            return 2
        return _report(_usage(error) or _unexpected(error))
    finally:
        clear_first_line()
    return result if isinstance(result, int) else 0


def _report(error: SurgeonError) -> int:
    if verbosity.verbose >= 2:
        traceback.print_exception(error)
    with suppress(BrokenPipeError):  # nobody is there to read it
        fail(error)
    return error.exit_code


def _usage(error: Exception) -> UsageError | None:
    """Return what the parser had to say. By its method: Typer has used click, and its own copy of it, for this."""
    if not hasattr(error, "format_message"):
        return None
    context = getattr(error, "ctx", None)
    return UsageError(error.format_message(), hint=f"{context.command_path} --help" if context else None)


def _unexpected(error: Exception) -> SurgeonError:
    """Return the message for an error nobody raised on purpose."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        wrapped: SurgeonError = SurgeonError(f"the disk is full: {error.filename or ''}".rstrip(": "))
    elif isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        wrapped = UsageError(
            f"the name of a file or folder is too long: {str(error.filename)[:80]}...",
            hint="most file systems take 255 bytes a name, and 4,096 a path",
            code="name-too-long",
        )
    elif type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        wrapped = SurgeonError("out of memory", hint="lower training.batch_size, or raise training.accumulate with it")
    else:
        wrapped = SurgeonError(f"unexpected {in_a_line(error)}", hint="-vv shows where it came from")
    wrapped.__cause__ = error
    return wrapped
