"""One training in several processes, as ``torchrun`` starts them: every step's gradient is the mean over all of them.

Each process holds the whole model and its share of the batch.  What has to be the same everywhere (whether to go on,
how a check came out) is said by the first one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from onnx_layermerge.errors import DeviceError, UsageError
from onnx_layermerge.recover.training._call import Tensor

__all__ = ["Processes", "device_of", "joined"]


@dataclass(frozen=True)
class Processes:
    """This process is number ``rank`` of ``count``."""

    rank: int
    count: int
    device: torch.device

    def summed(self, gradients: Sequence[Tensor], loss: Tensor) -> tuple[list[Tensor], float]:
        """The sum over all processes of gradients and loss, the same bits everywhere."""
        if self.count == 1:
            return list(gradients), float(loss)
        flat = torch.cat([*(gradient.reshape(-1).float() for gradient in gradients), loss.reshape(1).float()])
        dist.all_reduce(flat)
        parts = flat[:-1].split([gradient.numel() for gradient in gradients])
        found = [part.reshape(like.shape).to(like) for part, like in zip(parts, gradients, strict=True)]
        return found, float(flat[-1])

    def said(self, values: Sequence[float]) -> list[float]:
        """What the first process has, on all of them."""
        if self.count == 1:
            return [float(value) for value in values]
        told = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        dist.broadcast(told, 0)
        return [float(value) for value in told.tolist()]


def device_of(name: str, option: str = "--device") -> torch.device:
    """The device, once it is known to be there; "cuda" is the one of this process.  ``option`` is what errors call it.

    Raises:
        UsageError: no such name.
        DeviceError: there is no such device, or torch was built without CUDA.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"{option} {name} is unknown to torch; give cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"{option} {name} is none that is trained on; give cpu, cuda or cuda:N.")
    if device.type == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = "its driver or GPU is not found" if torch.version.cuda else "this torch was built for CPUs alone"
        raise DeviceError(f"{option} {name} is not available ({built}); install torch for CUDA, or train on the cpu.")
    number = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    if number >= torch.cuda.device_count():
        raise DeviceError(f"{option} {name}: there are {torch.cuda.device_count()} GPUs here; give a smaller number.")
    return torch.device("cuda", number)


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """The processes that ``torchrun`` started; this one alone where it did not."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "MASTER_ADDR" not in os.environ:
        yield Processes(0, 1, device)
        return
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), count, device)
    finally:
        if ours:
            dist.destroy_process_group()
