"""What identifies the place a latency was measured on.

A time is only worth something together with everything that could change it.
Two entries of a table are comparable exactly when their `DeviceKey`s are equal.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

PROTOCOL_VERSION = 1
"""Raise it when the measurement protocol changes what a stored number means."""


@dataclasses.dataclass(frozen=True)
class DeviceKey:
    """Device, backend and settings of a measurement; part of the key of every table entry."""

    backend: str
    """Name as given to ``--backend``, for example ``onnxruntime``."""
    backend_version: str
    device: str
    """The physical device, precise enough to tell two chips with one marketing name apart."""
    threads: int
    """Threads the backend computes with (1 on a CPU; 0 where the notion has no meaning)."""
    precision: str
    """Deployment precision, for example ``fp32``."""
    protocol: int = PROTOCOL_VERSION
    driver: str = ""
    """Driver version where there is one; empty on a CPU."""
    settings: str = ""
    """Settings of the backend that change a time and are not its only way here, as ``name=value``, sorted, joined by
    spaces (streams, graphs, an optimization level); empty where the version and the protocol fix them all."""

    def text(self) -> str:
        """One canonical line for people, used whenever two keys have to be shown side by side."""
        parts = [f"{self.backend} {self.backend_version}", self.device]
        if self.driver:
            parts.append(f"driver {self.driver}")
        if self.threads:
            parts.append(f"{self.threads} thread{'s' if self.threads > 1 else ''}")
        if self.settings:
            parts.append(self.settings)
        return " / ".join([*parts, self.precision, f"protocol {self.protocol}"])

    def digest(self) -> str:
        """16 hexadecimal digits over all fields, stable between runs and Python versions."""
        values = dataclasses.asdict(self)
        if not self.settings:
            del values["settings"]  # tables are older than this field: what has none keeps its digest
        fields = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(fields.encode()).hexdigest()[:16]
