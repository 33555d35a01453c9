import logging
import os
import sys
import warnings

import pytest

from spgsurgeon.exporting.silence import silenced


def shout() -> None:
    print("print")
    print("print", file=sys.stderr)
    os.write(1, b"native")
    os.write(2, b"native")
    warnings.warn("warning", stacklevel=1)
    logging.getLogger("somewhere").critical("record")


def test_every_way_to_speak_is_silenced_and_given_back(capfd, caplog):
    stream = sys.stdout
    with silenced():
        shout()
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []

    assert sys.stdout is stream
    assert logging.root.manager.disable == logging.NOTSET
    with pytest.warns(UserWarning, match="warning"):
        shout()
    out, err = capfd.readouterr()
    assert sorted((out.count("print"), out.count("native"), err.count("print"), err.count("native"))) == [1, 1, 1, 1]
    assert [record.message for record in caplog.records] == ["record"]


def test_given_back_after_an_exception(capfd):
    with pytest.raises(KeyError), silenced():
        raise KeyError("reason")
    os.write(1, b"native")
    assert capfd.readouterr().out == "native"


def test_text_printed_before_is_not_lost_by_whoever_flushes_inside(capfd, monkeypatch):
    with open(1, "w", closefd=False) as buffered:
        monkeypatch.setattr(sys, "stdout", buffered)
        print("before")
        with silenced():
            buffered.flush()
        assert capfd.readouterr().out == "before\n"
