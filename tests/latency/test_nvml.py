"""Clocks, heat and neighbours: what is read, what becomes a warning, and that nothing missing is ever an error."""

from __future__ import annotations

import os
import sys

import pytest

from onnx_layermerge.errors import DeviceError
from onnx_layermerge.latency.backends._nvml import Monitor, Reading, Watch, nvml_status, open_monitor
from tests.latency.fake_cuda import BUS
from tests.latency.fake_nvml import Instruments, pynvml


@pytest.fixture
def instruments() -> Instruments:
    return Instruments()


def looked(*readings: Reading) -> tuple[str, ...]:
    watch = Watch(None)
    watch.looks += readings
    return watch.warnings()


@pytest.mark.parametrize("old", [False, True])
def test_a_reading(old: bool, instruments: Instruments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", pynvml(instruments, old=old))
    instruments.reasons = 0x4 | 0x40
    monitor = open_monitor(BUS)
    assert monitor.read() == Reading(1800, 9000, 2000, ("power cap", "heat (hardware)"), 50, 70.0, 0.0, 0)
    monitor.close()
    assert instruments.open == 0


@pytest.mark.parametrize(
    "field", ["sm_mhz", "memory_mhz", "reasons", "temperature_c", "milliwatts", "processes", "used"]
)
def test_what_a_device_does_not_tell_is_left_out(field: str, instruments: Instruments) -> None:
    instruments.processes = [(os.getpid(), 1), (4242, 7)]
    setattr(instruments, field, None)
    reading = Monitor(pynvml(instruments), "handle").read()
    empty = {"milliwatts": "power_w", "processes": "others", "used": "others"}.get(field, field)
    assert getattr(reading, empty) is None
    assert sum(value is None for value in vars(reading).values()) == (2 if field == "processes" else 1)


def test_another_process_is_counted_by_its_newest_sample(instruments: Instruments) -> None:
    instruments.processes = [(os.getpid(), 1), (os.getppid(), 2), (4242, 300), (4343, None)]
    instruments.used = [(4242, 5, 80), (4242, 9, 30), (os.getpid(), 9, 60), (4343, 9, 5)]
    reading = Monitor(pynvml(instruments), "handle").read()
    assert (reading.others, reading.other_memory_bytes) == (pytest.approx(0.35), 300)
    (text,) = looked(reading, Reading(others=0.1))
    assert text.startswith("Another process used 35% of the GPU")


def test_where_processes_have_other_numbers_nobody_is_accused(instruments: Instruments) -> None:
    instruments.processes, instruments.used = [(1, 1)], [(1, 9, 90)]
    reading = Monitor(pynvml(instruments), "handle").read()
    assert reading.others is None and looked(reading) == ()


def test_heat_and_power_are_said_with_their_share_and_idleness_is_not() -> None:
    steady, hot, idle = (Reading(reasons=words) for words in ((), ("heat (software)", "power cap"), ("idle",)))
    assert looked(steady, idle, Reading(reasons=("set by an application",))) == ()
    (text,) = looked(steady, hot, hot, idle)
    assert "slowed down in 50% of the looks" in text and "(heat (software), power cap)" in text


@pytest.mark.parametrize(
    ("clocks", "said"), [((1800, 1750), False), ((1800, 1700), True), ((1800,), False), ((), False)]
)
def test_clocks_that_move_by_more_than_three_percent(clocks: tuple[int, ...], said: bool) -> None:
    texts = looked(*(Reading(sm_mhz=mhz) for mhz in clocks), Reading(sm_mhz=300, reasons=("idle",)), Reading())
    assert bool(texts) is said
    if said:
        assert "between 1700 and 1800 MHz" in texts[0]


def test_looks_are_half_a_second_apart_unless_asked_for(instruments: Instruments) -> None:
    now = [0.0]
    watch = Watch(Monitor(pynvml(instruments), "handle"), lambda: now[0])
    for now[0] in (0.0, 0.1, 0.4, 0.6, 0.7):
        watch.look()
    assert len(watch.looks) == 2
    watch.look(now=True)
    assert len(watch.looks) == 3


def test_what_is_missing_is_one_line(instruments: Instruments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml_status() == nvml_status(BUS) == (False, "Clocks of the GPU are not read: pip install nvidia-ml-py.")
    monkeypatch.setitem(sys.modules, "pynvml", pynvml(instruments))
    assert nvml_status() == (True, "NVML sees 1 GPU") and nvml_status(BUS)[1].startswith("SM clock 1800 of 2000 MHz")
    with pytest.raises(DeviceError, match=r"NVML does not see 0000:02:00\.0 \(Not Found\)"):
        open_monitor("0000:02:00.0")
    instruments.starts = False
    assert nvml_status(BUS) == (
        False, "Clocks of the GPU are not read: NVML does not start here (Driver Not Loaded); see nvidia-smi."
    )  # fmt: skip
    assert instruments.open == 0


def test_the_made_up_module_has_no_function_that_the_real_one_has_not(instruments: Instruments) -> None:
    real = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    for old in (False, True):
        for name in vars(pynvml(instruments, old=old)):
            assert hasattr(real, name), name
    assert (real.NVML_CLOCK_SM, real.NVML_CLOCK_MEM, real.NVML_TEMPERATURE_GPU) == (1, 2, 0)
    bits = {name: value for name, value in vars(real).items() if name.startswith("nvmlClocksEventReason")}
    assert (bits["nvmlClocksEventReasonSwPowerCap"], bits["nvmlClocksEventReasonHwThermalSlowdown"]) == (0x4, 0x40)
    assert bits["nvmlClocksEventReasonGpuIdle"] == 0x1 and bits["nvmlClocksEventReasonHwPowerBrakeSlowdown"] == 0x80
