"""Keep third-party chatter away from stdout, which carries data, and from stderr, which carries our own progress."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Discard prints, warnings, log records and native output of the whole process; exceptions pass through.

    Everything is put back on the way out, also after an exception. Output of other threads is lost meanwhile, so keep
    the block short.
    """
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(open(os.devnull, "w"))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # Native libraries write to the descriptors, whatever sys.stdout is; notebooks replace sys.stdout, so both.
        for descriptor in (1, 2):
            stack.enter_context(_descriptor_to(sink.fileno(), descriptor))
        stack.enter_context(contextlib.redirect_stdout(sink))
        stack.enter_context(contextlib.redirect_stderr(sink))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        # Handlers keep the stream they were made with, so a redirected sys.stderr alone does not silence them.
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        yield


@contextlib.contextmanager
def _descriptor_to(target: int, descriptor: int) -> Iterator[None]:
    """Point `descriptor` at `target` for the block; a closed one (a service without a terminal) is left alone."""
    try:
        saved = os.dup(descriptor)
    except OSError:
        yield
        return
    try:
        os.dup2(target, descriptor)
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)
