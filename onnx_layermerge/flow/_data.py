"""Samples for a prepared model: the user's; without them built-in pictures where these fit; else noise.

Noise ranks blocks to drop, and nothing is fitted on it: that would be worth nothing on images.  Pictures of no relation
to what the model will see lie between that and its own images; every run that uses them says so, and measures what was
lost on pictures that no fit has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from onnx_layermerge.candidates import METHODS
from onnx_layermerge.data import (
    SMALLEST_SIDE,
    Calibration,
    ImageOptions,
    InputSpec,
    Layout,
    Range,
    answers,
    answers_finite,
    built_in_pictures,
    check_fits,
    gather,
    how_many_fit,
    infer_range,
    load_calibration,
    not_finite,
    nothing_left,
    same_answer,
    same_values,
    suspicious_range,
    with_mixtures,
)
from onnx_layermerge.errors import DataError
from onnx_layermerge.fit import FITTED
from onnx_layermerge.flow._prepare import Prepared, Progress, quiet
from onnx_layermerge.graph import Session, load_runnable
from onnx_layermerge.importance import Divergence

__all__ = [
    "NO_DATA",
    "Samples",
    "choosable",
    "judged_by",
    "left_out",
    "noise",
    "open_data",
    "open_samples",
    "says_nothing",
    "what_it_cost",
]

NO_DATA = (
    "no --calib given: nothing is fitted, only blocks are dropped, and they are ranked on noise: "
    "the accuracy of the result is not protected; measure it before you ship it"
)
PICTURES = (
    "no --calib given: the samples are {count} cuts of public-domain photographs that scikit-image carries, in the "
    "range '{name}' ({why}): they have nothing to do with what your model sees, and a few hundred of its own images "
    "with --calib do better; measure the accuracy before you ship it"
)
NOT_INSTALLED = (
    "with scikit-image, blocks can be fitted on its photographs instead of being dropped alone: "
    'pip install "onnx-layermerge[pictures]"'
)
RANGE_UNKNOWN = (
    "built-in pictures are not used, as the range of input '{input}' cannot be told from the model ({why}): name it "
    "with --preset, or with --scale, --mean and --std"
)
NOISE_COST = (
    "expected loss, measured on {count} samples of noise and on nothing else: {same}KL {kl:.3g}, relative error "
    "{relative:.2g}; what your own images lose may be far more: measure it on them with olm verify --calib"
)
ALIKE = (
    "the original gives the same top-1 to {share:.0%} of the built-in pictures, so they show little of what it can do, "
    "and agreement on them says little"
)
VARYING = (
    "the size of output {names} depends on what is in the samples, so it is left out of every comparison: to have what "
    "leads to it compared, cut the model in front of NonMaxSuppression, NonZero or whatever else selects"
)
DEAD = (
    "the original gives the same values of output {names} to all samples looked at, so it shows nothing that the "
    "result gives them, too: check the samples' range and preprocessing, and the model's weights"
)
ALL_DEAD = (
    "The model gives the same values of output {names} to all samples of {source} looked at, so nothing would show "
    "what a plan loses: check the samples' range and preprocessing, and the model's weights."
)
FEWER_JUDGE = (
    "the outputs for {there} held-out samples are large ({size:.1f} GiB), so {kept} of them, drawn at random, judge "
    "the plans: to say which, give as many with --val"
)
# Outputs of the original for held-out samples and their mixtures; a plan's, and what a comparison makes of both in
# float64, are 8 to 12 times as much (measured: a map of 21 classes, a list of 1,000).
JUDGED_BYTES, COPIES = 256 << 20, 12
FEWEST_JUDGE = 8
# From here on the pictures are all one to the model.
ALIKE_SHARE = 0.9


@dataclass(frozen=True, eq=False)
class Samples:
    """What a run fits on (None: nothing is fitted) and judges by.

    ``mixing``: whether mixtures stand in for another source; ``pictures``: the samples are the built-in ones;
    ``everything``: the source that both parts are from, where it is one.
    """

    fit: Calibration | None
    validation: Calibration
    digest: str
    warnings: tuple[str, ...]
    mixing: bool = False
    pictures: bool = False
    everything: Calibration | None = None


def open_samples(
    prepared: Prepared,
    calib: object,
    val: object,
    images: ImageOptions | None,
    samples: int,
    seed: int,
    progress: Progress = quiet,
) -> Samples:
    """The samples of a run, looked through: a model that cannot answer them is an error, odd ones are a warning.

    Raises:
        DataError: the data do not fit the model, or its outputs on any of them are not finite.
    """
    options = images or ImageOptions()
    if calib is None:
        return _without(prepared, options, samples, seed, progress)
    data = open_data(prepared, calib, options, samples, seed)
    digest = data.digest()
    if val is None:
        fit, validation = data.split(0.25, seed)
    else:
        fit, validation = data, open_data(prepared, val, options, samples, seed)
        digest += "+" + validation.digest()
    warnings = data.warnings if val is None else (*data.warnings, *validation.warnings)
    # Together: a size that depends on the data may show only between the two.
    outputs, layout = _answers(prepared, (fit, validation), progress)
    warnings += _unsaid(prepared, outputs, layout, data.source)
    for part in (fit,) if val is None else (fit, validation):
        warnings += _doubts(prepared, part)
    whole = data if val is None else None
    mixing, share = val is None, 4 if val is None else 1
    validation, fewer = _held(prepared, validation, outputs, layout, seed, mixing=mixing, share=share)
    return Samples(fit, validation, digest, warnings + fewer, mixing=mixing, everything=whole)


def judged_by(prepared: Prepared, found: Samples, seed: int) -> Calibration:
    """What plans are chosen by: the held-out samples, and mixtures of them where there are to be some.

    A model may have no finite answer to what lies between two samples; then these do alone, the very object.
    """
    if not found.mixing:
        return found.validation
    mixed = with_mixtures(found.validation, seed)
    # Those of the samples themselves were looked at before.
    fine = answers_finite(prepared.network.model, mixed, prepared.batch, len(found.validation))
    return mixed if fine else found.validation


def left_out(names: Sequence[str], outputs: Mapping[str, object]) -> tuple[str, ...]:
    """A warning where some of the model's outputs, by ``names``, are not among those that can be compared."""
    missing = [name for name in names if name not in outputs]
    return (VARYING.format(names=_listed(missing)),) if missing else ()


def says_nothing(outputs: Mapping[str, np.ndarray], layout: Layout) -> tuple[str, ...]:
    """A warning where floating outputs, joined as ``layout`` says, are the same for all samples."""
    dead = [name for name in same_values(outputs, layout) if np.issubdtype(outputs[name].dtype, np.floating)]
    return (DEAD.format(names=_listed(dead)),) if dead else ()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _unsaid(prepared: Prepared, outputs: Mapping[str, np.ndarray], layout: Layout, source: str) -> tuple[str, ...]:
    """Warnings about outputs from which nothing is learned.

    Raises:
        DataError: that is so of all of them, constants aside, and they are not labels alone; or none can be compared.
    """
    if not outputs:
        raise nothing_left(prepared.network.outputs)
    dead, warnings = same_values(outputs, layout), says_nothing(outputs, layout)
    if warnings and len(dead) == len(layout.rows(outputs)):
        raise DataError(ALL_DEAD.format(names=_listed(dead), source=source))
    return left_out(prepared.network.outputs, outputs) + warnings


def choosable(prepared: Prepared, found: Samples, method: str) -> Prepared:
    """With nothing to fit on, a method that fits is left with its drops."""
    if found.fit is not None or not any(kind in FITTED for kind in METHODS[method]):
        return prepared
    kept = METHODS["drop"]
    return replace(prepared, candidates=tuple(each for each in prepared.candidates if each.recipe in kept))


def what_it_cost(found: Samples, validated: Divergence) -> str | None:
    """A sentence on what was lost on the held-out pictures, or on noise; None where the samples are the user's."""
    if not found.pictures and found.fit is not None:
        return None
    same = "" if np.isnan(validated.agreement) else f"the same top-1 for {validated.agreement:.1%}, "
    if found.fit is None:
        count, kl, relative = len(found.validation), validated.kl, validated.relative
        return NOISE_COST.format(count=count, same=same, kl=kl, relative=relative)
    return (
        f"expected loss, measured on {len(found.validation)} cuts of pictures that no fit has seen: {same}"
        f"KL {validated.kl:.3g}, relative error {validated.relative:.2g}; what your own images lose may be more or less"
    )


def _answers(
    prepared: Prepared, parts: Sequence[Calibration], progress: Progress
) -> tuple[dict[str, np.ndarray], Layout]:
    def seen(done: int, total: int) -> None:
        progress("read", 1 + done, 1 + total, "the original's answers to all samples")  # behind the model itself

    return answers(prepared.network.model, parts, prepared.batch, seen=seen)


def _held(
    prepared: Prepared,
    validation: Calibration,
    outputs: Mapping[str, np.ndarray],
    layout: Layout,
    seed: int,
    *,
    mixing: bool = False,
    share: int = 1,
) -> tuple[Calibration, tuple[str, ...]]:
    """As many held-out samples as keep the outputs for them within ``JUDGED_BYTES``, and a warning where some go.

    ``outputs`` are those for ``layout.samples`` samples; one in ``share`` of the samples of a run is held out.

    Raises:
        DataError: memory holds not even that; the message says how many samples fit.
    """
    rows = sum(values.nbytes for name, values in outputs.items() if layout.axes.get(name) is not None)
    each = ceil(rows / max(layout.samples, 1) * (4 / 3 if mixing else 1))
    most = max(FEWEST_JUDGE, prepared.batch, JUDGED_BYTES // max(each, 1))
    there, kept = len(validation), min(len(validation), most)
    fit = how_many_fit(COPIES * each)
    needed, where = COPIES * each * kept, f"Comparing the outputs for {kept} held-out samples"
    if fit is not None and fit < max(2, prepared.batch):
        check_fits(needed, where, "take smaller inputs (--shapes), or a machine with more memory")
    check_fits(needed, where, f"use fewer samples (--samples {share * (fit or 0)})")
    if kept == there:
        return validation, ()
    return validation.take(kept, seed), (FEWER_JUDGE.format(there=there, size=each * there / 2**30, kept=kept),)


def _without(prepared: Prepared, options: ImageOptions, samples: int, seed: int, progress: Progress) -> Samples:
    """Pictures where they fit and their range is known, else noise and why.

    Raises:
        DataError: the model's outputs on the noise are not finite.
    """
    wanted, why = _pictures(prepared, options, samples, seed, progress)
    if wanted is not None:
        return wanted
    validation = open_data(prepared, noise(prepared, seed), ImageOptions(), samples, seed)
    warnings: tuple[str, ...] = (NO_DATA,) if why is None else (NO_DATA, why)
    parts, layout = gather(Session(prepared.network.model).run, validation.batches(prepared.batch))
    for name in prepared.network.outputs:
        bad = sum(not_finite(part[name]) for part in parts)
        if bad:
            raise DataError(
                f"Without --calib the model is run on noise around zero, and its output '{name}' is NaN or infinite in "
                f"{bad} of {len(parts)} batches of that: give samples of the range that it takes with --calib."
            )
    warnings += left_out(prepared.network.outputs, layout.axes)
    validation, _ = _held(prepared, validation, layout.join(parts), layout, seed)
    return Samples(None, validation, "none", warnings)


def _pictures(
    prepared: Prepared, options: ImageOptions, samples: int, seed: int, progress: Progress
) -> tuple[Samples | None, str | None]:
    """Built-in pictures as samples, or why not (None: the model takes no picture, and none was spoken of)."""
    specs = _specs(prepared)
    named = options.preset is not None or options.scale is not None
    if len(specs) != 1 or not _takes_pictures(specs[0]):
        return None, "its inputs are not one image, so image options have no effect" if named else None
    spec, pictures = specs[0], built_in_pictures()
    if pictures is None:
        return None, NOT_INSTALLED
    try:
        if named:
            told = Range(options, options.preset or f"scale {options.scale:g}", "as you said")
        elif prepared.network.widened is not None:
            told = Range(None, "", "it computes in bfloat16")
        else:
            told = infer_range(load_runnable(prepared.network.source), spec, options, pictures, seed)
        if told.options is None:
            return None, RANGE_UNKNOWN.format(input=spec.name, why=told.why)
        fit, validation = pictures.samples(spec, told.options, samples, seed)
        outputs, layout = _answers(prepared, (validation, fit), progress)
        unsaid = _unsaid(prepared, outputs, layout, validation.source)
        held_out, fewer = _held(prepared, validation, outputs, layout, seed, mixing=True, share=4)
    except DataError as error:
        return None, f"built-in pictures do not fit: {error}"
    warnings: tuple[str, ...] = (PICTURES.format(count=len(fit) + len(validation), name=told.name, why=told.why),)
    share = same_answer(outputs)
    if share is not None and share >= ALIKE_SHARE:
        warnings += (ALIKE.format(share=share),)
    warnings += unsaid + fewer
    warnings += _doubts(prepared, fit)
    digest = f"{fit.digest()}+{validation.digest()}"
    return Samples(fit, held_out, digest, warnings, mixing=True, pictures=True), None


def _takes_pictures(spec: InputSpec) -> bool:
    """Four axes, 1 or 3 channels first or last, and a height and width that show something."""
    if len(spec.shape) != 4:
        return False
    _, first, second, third = spec.shape
    return any(
        channels in (1, 3) and all(isinstance(side, int) and side >= SMALLEST_SIDE for side in sides)
        for channels, sides in ((first, (second, third)), (third, (first, second)))
    )


def _doubts(prepared: Prepared, data: Calibration) -> tuple[str, ...]:
    """A warning where the samples are of another range than the model was trained on."""
    if prepared.network.widened is not None:
        return ()
    found = suspicious_range(load_runnable(prepared.network.source), prepared.network.model, data, prepared.batch)
    return () if found is None else (found,)


def _specs(prepared: Prepared) -> list[InputSpec]:
    """The model's inputs; dynamic dims but the first take the bound sizes."""
    specs = []
    for info in prepared.network.inputs:
        bound = prepared.bound[info.name]
        shape = tuple(dim if axis == 0 else bound[axis] for axis, dim in enumerate(info.shape))
        specs.append(InputSpec(info.name, shape, info.dtype))
    return specs


def open_data(
    prepared: Prepared,
    calib: object,
    images: ImageOptions,
    samples: int,
    seed: int,
) -> Calibration:
    """The calibration source for the model's inputs; dynamic spatial dims take the bound sizes."""
    return load_calibration(calib, _specs(prepared), images=images, limit=samples, seed=seed)


def noise(prepared: Prepared, seed: int) -> dict[str, np.ndarray]:
    """Inputs with the spectrum of natural pictures (1/f), for ranking drops when there are no data."""
    generator = np.random.default_rng(seed)
    count = max(32, prepared.batch)
    arrays = {}
    for info in prepared.network.inputs:
        shape = (count, *prepared.bound[info.name][1:])
        values = generator.standard_normal(shape)
        if len(shape) == 4:
            axes = (2, 3) if shape[1] <= 4 else (1, 2)
            grids = np.meshgrid(*(np.fft.fftfreq(shape[axis]) for axis in axes), indexing="ij")
            radius = np.maximum(np.hypot(*grids), 1 / max(shape[axes[0]], 2))
            radius = np.expand_dims(radius, (0, 1) if axes == (2, 3) else (0, 3))
            values = np.fft.ifftn(np.fft.fftn(values, axes=axes) / radius, axes=axes).real
            values /= values.std()
        arrays[info.name] = values.astype(info.dtype)
    return arrays
