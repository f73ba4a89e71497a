"""Export one network of the zoo to ONNX, by each exporter asked for, in a process of its own.

    python benchmarks/zoo/export.py NAME [--small] [--exporters torchscript,dynamo,unfolded] [--into FOLDER]

Weights follow from the name alone, so a file is the same with the same torch. The first axis is dynamic where the
exporter manages; where it does not, the batch is fixed and the run says so. Only this script and nets/ need torch.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import logging
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import torch
from catalogue import ENTRIES, EXPORTERS, MODELS, Entry
from nets.layers import settle
from torch import Tensor, nn

BATCH = 2
SETTLING_BATCH = 4
OPSET = {"torchscript": 17, "dynamo": 20, "unfolded": 13}


def examples(sample: dict[str, tuple[int, ...]], batch: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(0, 1000, (batch, *shape), generator=generator)
        if name == "timestep"
        else torch.randn((batch, *shape), generator=generator)
        for name, shape in sample.items()
    }


def network(entry: Entry, small: bool, size: int | None = None) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network in eval mode, and inputs for it; ``size`` overrides every spatial size."""
    seed = zlib.crc32(entry.name.encode())
    module, _, function = entry.build.partition(":")
    torch.manual_seed(seed)
    net = getattr(importlib.import_module(f"nets.{module}"), function)()
    sample = entry.small if small else entry.sample
    if size is not None:
        sample = {name: (*shape[:1], *(size for _ in shape[1:])) for name, shape in sample.items()}
    settle(net, tuple(examples(sample, SETTLING_BATCH, seed).values()), seed)
    return net, examples(sample, BATCH, seed + 1)


def write(net: nn.Module, inputs: dict[str, Tensor], exporter: str, path: Path) -> bool:
    """Export to ``path``; whether the batch axis came out dynamic."""
    with torch.no_grad():
        given = net(*inputs.values())
    outputs = ["output"] if isinstance(given, Tensor) else [f"output{number}" for number in range(len(given))]
    common: dict[str, Any] = {"input_names": list(inputs), "output_names": outputs, "opset_version": OPSET[exporter]}
    if exporter == "dynamo":
        common |= {"dynamo": True, "external_data": False, "verbose": False}
        dynamic: dict[str, Any] = {"dynamic_shapes": tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)}
    else:
        common["dynamo"] = False
        dynamic = {"dynamic_axes": {name: {0: "batch"} for name in (*inputs, *outputs)}}
    if exporter == "unfolded":
        common |= {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    part = path.with_suffix(".part")
    arguments = tuple(inputs.values())
    try:
        torch.onnx.export(net, arguments, str(part), **common, **dynamic)
        made_dynamic = True
    except Exception:  # exporters raise whatever they like, and a fixed batch is worth a second try
        torch.onnx.export(net, arguments, str(part), **common)
        made_dynamic = False
    part.replace(path)
    return made_dynamic


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[entry.name for entry in ENTRIES if not entry.shipped])
    parser.add_argument("--exporters", default=",".join(EXPORTERS))
    parser.add_argument("--small", action="store_true", help="at the size of the fixtures")
    parser.add_argument("--size", type=int, help="at this spatial size")
    parser.add_argument("--into", type=Path, default=MODELS)
    options = parser.parse_args()
    entry = next(entry for entry in ENTRIES if entry.name == options.name)
    options.into.mkdir(parents=True, exist_ok=True)
    for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export"):
        logging.getLogger(name).setLevel(logging.ERROR)
    net, inputs = network(entry, options.small, options.size)
    failed = 0
    for exporter in options.exporters.split(","):
        path = options.into / entry.file(exporter).name
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                dynamic = write(net, inputs, exporter, path)
        except Exception as error:  # one exporter's failure does not stop the other
            failed += 1
            sys.stderr.write(f"{entry.name}: {exporter} failed ({str(error).splitlines()[0][:200]})\n")
            continue
        sys.stderr.write(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB{'' if dynamic else ', fixed batch'}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
