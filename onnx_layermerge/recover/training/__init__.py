"""Fine-tuning in torch: an ONNX model as a module, losses, and the loop; back as the same model with new weights.

torch is an extra and imported here alone, when :func:`train` or :func:`onnx_module` is called; the module itself can be
imported without it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnx_layermerge.data import Calibration
from onnx_layermerge.errors import DeviceError
from onnx_layermerge.recover.training._learned import learned
from onnx_layermerge.recover.training._options import Answers, Check, Options, Progress, Trained
from onnx_layermerge.recover.training._rate import fastest
from onnx_layermerge.recover.training._store import put_back

if TYPE_CHECKING:
    from onnx_layermerge.recover.training._module import OnnxModule

__all__ = [
    "Answers",
    "Check",
    "Options",
    "Trained",
    "check_checkpoint",
    "check_device",
    "fastest",
    "learned",
    "onnx_module",
    "put_back",
    "require_torch",
    "train",
    "unsupported_nodes",
]


def require_torch(what: str = "training") -> None:
    """``what`` is what the user asked for.

    Raises:
        DeviceError: torch is not installed.
    """
    if find_spec("torch") is None:
        raise DeviceError(f'{what} needs PyTorch; install it with pip install "onnx-layermerge[torch]".')


def check_checkpoint(path: Path) -> None:
    """
    Raises:
        DeviceError: torch is not installed.
        DataError: the file at ``path`` is no checkpoint of a training.
    """
    require_torch()
    from onnx_layermerge.recover.training._checkpoint import check_checkpoint as check

    check(path)


def check_device(name: str, option: str) -> None:
    """
    Raises:
        UsageError: torch knows no device of that name; it is called by the ``option`` that it was given for.
        DeviceError: torch is not installed, or there is no such device here.
    """
    require_torch()
    from onnx_layermerge.recover.training._processes import device_of

    device_of(name, option)


def onnx_module(model: ir.Model) -> OnnxModule:
    """``model`` as a torch module from a dict of inputs to a dict of outputs; see ``OnnxModule``.

    Raises:
        DeviceError: torch is not installed.
        ModelError: an operator has no function here; it is named with its node.
    """
    require_torch()
    from onnx_layermerge.recover.training._module import OnnxModule

    return OnnxModule(model)


def unsupported_nodes(model: ir.Model) -> list[ir.Node]:
    """Nodes of ``model`` that :func:`onnx_module` would refuse, in order.

    Raises:
        DeviceError: torch is not installed.
    """
    require_torch()
    from onnx_layermerge.recover.training._module import unsupported

    return unsupported(model)


def train(
    student: ir.Model,
    teacher: ir.Model,
    data: Calibration,
    held_out: Calibration,
    options: Options,
    progress: Progress = lambda done, total, what: None,
    answers: Answers | None = None,
) -> Trained:
    """Train the weights of ``student`` towards what ``teacher`` answers to ``data``; neither model is changed.

    Samples are for the inputs of both, and may have class numbers (int64 [N]) beside them.  The weights of the best
    look at ``held_out`` come back, none where no look was better than the start.  With ``answers`` trainings that share
    original, held-out samples, outputs and ``own_batch`` ask the original once.

    Raises:
        DeviceError: torch, or the device, is not there.
        ModelError: an operator is not known here, or nothing of the student can be learned.
        DataError: the data do not fit, a label is out of range, or the loss is not finite before the first step.
        UsageError: the user's loss fails or returns something else.
        OutputError: the checkpoint cannot be written.
        KeyboardInterrupt: asked to end; a checkpoint that was asked for is written.
    """
    require_torch()
    from onnx_layermerge.recover.training._loop import run

    return run(student, teacher, data, held_out, options, progress, answers)
