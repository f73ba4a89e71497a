"""The steps of action.yml: install, compress, verify, and the summary of what they did.

    python3 templates/github/steps.py install|compress|verify|summary

1. Every input of the action is an environment variable, ``OLM_MIN_SPEEDUP`` for ``min-speedup``.  None of them is ever
   read by a shell: commands are lists of words, file names stand behind ``--``.
2. What olm prints may hold names out of a model.  It is shown with workflow commands switched off, so that no name can
   be one, and only its ``Error:`` and ``Warning:`` lines become annotations, escaped.
3. A step ends with olm's own exit code.
4. ``install`` makes a folder for this one use of the action; the later steps leave there what the summary is made of,
   which therefore is written once, also where a step has failed.

Only the standard library is needed, and any Python from 3.9 on, since this runs before anything is installed.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

USAGE, NO_COMMAND = 2, 127
# What olm itself needs; this file is read by an older Python too, so that it can say so.
OLDEST = (3, 10)
# Options that only have to be handed on, and the commands that take them.
BOTH = ("device", "backend", "precision")
COMPRESS = ("val", "profile", "plan")
GATES = ("min-speedup", "min-saving", "min-agreement", "max-kl", "max-drop", "time-cap")
DATA = ("samples", "preset")
# What Markdown, or HTML inside of it, would take for markup.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!$])")


def given(name: str) -> str:
    """The value of an input; "" where it was not given."""
    return os.environ.get("OLM_" + name.upper().replace("-", "_"), "").strip()


def options(*names: str) -> list[str]:
    """The inputs of these names that were given, as options of the same name; one word each, whatever is in it."""
    return [f"--{name}={given(name)}" for name in names if given(name)]


def words(name: str) -> list[str]:
    """An input that holds several words, quoted as in a shell; nothing in it is expanded."""
    try:
        return shlex.split(given(name))
    except ValueError as error:
        fail(USAGE, f"the input {name} cannot be read as words ({error}); close its quotes")


def switched(name: str) -> bool:
    """An input that is true or false."""
    value = given(name).lower() or "false"
    if value not in ("true", "false"):
        fail(USAGE, f"the input {name} is {value}; write true or false")
    return value == "true"


def say(line: str) -> None:
    """One line into the step's log."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def annotate(level: str, title: str, sentence: str) -> None:
    """A workflow command; in properties a colon and a comma would end them."""
    text = sentence.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    file, head = (
        value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A").replace(":", "%3A").replace(",", "%2C")
        for value in (given("model"), title)
    )
    say(f"::{level} file={file},title={head}::{text}" if file else f"::{level} title={head}::{text}")


def fail(code: int, sentence: str) -> NoReturn:
    """End the step before olm was started."""
    annotate("error", "olm", sentence)
    sys.exit(code)


def output(name: str, value: str) -> None:
    """An output of the step, between delimiters that no value can hold."""
    mark = f"end-{secrets.token_hex(16)}"
    with open(os.environ["GITHUB_OUTPUT"], "a", encoding="utf-8") as file:
        file.write(f"{name}<<{mark}\n{value}\n{mark}\n")


def folder() -> Path:
    """Where the steps of this use of the action leave what they did."""
    return Path(os.environ["OLM_FOLDER"])


def install() -> int:
    """olm in an environment of its own, which later steps of the job do not see."""
    place = Path(tempfile.mkdtemp(prefix="olm-", dir=os.environ.get("RUNNER_TEMP")))
    asked = words("install")
    if asked == ["none"]:
        found = shutil.which("olm")
        if found is None:
            fail(NO_COMMAND, "install is none, but no olm is on the PATH of this runner; install it there")
    else:
        if sys.version_info < OLDEST:
            fail(1, f"python3 is {sys.version.split()[0]} on this runner; set the input python-version to 3.12")
        home = place / "venv"
        try:
            venv.create(home, with_pip=True)
        except (subprocess.CalledProcessError, OSError):
            fail(1, "python3 cannot make an environment here; install python3-venv, or set the input python-version")
        programs = home / ("Scripts" if os.name == "nt" else "bin")
        pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
        for line in [asked] if asked else locked(Path(os.environ["GITHUB_ACTION_PATH"])):
            say(shlex.join([*pip, *line]))
            code = subprocess.run([*pip, *line], check=False).returncode
            if code:
                fail(code, f"pip install {shlex.join(line)} ended with exit code {code}; the log of the step says why")
        found = str(programs / "olm")
    output("olm", found)
    output("folder", str(place))
    return 0


def locked(checkout: Path) -> list[list[str]]:
    """What pip installs for the action's own checkout: the versions that the project is tested with, by hash.

    Other versions may decode an image, or fit a weight, to other bits, and a latency table is of one onnxruntime.
    """
    files = [str(checkout / "requirements" / f"{name}.txt") for name in ("build", "run", "images")]
    return [
        ["--require-hashes", *(word for file in files for word in ("-r", file))],
        ["--no-deps", "--no-build-isolation", str(checkout)],
    ]


def compress() -> int:
    """``olm compress``; the first report is an output."""
    if not (given("model") and given("output") and given("speedup")):
        fail(USAGE, "the inputs model, output and speedup are needed; name all three")
    reports = [line.strip() for line in given("report").splitlines() if line.strip()]
    asked = [
        *options("speedup", "calib", *DATA, "metric", *BOTH, *COMPRESS),
        *(["--lock"] if switched("lock") else []),
        *(f"--report={path}" for path in [*reports, str(folder() / "report.md")]),
        *words("options"),
        *words("compress-options"),
    ]
    code = olm("compress", asked)
    if code == 0:
        output("report", reports[0] if reports else "")
    return code


def verify() -> int:
    """``olm verify``: the gate.  The model is an output only where it was held, the figures wherever there are any."""
    samples = given("verify-calib") or given("calib")
    asked = [
        *options(*GATES, "metric", *BOTH),
        *([f"--calib={samples}", *options(*DATA)] if samples else []),
        *words("options"),
        *words("verify-options"),
    ]
    code = olm("verify", asked)
    verdict = printed("verify")
    if verdict is not None:
        speedup = verdict["speedup"]
        timing = verdict.get("timing") or {}
        output("speedup", f"{speedup['ratio']:.4f}")
        output("speedup-low", f"{speedup['low']:.4f}")
        output("latency-ms", f"{timing.get('b_ms', speedup['b_s'] * 1e3):.6g}")
        output("verdict", str(folder() / "verify.json"))
    if code == 0:
        output("model", given("output"))
    return code


def olm(command: str, asked: Sequence[str]) -> int:
    """Run it, show what it says, turn that into annotations; its exit code, 128 + n for a signal n."""
    line = [os.environ["OLM"], command, "--json", *asked, "--", given("model"), given("output")]
    colourless = {key: text for key, text in os.environ.items() if key not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    colourless.update(NO_COLOR="1", PYTHONUTF8="1")
    said: list[str] = []
    mark = secrets.token_hex(16)
    say(f"::stop-commands::{mark}")
    say(shlex.join(line))
    try:
        with open(folder() / f"{command}.json", "wb") as result:
            process = subprocess.Popen(line, stdout=result, stderr=subprocess.PIPE, env=colourless)
            for raw in process.stderr or ():
                said.append(raw.decode("utf-8", "replace").rstrip("\r\n"))
                say(said[-1])
            process.wait()
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    except OSError as error:
        said, code = [f"Error: {line[0]} cannot be started ({error.strerror}); check the input install."], NO_COMMAND
    say(f"::{mark}::")
    errors = [text[len("Error: ") :] for text in said if text.startswith("Error: ")] if code else []
    if code and not errors:
        errors = [f"olm {command} ended with exit code {code}; the log of the step says why."]
    for text in said:
        if text.startswith("Warning: "):
            annotate("warning", f"olm {command}", text[len("Warning: ") :])
    for text in errors:
        annotate("error", f"olm {command} (exit code {code})", text)
    (folder() / f"{command}.ended").write_text(json.dumps({"code": code, "errors": errors}), encoding="utf-8")
    return code


def printed(command: str) -> Any:
    """The JSON that olm printed; None where it printed none."""
    try:
        return json.loads((folder() / f"{command}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def summary() -> int:
    """Markdown for the page of the run, of whatever was reached."""
    parts = []
    for command in ("compress", "verify"):
        ended = folder() / f"{command}.ended"
        if not ended.exists():
            continue
        end = json.loads(ended.read_text(encoding="utf-8"))
        report = folder() / "report.md"
        if command == "compress" and end["code"] == 0 and report.exists():
            parts.append(report.read_text(encoding="utf-8").rstrip())
        verdict = printed(command) if command == "verify" else None
        if verdict is not None:
            parts.append(f"### Gate: {'held' if verdict['passed'] else 'missed'}\n\n" + "\n".join(gate_table(verdict)))
        if end["code"]:
            head = f"### olm {command} of {plain(given('model'))}: exit code {end['code']}"
            parts.append("\n".join([head, "", *(f"- {plain(text)}" for text in end["errors"])]))
    if not parts:
        parts.append(f"### olm was not started on {plain(given('model'))}")
    with open(os.environ["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8") as file:
        file.write("\n\n".join(parts) + "\n")
    return 0


def gate_table(verdict: Any) -> Iterable[str]:
    """Every bound that was asked for beside what was measured for it, the speed-up always."""
    asked, speedup, saving = verdict.get("gate") or {}, verdict["speedup"], verdict.get("saving_ms")
    quality, metric = verdict.get("quality") or {}, verdict.get("metric")
    rows = [("speed-up", "≥", asked.get("min_speedup"), "{ratio:.3f} [{low:.3f}, {high:.3f}]".format(**speedup))]
    if saving:
        measured = "{median:.4g} [{low:.4g}, {high:.4g}]".format(**saving)
        rows.append(("saving, ms", "≥", asked.get("min_saving_ms"), measured))
    rows.append(("same top-1 answer", "≥", asked.get("min_agreement"), figure(quality.get("agreement"))))
    rows.append(("divergence (KL)", "≤", asked.get("max_kl"), figure(quality.get("kl"))))
    drop = metric["original"] - metric["compressed"] if metric else None
    rows.append(("loss of the metric", "≤", asked.get("max_drop"), figure(drop)))
    yield "| | bound | measured |"
    yield "| --- | ---: | ---: |"
    for name, sign, bound, measured in rows:
        if bound is not None or name == "speed-up":
            yield f"| {name} | {'–' if bound is None else f'{sign} {bound:g}'} | {measured} |"


def figure(value: float | None) -> str:
    """A measured number, or a dash."""
    return "–" if value is None else f"{value:.4g}"


def plain(text: str) -> str:
    """Nothing in it is markup; the model has named it, or the user."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("@", "&#64;")


STEPS = {"install": install, "compress": compress, "verify": verify, "summary": summary}

if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):  # a log in another encoding must not turn a name into a fault
        sys.stdout.reconfigure(errors="replace")
    sys.exit(STEPS[sys.argv[1]]())
