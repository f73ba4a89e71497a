"""Every message of the code has a test that was seen to produce it, and a line in docs/troubleshooting.md."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from onnx_layermerge.errors import ModelError
from tests.messages import listing, page, words
from tests.messages.record import Recorder
from tests.messages.scan import Message, scan

UPDATE = "run make messages"


@functools.cache
def messages() -> list[Message]:
    return scan()


def test_every_message_has_a_test_or_a_reason_and_no_entry_is_stale() -> None:
    held = listing.load()
    wanted, known = set(listing.keys(messages())), {*held.tests, *held.without}
    assert not wanted - known, f"no test is known to produce these: {UPDATE}"
    assert not known - wanted, f"the code says these no more: {UPDATE}"
    assert not held.tests.keys() & held.without.keys()


def test_the_tests_that_are_named_exist() -> None:
    named = sorted(set(listing.load().tests.values()))
    assert named
    assert [test for test in named if not listing.exists(test)] == []
    assert not listing.exists("tests/messages/test_messages.py::test_of_which_there_is_none")


def test_the_page_is_the_one_that_the_code_makes() -> None:
    written = page.FILE.read_text(encoding="utf-8")
    assert written == page.page(messages()), "run python -m tests.messages page"


def test_no_advice_is_for_a_message_that_is_gone() -> None:
    assert [start for start in words.ADVICE if not any(each.text.startswith(start) for each in messages())] == []


def test_messages_are_one_sentence_without_a_full_stop_behind_a_question() -> None:
    """The rule of the house; that a message says what to do, only a reader can judge."""
    for message in messages():
        text = page.shown(message.text)
        assert "?." not in message.text and ".." not in message.text, message
        assert message.passed_on or len(text.split()) > 3, message
        assert ". " not in text.replace("…", ""), f"more than one sentence: {message}"


CODE = '''
from onnx_layermerge.errors import ModelError, UsageError

AGAIN = "try again"


def refuse(file, what, advice=AGAIN):
    return ModelError(f"{file}: {what}; {advice}.")


def _where(line):
    return f" at line {line}" if line else ""


class Reader:
    def read(self, size, kind):
        what = "too small" if size < 0 else f"too large for {kind}"
        raise refuse(self.file, what, "cut it")

    def close(self, error, line):
        if error:
            raise refuse(self.file, "not open")
        raise UsageError("closed" + _where(line))
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    package = tmp_path / "onnx_layermerge"
    (tmp_path / "cli" / "olm").mkdir(parents=True)
    package.mkdir()
    source = Path(__file__).resolve().parents[2] / "onnx_layermerge" / "errors.py"
    (package / "errors.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    (package / "reader.py").write_text(CODE, encoding="utf-8")
    return tmp_path


def test_helpers_constants_and_choices_are_followed(tree: Path) -> None:
    found = {(each.place.split("::")[1], each.text, each.exit_code) for each in scan(tree)}
    assert found == {
        ("Reader.read", "{file}: too small; cut it.", 1),
        ("Reader.read", "{file}: too large for {kind}; cut it.", 1),
        ("Reader.close", "{file}: not open; try again.", 1),
        ("Reader.close", "closed at line {line}", 2),
        ("Reader.close", "closed", 2),
    }


def test_an_error_is_told_from_another_of_the_same_helper_by_the_lines_on_the_stack(tree: Path) -> None:
    small, = (each for each in scan(tree) if "too small" in each.text)
    made, called = small.lines
    said = "x.onnx: too small; cut it."
    lines = [(made[0], made[1]), (called[0], called[1])]
    assert small.made("ModelError", lines, said)
    assert not small.made("UsageError", lines, said)
    assert not small.made("ModelError", lines, "x.onnx: not open; try again.")
    assert not small.made("ModelError", [lines[0], (called[0], called[2] + 4)], said)


def test_a_run_is_recorded_and_only_tests_that_passed_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "record.json"
    recorder = Recorder(file)
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "tests/x.py::test_it (call)")
    recorder.pytest_sessionstart()
    try:
        from onnx_layermerge.graph import load

        with pytest.raises(ModelError):
            load(tmp_path / "none.onnx")
        ModelError("outside of the package nothing counts")
    finally:
        recorder.pytest_sessionfinish()
    ModelError("nor after the session")
    record = json.loads(file.read_text(encoding="utf-8"))
    assert [list(event["texts"].values()) for event in record["events"]] == [[["tests/x.py::test_it"]]]
    key = ("onnx_layermerge/graph/_load.py::_read", "{file} does not exist; check the path of the model.")
    assert listing.made_by(messages(), record) == {}
    record["tests"].append("tests/x.py::test_it")
    (made,) = listing.made_by(messages(), record)
    assert made[1] == key[1]


def test_a_listing_keeps_what_still_holds_and_reports_what_is_missing(tmp_path: Path) -> None:
    first, second, third = (Message("onnx_layermerge/graph/_x.py::f", f"text {n}", "ModelError", 1,
                                    (("onnx_layermerge/graph/_x.py", n, n),)) for n in (1, 2, 3))  # fmt: skip
    record = {
        "tests": ["tests/a.py::t", "tests/graph/long.py::t"],
        "events": [
            {"class": "ModelError", "lines": [["onnx_layermerge/graph/_x.py", 1]],
             "texts": {"text 1": ["tests/a.py::t", "tests/graph/long.py::t", "tests/failed.py::t"]}},
        ],
    }  # fmt: skip
    key = (second.place, second.text)
    old = listing.Listing({(first.place, "gone"): "tests/a.py::t"}, {key: "no such machine", ("f", "gone"): "why"})
    found, missing = listing.updated([first, second, third], record, old)
    assert found == listing.Listing({(first.place, "text 1"): "tests/graph/long.py::t"}, {key: "no such machine"})
    assert missing == [(third.place, "text 3")]
    listing.save(found, tmp_path / "x.json")
    assert listing.load(tmp_path / "x.json") == found
    kept = listing.Listing({(first.place, "text 1"): "tests/a.py::t"}, {})
    assert listing.updated([first], record, kept)[0] == kept
    known = listing.Listing({(second.place, "text 2"): "tests/b.py::t"}, {})
    assert listing.updated([second], record, known) == (listing.Listing({}, {}), [key])
    assert listing.updated([second], record, known, keep=True) == (known, [])
