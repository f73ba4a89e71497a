"""Which errors are made during a run of the suite, where, and by which test (``OLM_MESSAGES=FILE pytest``)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from onnx_layermerge.errors import OlmError
from onnx_layermerge.verify import Verdict

__all__ = ["Recorder"]

ROOT = Path(__file__).resolve().parents[2]
_OURS = (str(ROOT / "onnx_layermerge") + os.sep, str(ROOT / "cli" / "olm") + os.sep)
_MOST_TESTS, _MOST_TEXTS = 8, 60


class Recorder:
    """A pytest plugin: notes each error with its lines of ours, the innermost first; written when the session ends.

    Errors of processes that a test starts are not seen; their messages need a test in the process itself.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.tests: list[str] = []
        self._found: dict[tuple[str, tuple[tuple[str, int], ...]], dict[str, list[str]]] = {}
        self._undo: list[Any] = []

    def pytest_sessionstart(self) -> None:
        """Both trees of errors tell of every new one from here on, and verdicts of what was missed."""
        for base in (OlmError, click.ClickException, Verdict):
            self._undo.append((base, base.__dict__.get("__init__")))
            base.__init__ = self._noting(base.__init__)  # type: ignore[method-assign]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.tests.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write what was seen, whatever failed."""
        for base, old in self._undo:
            if old is None:
                del base.__init__
            else:
                base.__init__ = old
        events = [
            {"class": name, "lines": [list(line) for line in lines], "texts": texts}
            for (name, lines), texts in sorted(self._found.items())
        ]
        self.file.write_text(json.dumps({"tests": sorted(self.tests), "events": events}), encoding="utf-8")

    def _noting(self, init: Any) -> Any:
        def noted(error: Any, *args: Any, **words: Any) -> None:
            kind = type(error)
            if isinstance(error, Verdict):  # the command line raises its sentences as they are
                init(error, *args, **words)
                self._note("GateError", list(error.failures))
                return
            name = f"click.{kind.__name__}" if kind.__module__.startswith("click") else kind.__name__
            self._note(name, [str(word) for word in args if isinstance(word, str)])
            init(error, *args, **words)

        return noted

    def _note(self, name: str, sentences: list[str]) -> None:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rsplit(" (", 1)[0]
        frame, lines = sys._getframe(2), []
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(_OURS):
                lines.append((Path(file).relative_to(ROOT).as_posix(), frame.f_lineno))
            frame = frame.f_back  # type: ignore[assignment]
        if not test or not lines:
            return
        texts = self._found.setdefault((name, tuple(lines[:5])), {})
        for sentence in sentences:
            if sentence in texts or len(texts) < _MOST_TEXTS:
                tests = texts.setdefault(sentence, [])
                if test not in tests and len(tests) < _MOST_TESTS:
                    tests.append(test)
