"""``olm --version --json`` and the completion of words in a shell."""

from __future__ import annotations

import click
import pytest
from click.shell_completion import get_completion_class

from olm.app import olm


def completed(shell: str, words: list[str], begun: str) -> list[str]:
    kind = get_completion_class(shell)
    assert kind is not None
    return [item.value for item in kind(olm, {}, "olm", "_OLM_COMPLETE").get_completions(words, begun)]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_given_for_each_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = get_completion_class(shell)
    assert kind is not None
    if shell == "bash":  # its version is asked of the bash of this machine, which may have none
        monkeypatch.setattr(kind, "_check_version", staticmethod(lambda: None))
    script = kind(olm, {}, "olm", "_OLM_COMPLETE").source()
    assert f"_OLM_COMPLETE={shell}_complete" in script
    assert "olm" in script.splitlines()[0] or "olm" in script


def test_commands_options_and_their_values_are_completed() -> None:
    assert completed("bash", [], "comp") == ["compress"]
    assert completed("zsh", ["profiles"], "p") == ["prune"]
    assert completed("bash", ["compress"], "--spee") == ["--speedup"]
    assert completed("fish", ["compress", "--effort"], "q") == ["quick"]


def test_version_json_is_one_document_on_stdout() -> None:
    import json

    from click.testing import CliRunner

    done = CliRunner().invoke(olm, ["--version", "--json"], prog_name="olm")
    assert done.exit_code == 0
    assert set(json.loads(done.stdout)) == {"version", "python", "libraries"}
    assert done.stderr == ""


@pytest.mark.parametrize("words", [["--json"], ["--json", "doctor"]])
def test_json_without_version_is_told_where_it_belongs(words: list[str]) -> None:
    with pytest.raises(click.UsageError, match="--json stands behind a command, or beside --version"):
        olm.make_context("olm", list(words)).command.invoke(olm.make_context("olm", list(words)))
