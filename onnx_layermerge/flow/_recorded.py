"""What a latency table already says of a model: read on any machine, with nothing timed.

1. A device whose backend opens here and which the table knows: its own entries, and what is missing is timed.
2. A table that only knows other devices: a mistake that names both keys, unless the mismatch is wanted.
3. A device that is not here: its entries alone; candidates without one are left out and counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from onnx_layermerge.errors import DeviceError, ProfileError
from onnx_layermerge.flow._in_place import in_place_recorded
from onnx_layermerge.flow._prepare import Prepared
from onnx_layermerge.flow._queue import Queue
from onnx_layermerge.flow._sheet import sheet_of
from onnx_layermerge.flow._timed import LEAST_GAIN, LEAST_SHARE, Timed, timed_of
from onnx_layermerge.latency import DeviceKey, EngineOptions, LatencyTable, listed, select

__all__ = ["MISMATCH", "Recorded", "mismatch", "named", "recorded", "substitute"]

MISMATCH = (
    "planned with times of another device, as --allow-mismatch says: they were measured on {other}, this is {here}"
)


@dataclass(frozen=True)
class Recorded:
    """Times from a table alone, and how many candidates were left out since the table knows nothing of them."""

    timed: Timed
    missing: int


def mismatch(profile: str | Path | None, here: DeviceKey, *, allow: bool) -> DeviceKey | None:
    """The other device whose times stand in for this one's; None where the table knows this one, or nothing yet.

    The user's own table (None) is for all devices: what it lacks for this one is always timed.

    Raises:
        ProfileError: it knows other devices only, and this is not allowed, or there is more than one of them.
    """
    if profile is None or not Path(profile).exists():
        return None
    with LatencyTable.open(profile) as table:
        others = [device for device in table.devices() if device != here]
        if not others or table.entries(here):
            return None
    if not allow:
        raise ProfileError(
            f"{profile} was measured on {listed(others)}, but this is {here.text()} ({here.digest()}); run olm profile "
            "here, plan for that device with olm plan --from-table, or take its times all the same with "
            "--allow-mismatch."
        )
    if len(others) > 1:
        raise ProfileError(
            f"{profile} holds several other devices ({listed(others)}); take one out with olm profiles export "
            "--device and give that file."
        )
    return others[0]


def named(table: LatencyTable, words: str) -> DeviceKey:
    """The table's device that ``words`` mean, or its only one where they are empty.

    Raises:
        ProfileError: none, or several; the sentence names the choices.
    """
    devices = table.devices()
    if not words and len(devices) > 1:
        raise ProfileError(f"{table.path} holds {len(devices)} devices; name one: {listed(devices)}.")
    return devices[0] if devices and not words else select(devices, words, table.path)


def substitute(
    table: LatencyTable,
    backend: str,
    device: str,
    precision: str,
    engines: EngineOptions | None,
    refused: DeviceError,
) -> DeviceKey:
    """The table's device for a backend, device, precision and way to build engines that cannot be opened here.

    Raises:
        DeviceError: the table does not hold exactly one that these words could mean.
    """
    fitting = [
        key
        for key in table.devices()
        if key.backend == backend
        and key.precision == precision
        and (key.threads > 0) == (device == "cpu")
        and (engines or EngineOptions()).fits(key.settings)
    ]
    if len(fitting) == 1:
        return fitting[0]
    held = f"no such device in {precision}"
    if fitting:
        held = f"several such devices, name one with --from-table: {listed(fitting)}"
    raise DeviceError(f"{str(refused).rstrip('.')}, and {table.path} holds {held}.") from refused


def recorded(prepared: Prepared, device: DeviceKey, table: LatencyTable) -> Recorded:
    """Savings of all candidates that the table can tell, and the whole model's latency; see ``latencies``.

    Raises:
        ProfileError: the table does not hold the whole model's latency.
    """
    sheet = sheet_of(prepared)
    base = table.get_pair(device, sheet.base, sheet.base)
    if base is None:
        raise ProfileError(
            f"{table.path} does not hold this model's own latency on {device.text()}; run olm profile with the same "
            "--shapes and --batch on that device."
        )
    # What a profile would still time; the rest is there, or known to be too slow to be of use.
    queue = Queue(
        [(sheet, base.a_s)], table, device, least_gain=LEAST_GAIN, least_share=LEAST_SHARE, hurried=False
    )
    lacking = {spec.key for spec in queue if spec is not None}
    values = {key: entry.value for key, entry in table.entries(device).items()}
    promised = timed_of(sheet, base.a_s, values)
    told = {*promised.savings_s, *promised.failed}
    missing = sum(use.candidate.key not in told and bool(lacking & {use.old, use.new}) for use in sheet.uses)
    timed = replace(
        in_place_recorded(prepared, promised, device, table),
        reused=queue.tally.reused,
        bounded=queue.tally.bounded,
        skipped=queue.tally.skipped,
    )
    return Recorded(timed, missing)
