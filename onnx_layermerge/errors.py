"""Every error a user can meet, each with its exit code and one sentence that says what to do.

Exit codes (also in ``docs/errors.md``): 0 ok, 1 error, 2 usage, 3 gate failed,
4 target not reachable, 5 device or backend not available, 6 a plan file no longer holds.
"""

from __future__ import annotations


class OlmError(Exception):
    """Base of all expected errors: the message is one sentence, shown without a traceback."""

    exit_code = 1


class ModelError(OlmError):
    """The input model cannot be read, is not valid, or holds nothing that could be optimized."""


class DataError(OlmError):
    """Calibration or validation data do not fit the model's inputs."""


class ProfileError(OlmError):
    """A latency table is damaged, of a newer schema, or was measured on another device."""


class OutputError(OlmError):
    """The output cannot be written where it was asked for."""


class UsageError(OlmError):
    """An option's value makes no sense, whatever the model."""

    exit_code = 2


class GateError(OlmError):
    """A verification bound was not met."""

    exit_code = 3


class TargetError(OlmError):
    """The wanted speed-up cannot be reached; the message names the best one measured."""

    exit_code = 4


class DeviceError(OlmError):
    """The device or backend is not available on this machine."""

    exit_code = 5


class PlanError(OlmError):
    """A plan file does not fit this model or these options, or a locked one gave other bytes than it recorded."""

    exit_code = 6
