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

    def text(self) -> str:
        """One canonical line for people, used whenever two keys have to be shown side by side."""
        parts = [f"{self.backend} {self.backend_version}", self.device]
        if self.driver:
            parts.append(f"driver {self.driver}")
        if self.threads:
            parts.append(f"{self.threads} thread{'s' if self.threads > 1 else ''}")
        return " / ".join([*parts, self.precision, f"protocol {self.protocol}"])

    def digest(self) -> str:
        """16 hexadecimal digits over all fields, stable between runs and Python versions."""
        fields = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(fields.encode()).hexdigest()[:16]
