"""The name of this machine's CPU, precise enough to be part of a table's key.

A marketing name is not: virtual machines report "AMD EPYC" for five generations with different
vector units. So family, model, stepping and the widest usable vector instructions are added.
"""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

_X86_LEVELS = (
    ("amx_tile", "amx"),
    ("avx512f", "avx512"),
    ("avx2", "avx2"),
    ("avx", "avx"),
    ("sse4_2", "sse4.2"),
)
_ARM_LEVELS = (("sve2", "sve2"), ("sve", "sve"), ("i8mm", "i8mm"), ("asimddp", "dotprod"), ("asimd", "neon"))


def cpu_name() -> str:
    """Describe the CPU this process runs on; what the system does not tell is left out."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        cpuinfo = ""
    return describe_cpuinfo(cpuinfo, _system_name())


def describe_cpuinfo(cpuinfo: str, fallback: str) -> str:
    """Describe the first processor in the text of Linux's ``/proc/cpuinfo`` (x86 or ARM)."""
    fields: dict[str, str] = {}
    for line in re.split(r"\n\s*\n", cpuinfo.strip(), maxsplit=1)[0].splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields[name.strip().lower()] = " ".join(value.split())
    parts = []
    for field, label in (
        ("cpu family", "family"),
        ("model", "model"),
        ("cpu implementer", "implementer"),
        ("cpu part", "part"),
        ("cpu variant", "variant"),
        ("stepping", "stepping"),
    ):
        if fields.get(field):
            parts.append(f"{label} {fields[field]}")
    levels, flags = _X86_LEVELS, fields.get("flags", "")
    if not flags:
        levels, flags = _ARM_LEVELS, fields.get("features", "")
    level = next((label for flag, label in levels if flag in flags.split()), None)
    if level is not None:
        parts.append(level)
    name = fields.get("model name", fallback)
    return f"{name} ({', '.join(parts)})" if parts else name


def _system_name() -> str:
    if platform.system() == "Darwin":
        # platform.processor() says only "arm" for every Apple chip.
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            brand = subprocess.run(
                command, capture_output=True, text=True, timeout=5, check=True
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            brand = ""
        if brand:
            return brand
    return platform.processor() or platform.machine() or "unknown CPU"
