"""What is not a user's mistake: interrupts, readers that go away, and bugs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import onnx_layermerge


def _failing(error: BaseException):
    def call(*args: object, **words: object) -> None:
        raise error

    return call


@pytest.mark.parametrize("command", ["inspect", "compress"])
def test_interrupt(command: str, model, run, monkeypatch) -> None:
    monkeypatch.setattr(onnx_layermerge, command, _failing(KeyboardInterrupt()))
    more = ["out.onnx", "--speedup", "2"] if command == "compress" else []
    result = run(command, model, *more)
    assert result.exit_code == 130
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("interrupted; nothing was written")
    assert ("profile" in result.stderr) == (command == "compress")


def test_a_bug_is_called_one(model, run, monkeypatch) -> None:
    monkeypatch.setattr(onnx_layermerge, "inspect", _failing(ZeroDivisionError("by the cat")))
    result = run("inspect", model)
    assert result.exit_code == 70
    assert result.stdout == ""
    assert "ZeroDivisionError: by the cat" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("This is a bug in olm")


def test_an_error_of_many_lines_is_shown_on_one(model, run, monkeypatch) -> None:
    monkeypatch.setattr(onnx_layermerge, "inspect", _failing(onnx_layermerge.ModelError("first\n\tsecond  third.")))
    result = run("inspect", model)
    assert result.exit_code == 1
    assert result.stderr == "Error: first second third.\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes without a reader are told by EPIPE there")
def test_a_reader_that_went_away(model) -> None:
    """As in ``olm inspect … | head -0``: silence and the exit code that a SIGPIPE would give."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "olm", "inspect", str(model)], stdout=writer, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
