"""The tree of commands: everything has help, and help costs no heavy import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from olm import options
from olm.app import olm
from onnx_layermerge.candidates import METHODS
from onnx_layermerge.data import _options as image_options
from onnx_layermerge.latency.backends.tensorrt import PRECISIONS


def _tree(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _tree(inner, f"{path} {name}")


TREE = dict(_tree(olm, "olm"))


def test_the_commands_are_these() -> None:
    assert list(olm.commands) == [
        "inspect", "profile", "plan", "compress", "finetune", "verify", "explain", "diff", "profiles", "doctor"
    ]  # fmt: skip
    assert set(TREE["olm profiles"].commands) == {"list", "show", "diff", "merge", "export", "import", "prune"}


@pytest.mark.parametrize("path", TREE)
def test_every_command_and_option_has_help(path: str) -> None:
    command = TREE[path]
    assert command.help
    context = click.Context(command)
    for option in command.get_params(context):
        if isinstance(option, click.Option):
            assert option.help, f"{path} {option.opts}"
    page = command.get_help(context)
    assert page.startswith("Usage:")


@pytest.mark.parametrize("path", [path for path, command in TREE.items() if not isinstance(command, click.Group)])
def test_every_command_speaks_json_and_can_be_quiet(path: str) -> None:
    words = {word for option in TREE[path].params for word in option.opts}
    assert {"--json", "--quiet"} <= words


@pytest.mark.parametrize("path", TREE)
def test_the_help_page_is_on_stdout(path: str, run) -> None:
    result = run(*path.split()[1:], "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: {path}")
    assert result.stderr == ""


def test_no_words_at_all_is_a_usage_error_that_shows_the_help(run) -> None:
    result = run()
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "compress" in result.stderr


def test_version(run) -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("olm ")
    assert len(result.stdout.splitlines()) == 1


def test_help_loads_nothing_heavy() -> None:
    """Half a second for a help page is too long; what makes it long is named here instead of a time."""
    script = (
        "import sys, olm.app; "
        "print(sorted({'numpy', 'onnx', 'onnx_ir', 'onnxruntime', 'onnx_layermerge', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_choices_are_those_of_the_package() -> None:
    """The words are written twice so that the help page needs no import; here they are held together."""
    assert set(METHODS) == set(options.METHODS)
    assert set(image_options.PRESETS) == set(options.PRESETS)
    assert set(image_options.LAYOUTS) == set(options.LAYOUTS)
    assert set(image_options.COLORS) == set(options.COLORS)
    assert PRECISIONS == options.PRECISIONS
