"""What a table promises one network: seconds that each candidate saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.errors import TargetError
from onnx_layermerge.flow._prepare import Prepared
from onnx_layermerge.flow._sheet import Sheet
from onnx_layermerge.latency import Failure, Measurement, Value

__all__ = ["LEAST_GAIN", "LEAST_SHARE", "Timed", "timed_of", "useful"]

# METHOD §3: a candidate that is not clearly faster than what it replaces is never fitted.
LEAST_GAIN = 0.03
# A saving below this share of the whole network is not worth an entry in a plan.
LEAST_SHARE = 0.002


@dataclass(frozen=True)
class Timed:
    """Seconds each candidate would save (old − new), by key; ``failed`` names those the backend could not time.

    A candidate in neither is too slow to be of use, or was left out for lack of time.  Of the blocks, ``bounded`` were
    given up after a look, in this run or an earlier one, and ``skipped`` without any.  ``in_place`` holds the factors
    that the savings of each recipe were multiplied by (see ``_in_place``); empty where no plan was timed.
    """

    savings_s: Mapping[str, float]
    replaced_s: Mapping[str, float]
    base_s: float
    timed: int
    reused: int
    failed: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    bounded: int = 0
    skipped: int = 0
    in_place: Mapping[str, float] | None = None


def timed_of(sheet: Sheet, base_s: float, values: Mapping[str, Value]) -> Timed:
    """The candidates of a sheet by the entries of a table."""
    savings, replaced, failed = {}, {}, {}
    for use in sheet.uses:
        before, after = values.get(use.old), values.get(use.new)
        for value in (before, after):
            if isinstance(value, Failure):
                failed[use.candidate.key] = value.reason
        if isinstance(before, Measurement) and isinstance(after, Measurement):
            savings[use.candidate.key] = before.seconds - after.seconds
            replaced[use.candidate.key] = before.seconds
    return Timed(savings, replaced, base_s, 0, 0, failed)


def useful(prepared: Prepared, timed: Timed) -> list[Candidate]:
    """Candidates that save enough to be fitted.

    Raises:
        TargetError: nothing in the model is worth replacing on this device.
    """
    kept = []
    for candidate in prepared.candidates:
        saving = timed.savings_s.get(candidate.key, 0.0)
        if saving >= max(LEAST_GAIN * timed.replaced_s.get(candidate.key, 0.0), LEAST_SHARE * timed.base_s):
            kept.append(candidate)
    if not kept:
        raise TargetError(
            "no replacement is faster than what it replaces here, so the best measured speed-up is 1.00×: keep the "
            "model as it "
            "is, or try a larger --batch."
        )
    return kept
