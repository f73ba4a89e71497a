"""What went wrong → one line on stderr and an exit code; the only place where either is decided.

1. An expected error of the package (``OlmError``): its sentence and its own exit code.
2. Words that make no sense (Click): the same form, exit code 2.
3. Ctrl-C: 130.
4. The reader of stdout went away (``olm inspect … | head``): 141, silently, as other tools do.
5. Anything else is a fault of this program: the traceback, a line that says so, and exit code 70.

``docs/errors.md`` has the table for users.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import Any, NoReturn

import click

__all__ = ["BUG", "INTERRUPTED", "NO_READER", "GuardedGroup", "given_words", "version"]

INTERRUPTED, NO_READER, BUG = 130, 141, 70
# Commands that commit timings as they go: what is in the profile stays there.
_TIMING = ("profile", "plan", "compress")
_WORDS = "olm.words"


def version() -> str:
    """The installed version; "0+unknown" when run from a source tree that is not installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("onnx-layermerge")
    except PackageNotFoundError:
        return "0+unknown"


def given_words() -> tuple[str, ...]:
    """What stands behind ``olm`` on the command line that runs now."""
    ctx = click.get_current_context(silent=True)
    return () if ctx is None else ctx.meta.get(_WORDS, ())


class GuardedGroup(click.Group):
    """A group whose commands may raise anything; see the cases in the module's docstring."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words as they were given, for what a run writes down of itself."""
        ctx.meta[_WORDS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; case 2 is left to ``main``, since words are also read before any command runs."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            _stop_writing()
            ctx.exit(NO_READER)
        except KeyboardInterrupt:
            click.echo(f"interrupted; nothing was written{_kept(ctx)}", err=True)
            ctx.exit(INTERRUPTED)
        except Exception as error:
            ctx.exit(_report(error))

    def main(self, *args: Any, **words: Any) -> NoReturn:
        """Run and exit the process; Click's own form of errors (usage, blank line, error) is not used."""
        words["standalone_mode"] = False
        try:
            code = super().main(*args, **words)
            sys.stdout.flush()
        except BrokenPipeError:
            _stop_writing()
            code = NO_READER
        except click.exceptions.Exit as error:
            code = error.exit_code
        except click.Abort:
            click.echo("interrupted; nothing was written", err=True)
            code = INTERRUPTED
        except click.ClickException as error:
            code = _report_usage(error)
        sys.exit(code if isinstance(code, int) else 0)


def _kept(ctx: click.Context) -> str:
    """What an interrupted command leaves, in brackets."""
    command, words = ctx.invoked_subcommand, given_words()
    if command == "finetune":
        return " (but the checkpoint, if --checkpoint names one: --resume goes on from it)"
    if command == "compress" and "--finetune" in words:
        if any(word.partition("=")[0] == "--importance" for word in words):
            return " (blocks timed so far stay in the profile, their scores in --importance: the same words go on)"
        return " (blocks timed so far stay in the profile; with --importance their scores would stay, too)"
    return " (blocks timed so far stay in the profile)" if command in _TIMING else ""


def _report(error: Any) -> int:
    """Cases 1 and 5; an error with several arguments is one line for each."""
    known = sys.modules.get("onnx_layermerge.errors")  # not there: the import itself failed
    if known is not None and isinstance(error, known.OlmError):
        for sentence in error.args or (type(error).__name__,):
            _say(str(sentence))
        return int(error.exit_code)
    traceback.print_exception(error)
    click.echo(f"This is a bug in olm {version()}: please report it with the lines above.", err=True)
    return BUG


def _report_usage(error: click.ClickException) -> int:
    """Case 2: one line, and where the help is."""
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    _say(error.format_message(), f" ({ctx.command_path} --help tells more)" if ctx is not None else "")
    return error.exit_code


def _say(sentence: str, more: str = "") -> None:
    """One line, whatever a library below put into the message."""
    text = "".join(letter if letter.isprintable() else "?" for letter in " ".join(sentence.split())).rstrip(".")
    click.echo(f"{click.style('Error:', fg='red')} {text}{more}.", err=True)


def _stop_writing() -> None:
    """Point stdout at nothing, or the interpreter complains once more when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file descriptor needs no such care
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
