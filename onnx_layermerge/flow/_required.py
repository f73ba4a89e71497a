"""Only blocks that were seen to build: a plan for a GPU that is not here, held to what its builder said ahead of time.

``olm profile --build-only --json`` names every block by the key of its structure, which a candidate's replacement has
too; so the report of one machine serves any other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from onnx_layermerge.errors import ProfileError
from onnx_layermerge.flow._prepare import Prepared
from onnx_layermerge.flow._sheet import sheet_of

__all__ = ["Builds", "buildable", "read_builds"]

_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class Builds:
    """A report's blocks by key: those that were ``built``, and those that ``failed``; ``precision`` is theirs."""

    path: str
    precision: str
    built: frozenset[str]
    failed: frozenset[str]


def read_builds(path: str | Path) -> Builds:
    """The report in a file that ``olm profile --build-only --json`` wrote.

    Raises:
        ProfileError: there is none, or it is something else.
    """
    try:
        if Path(path).stat().st_size > _MOST_BYTES:
            raise ProfileError(f"{path} is too large for a report of --build-only; check the path.")
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:  # not JSON, or not text
        raise ProfileError(f"{path} is no JSON; write it with olm profile --build-only --json.") from error
    try:
        precision, blocks = found["precision"], found["blocks"]
        reasons = {block["key"]: block["reason"] for block in blocks}
        # Without this a report of other content would pass for one in which nothing failed.
        right = isinstance(precision, str) and all(
            isinstance(key, str) and (reason is None or isinstance(reason, str)) for key, reason in reasons.items()
        )
    except (KeyError, TypeError):
        right = False
    if not right:
        raise ProfileError(f"{path} is no report of blocks; write it with olm profile --build-only --json.")
    built = frozenset(key for key, reason in reasons.items() if reason is None)
    return Builds(str(path), precision, built, frozenset(reasons) - built)


def buildable(prepared: Prepared, builds: Builds, precision: str) -> tuple[Prepared, tuple[str, ...]]:
    """The network with those candidates alone whose block was built, and sentences on what that left out.

    Raises:
        ProfileError: not one of this network's blocks was built.
    """
    keys = {use.candidate.key: use.new for use in sheet_of(prepared).uses}
    kept = tuple(candidate for candidate in prepared.candidates if keys[candidate.key] in builds.built)
    if prepared.candidates and not kept:
        raise ProfileError(
            f"{builds.path} has no built block of this model; run olm profile --build-only with the same --shapes, "
            "--batch and --method, and look at its failures."
        )
    failed = sum(keys[candidate.key] in builds.failed for candidate in prepared.candidates)
    missing = len(prepared.candidates) - len(kept) - failed
    said = []
    if failed or missing:
        said.append(
            f"of {len(prepared.candidates)} candidates {failed} were left out since they do not build, and {missing} "
            f"which {builds.path} does not hold"
        )
    if builds.precision != precision:
        said.append(f"the blocks of {builds.path} were built in {builds.precision}, but this plan is for {precision}")
    return replace(prepared, candidates=kept), tuple(said)
