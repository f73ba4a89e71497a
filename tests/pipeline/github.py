"""A composite action's steps, run one after the other as a runner would: expressions, files for outputs, commands."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")
COMMAND = re.compile(r"::(?P<name>[\w-]+)(?: (?P<properties>.*?))?::(?P<text>.*)")


@dataclass(frozen=True)
class Command:
    """What a runner makes of a line such as ``::error file=a::text``."""

    name: str
    properties: Mapping[str, str]
    text: str


@dataclass
class Step:
    """One step that ran: its exit code, what it printed, its outputs, and what it wrote into its own summary file."""

    code: int
    log: str
    outputs: dict[str, str]
    summary: str


@dataclass
class Job:
    """``checkout`` holds action.yml, ``workspace`` is where the steps run; ``env`` is the runner's own environment."""

    checkout: Path
    workspace: Path
    env: Mapping[str, str]
    inputs: Mapping[str, str]
    steps: dict[str, Step] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)

    def run(self) -> Job:
        """All steps in order; after one that failed only those whose condition asks for it."""
        self.action = yaml.safe_load((self.checkout / "action.yml").read_text(encoding="utf-8"))
        undeclared = set(self.inputs) - set(self.action["inputs"])
        assert not undeclared, f"no inputs of the action: {undeclared}"
        for number, step in enumerate(self.action["runs"]["steps"]):
            if not self._wanted(str(step.get("if", "success()"))):
                continue
            if "uses" in step:
                self.used.append(step["uses"])
            else:
                self.steps[step.get("id", step["name"])] = self._step(number, step)
        return self

    @property
    def code(self) -> int:
        """Exit code of the first step that failed."""
        return next((step.code for step in self.steps.values() if step.code), 0)

    @property
    def outputs(self) -> dict[str, str]:
        return {name: self.resolved(each["value"]) for name, each in self.action["outputs"].items()}

    @property
    def summaries(self) -> list[str]:
        return [step.summary for step in self.steps.values() if step.summary]

    @property
    def commands(self) -> list[Command]:
        """Of all steps; between stop-commands and its token, which ends with the step, a line is only a line."""
        found = []
        for step in self.steps.values():
            token = None
            for line in step.log.splitlines():
                match = COMMAND.match(line.lstrip())
                if token is not None:
                    token = None if line == f"::{token}::" else token
                elif match is not None and match["name"] == "stop-commands":
                    token = match["text"]
                elif match is not None:
                    pairs = (pair.split("=", 1) for pair in (match["properties"] or "").split(",") if pair)
                    properties = {key.strip(): _plain(value, "%3A:", "%2C,") for key, value in pairs}
                    found.append(Command(match["name"], properties, _plain(match["text"])))
        return found

    def resolved(self, text: object) -> str:
        """``text`` with every expression in it replaced by its value."""
        return EXPRESSION.sub(lambda match: self._value(match[1]), str(text))

    def _value(self, name: str) -> str:
        kind, *path = name.split(".")
        if kind == "inputs":
            declared = self.action["inputs"][path[0]]
            return str(self.inputs.get(path[0], declared.get("default", "")))
        assert kind == "steps" and path[1] == "outputs", name
        identifiers = [step.get("id") for step in self.action["runs"]["steps"]]
        assert path[0] in identifiers, f"no step {path[0]}"
        return self.steps[path[0]].outputs.get(path[2], "") if path[0] in self.steps else ""

    def _wanted(self, condition: str) -> bool:
        if not re.search(r"\b(always|failure|success)\(\)", condition):
            condition = f"success() && {condition}"
        return all(self._holds(part.strip()) for part in condition.split("&&"))

    def _holds(self, part: str) -> bool:
        if part in ("success()", "failure()", "always()"):
            return {"success()": not self.code, "failure()": bool(self.code), "always()": True}[part]
        name, sign, text = re.fullmatch(r"(\S+) (==|!=) '([^']*)'", part).groups()  # type: ignore[union-attr]
        return (self._value(name) == text) == (sign == "==")

    def _step(self, number: int, step: Mapping[str, Any]) -> Step:
        assert step["shell"] == "bash"
        temporary = self.workspace.parent / "temp"
        temporary.mkdir(exist_ok=True)
        files = {name: temporary / f"{name}.{number}" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "script")}
        for file in files.values():
            file.touch()
        files["script"].write_text(step["run"], encoding="utf-8")
        env = {
            **self.env,
            "GITHUB_ACTION_PATH": str(self.checkout),
            "GITHUB_WORKSPACE": str(self.workspace),
            "RUNNER_TEMP": str(temporary),
            **{name: str(file) for name, file in files.items() if name != "script"},
            **{name: self.resolved(text) for name, text in step.get("env", {}).items()},
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", files["script"]],
            cwd=self.workspace, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
        )  # fmt: skip
        outputs = _outputs(files["GITHUB_OUTPUT"].read_text(encoding="utf-8"))
        return Step(done.returncode, done.stdout, outputs, files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8"))


def _outputs(text: str) -> dict[str, str]:
    """``name=value``, and ``name<<END`` with lines up to END."""
    found, lines = {}, iter(text.split("\n"))
    for line in lines:
        if match := re.fullmatch(r"([\w-]+)<<(.+)", line):
            inside = []
            for each in lines:
                if each == match[2]:
                    break
                inside.append(each)
            found[match[1]] = "\n".join(inside)
        elif line:
            name, _, value = line.partition("=")
            found[name] = value
    return found


def _plain(text: str, *more: str) -> str:
    """Undo the escapes of a workflow command; each of ``more`` is an escape and the character it stands for."""
    for escape in ("%0D\r", "%0A\n", *more, "%25%"):
        text = text.replace(escape[:3], escape[3:])
    return text
