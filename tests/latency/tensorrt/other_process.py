"""A fake library, opened in a process of its own, whose builder does to that process what a plan says for a block."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from onnx_layermerge.errors import DeviceError, ModelError
from onnx_layermerge.latency.backends import Reopen
from onnx_layermerge.latency.backends.tensorrt import BlockBuilder, BuildOptions, Built
from tests.latency.fake_cuda import Gpu
from tests.latency.tensorrt.conftest import fake_library
from tests.latency.tensorrt.fake import World


def reopen(options: BuildOptions, log: Path) -> Reopen:
    """How the other process opens it; ``log`` gets a line of JSON for every build."""
    return Reopen("tests.latency.tensorrt.other_process:open_fake_builder", (options.words(), str(log)))


def open_fake_builder(words: str, log: str) -> Builder:
    return Builder(words, Path(log))


class Builder:
    """``log`` with the suffix ``.plan``, where there is one, names by key what is to happen."""

    def __init__(self, words: str, log: Path) -> None:
        self._world, self._log = World(Gpu()), log
        options = BuildOptions.of_words(words)
        self._builder = BlockBuilder(fake_library("tensorrt-rtx-1", self._world), options)
        plan = log.with_suffix(".plan")
        self._plan: dict[str, str] = json.loads(plan.read_text()) if plan.exists() else {}

    def build(self, model: bytes, shapes: Mapping[str, tuple[int, ...]], name: str) -> Built:
        self._misbehave(self._plan.get(name, ""))
        built = self._builder.build(model, shapes, name)
        network = self._world.networks[-1]
        types = sorted({tensor.dtype.name for tensor in (*network._inputs, *network._outputs)})
        with self._log.open("a") as file:
            file.write(json.dumps({"key": name, "types": types, "process": os.getpid()}) + "\n")
        return built

    def _misbehave(self, way: str) -> None:
        if way == "model":
            raise ModelError("no kernel.")
        if way == "device":
            raise DeviceError("no memory.")
        if way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "hangs":
            time.sleep(600)
