"""What a call says of the training of ``--finetune``, checked before any work."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

from onnx_layermerge.candidates import PAPER
from onnx_layermerge.errors import UsageError
from onnx_layermerge.flow._importance import Wanted
from onnx_layermerge.recover.training import check_device, require_torch

__all__ = ["TrainingWords"]

# A look at what a block does that a network recovers from at once, not a training.
IMPORTANCE_STEPS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingWords:
    """Its options as they were given; None where they were not.  Without a ``finetune_device`` it is the CPU."""

    importance: str | Path | Sequence[str | Path] | None
    importance_steps: int | None
    importance_lr: float | None
    finetune_minutes: float | None = None
    finetune_steps: int | None = None
    finetune_device: str | None
    norms: bool | None = None

    def check_none_given(self) -> None:
        """
        Raises:
            UsageError: one of them was given, and ``--finetune`` was not.
        """
        for field in dataclasses.fields(self):
            option, value = f"--{field.name.replace('_', '-')}", getattr(self, field.name)
            if value is not None and value != ():
                raise UsageError(f"{option} is about the training of --finetune; give that too.")

    def wanted(self, method: str, calib: object, shard: tuple[int, int] | None = None) -> Wanted:
        """What is asked of the training; ``shard`` is the number of a part of the blocks, from 1, and of all parts.

        Raises:
            UsageError: the words make no sense together, or this is one of several processes.
            DeviceError: torch is not installed, or the device is not there.
        """
        if method not in PAPER:
            raise UsageError(
                f"--finetune is part of --method {', '.join(PAPER)}; with --method {method} run olm finetune on the "
                "output."
            )
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            # Each would time while the others compute, and all would write one file.
            raise UsageError(
                "olm compress --finetune runs in one process, and torchrun started several: start it without, and let "
                "--shard spread the blocks over machines."
            )
        if calib is None:
            raise UsageError("--finetune trains on samples of what the model sees; give --calib.")
        lengths = {
            "--importance-steps": self.importance_steps,
            "--importance-lr": self.importance_lr,
            "--finetune-minutes": self.finetune_minutes,
            "--finetune-steps": self.finetune_steps,
        }
        for option, value in lengths.items():
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{option} is too small or no number; give a larger one.")
        given = self.importance
        files = [given] if isinstance(given, (str, Path)) else list(given or ())
        if shard is not None and not 1 <= shard[0] <= shard[1]:
            raise UsageError(f"--shard {shard[0]}/{shard[1]} is no part; count from 1, as in 1/4 to 4/4.")
        if shard is not None and not files:
            raise UsageError("--shard scores a part of the blocks into the file of --importance; name it.")
        require_torch("olm compress --finetune")
        device = "cpu" if self.finetune_device is None else self.finetune_device
        check_device(device, "--finetune-device")
        steps = IMPORTANCE_STEPS if self.importance_steps is None else self.importance_steps
        return Wanted(
            steps,
            tuple(map(Path, files)),
            self.finetune_minutes,
            self.finetune_steps,
            device,
            shard,
            self.importance_lr,
            bool(self.norms),
        )
