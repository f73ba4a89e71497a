"""How many samples of a batch are computed at once.

Gradients of parts add up to those of the batch, so a part may be as small as suits the machine.  On a CPU that is what
stays in its caches: from some tens of megabytes on every value is fetched from memory, and the allocator gives it back
to the system after each use, so that it is also filled with zeros anew.
"""

from __future__ import annotations

import torch

from onnx_layermerge.data import Calibration
from onnx_layermerge.recover.training._held_out import to_device
from onnx_layermerge.recover.training._module import OnnxModule
from onnx_layermerge.recover.training._options import Options

__all__ = ["part_size"]

# Of the largest value of a part.
BYTES = 16 * 2**20


def part_size(module: OnnxModule, data: Calibration, options: Options, device: torch.device) -> int | None:
    """Samples of a part, None for whole batches.

    The model's own batch where that is fixed.  A loss of the user's own may compare samples with each other: it gets
    the whole batch, as does a GPU.
    """
    if options.own_batch or options.loss is not None or device.type != "cpu":
        return options.own_batch
    return max(1, BYTES // max(1, module.largest(to_device(data.batch(range(1)), device))))
