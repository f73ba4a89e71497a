"""A method and a speed-up → one model file, and what was done, in words and numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from devices import backend_of, standing_in
from jobs import NETWORKS, OLM, ROOT, TOLERANCE
from search import Found, search
from stages import Stages
from without import without

import onnx_layermerge as olm
from onnx_layermerge.data import Calibration, ImageOptions, InputSpec, load_calibration
from onnx_layermerge.errors import TargetError, UsageError
from onnx_layermerge.graph import Network, bind_shapes, load_runnable, network_of, read, to_bytes
from onnx_layermerge.report import as_json

__all__ = ["make"]

# Images for the gradients of the Taylor measure.
TAYLOR_IMAGES = 128
# Widths are multiples of the first of these that meets the speed-up (narrow networks jump over it in steps of 8), or
# of the first where none does.
TILES = (8, 4, 2)
Row = dict[str, Any]
Say = Callable[[str], None]


def make(spec: Row, output: Path, say: Say) -> Row:
    """Write the model; ``spec`` names network, speedup, method, device, profile and settings.

    Raises:
        OlmError: with one sentence, such as that the speed-up cannot be reached this way.
    """
    method = spec["method"]
    if method in OLM:
        settings = dict(spec["settings"])
        with standing_in(spec["device"]), without(settings.pop("without", "")):
            return _product(spec | {"settings": settings}, output, say)
    name, _, after = method.partition("+")
    if after == "refit":
        return _refitted(spec, Path(spec["base"]), output, say)
    makers = {"width": _width, "tp": _torch, "onnxsim": _onnxsim}
    return makers[name.partition("-")[0]](Rival(spec, say), output)


def _product(spec: Row, output: Path, say: Say) -> Row:
    """The command itself."""
    job = NETWORKS[spec["network"]]
    stages = Stages()

    def progress(stage: str, done: int, total: int, what: str) -> None:
        stages.enter(stage)
        if stage not in stages.found or stage == "build":
            say(f"{stage}: {what}")

    with stages:
        report = olm.compress(
            ROOT / job.model,
            output,
            speedup=spec["speedup"],
            calib=str(ROOT / job.calib),
            method=spec["method"],
            profile=spec["profile"],
            progress=progress,
            **spec["settings"],
        )
    told = json.loads(as_json(report))
    kept = ("basis", "predicted", "recovery", "refitted", "convs_before", "convs_after")
    kept = (*kept, "seconds", "warnings", "timed_blocks")
    detail = {name: told[name] for name in kept if name in told}
    detail["stages"] = [{"name": name, **stage} for name, stage in stages.found.items()]
    recipes: dict[str, int] = {}
    for block in told["blocks"]:
        recipes[block["recipe"]] = recipes.get(block["recipe"], 0) + 1
    words = ", ".join(f"{count} {recipe}" for recipe, count in sorted(recipes.items()))
    return {"words": f"{words} (plan by {told['basis']})", "detail": detail | {"recipes": recipes}}


class Rival:
    """What every rival starts from: the network as the product reads it, its calibration, and the search."""

    def __init__(self, spec: Row, say: Say) -> None:
        self.spec, self.say = spec, say
        self.path = ROOT / NETWORKS[spec["network"]].model
        self.network: Network = read(self.path)
        self.bound = bind_shapes(self.network.inputs, {}, batch=1)
        self.settings: Row = {"samples": 1024, "seed": 0, **spec["settings"]}
        unknown = set(self.settings) - {"samples", "seed"}
        if unknown:
            raise UsageError(f"--set {', '.join(sorted(unknown))} means nothing to {spec['method']}; leave it out.")

    def data(self) -> Calibration:
        """All calibration samples: a rival holds none back to choose between plans."""
        return calibration(self.network, self.spec["network"], self.settings["samples"], self.settings["seed"])

    def proto(self) -> onnx.ModelProto:
        return onnx.load_from_string(to_bytes(self.network.model))

    def search(self, make: Callable[[float], bytes]) -> Found:
        original = to_bytes(load_runnable(self.path))
        backend = backend_of(self.spec["device"])
        return search(make, original, self.spec["speedup"], backend, self.bound, say=self.say)


def calibration(network: Network, name: str, samples: int, seed: int) -> Calibration:
    """The same samples, in the same order, as `olm.compress` opens with these arguments."""
    specs = [InputSpec(info.name, info.shape, info.dtype) for info in network.inputs]
    calib = str(ROOT / NETWORKS[name].calib)
    return load_calibration(calib, specs, images=ImageOptions(), limit=samples, seed=seed)


def _done(output: Path, model: bytes, words: str, found: Found) -> Row:
    output.write_bytes(model)
    return {"words": words, "detail": {"share": found.share, "searched": found.speedup, "tried": found.tried}}


def _width(rival: Rival, output: Path) -> Row:
    from width import at_share, slots, structure, thinned

    templates = slots(rival.network)
    found = rival.search(lambda share: structure(rival.network, at_share(templates, share)))
    plan = at_share(templates, found.share)
    rival.say(f"fitting {len(plan)} widths")
    model = thinned(rival.network, plan, rival.data(), batch=16, seed=rival.settings["seed"])
    return _done(output, model, f"{found.words} of {len(templates)} inner widths", found)


def _torch(rival: Rival, output: Path) -> Row:
    from torch_prune import pruner_of

    kind = rival.spec["method"].removeprefix("tp-")
    sample = next(_arrays(rival.data().take(2, 0), 1))
    batches = _arrays(rival.data().take(TAYLOR_IMAGES, 0), 8) if kind.startswith("taylor") else ()
    build = pruner_of(rival.proto(), sample, kind=kind, batches=batches)
    tile, found = _by_tiles(rival, build)
    words = f"{found.words}, {'global' if kind.endswith('global') else 'each layer'}, multiples of {tile}"
    tool = f"torch-pruning {version('torch-pruning')}"
    return _done(output, build(found.share, tile), words, found) | {"tool": tool}


def _by_tiles(rival: Rival, build: Callable[[float, int], bytes]) -> tuple[int, Found]:
    """The multiple of channels to stay with, and the share found with it."""
    first: Found | None = None
    for tile in TILES:
        try:
            found = rival.search(lambda share, tile=tile: build(share, tile))
        except TargetError:
            if tile == TILES[-1] and first is None:
                raise
            continue
        if abs(found.speedup / rival.spec["speedup"] - 1) <= TOLERANCE:
            return tile, found
        if first is None:
            first, coarse = found, tile
    assert first is not None
    return coarse, first


def _arrays(data: Calibration, size: int) -> Iterator[np.ndarray]:
    for feeds in data.batches(size):
        yield next(iter(feeds.values()))


def _onnxsim(rival: Rival, output: Path) -> Row:
    import onnxsim

    proto = rival.proto()
    calibrated = rival.spec["method"].endswith("wanda")
    samples = list(rival.data().take(TAYLOR_IMAGES, 0).batches(8)) if calibrated else []

    def build(share: float) -> bytes:
        fresh = onnx.ModelProto()
        fresh.CopyFrom(proto)
        if calibrated:
            made = onnxsim.apply_structured_wanda_pruning(fresh, samples, sparsity=share)
        else:
            made = onnxsim.apply_structured_pruning(fresh, sparsity=share)
        del made.graph.value_info[:]  # the sizes before
        data: bytes = made.SerializeToString()
        return data

    found = rival.search(build)
    words = f"{found.words}, {'weights × activations' if calibrated else 'weights alone'}"
    return _done(output, build(found.share), words, found) | {"tool": f"onnxsim {version('onnxsim')}"}


def _refitted(spec: Row, base: Path, output: Path, say: Say) -> Row:
    """The refit of `refit.py` behind another method's model."""
    from refit import ALPHA, refit

    original, pruned = read(ROOT / NETWORKS[spec["network"]].model), read(base)
    settings: Row = {"samples": 1024, "seed": 0, **spec["settings"]}
    data = calibration(original, spec["network"], settings["samples"], settings["seed"])
    model, solved, convs = refit(original, pruned, data, batch=16, seed=settings["seed"], say=say)
    output.write_bytes(model)
    network_of(load_runnable(output))
    return {"words": f"{solved} of {convs} convolutions refitted", "detail": {"alpha": ALPHA, "solved": solved}}
