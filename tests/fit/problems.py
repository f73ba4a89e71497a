"""Least-squares problems whose answer is known: the target is a convolution of the entry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from onnx_layermerge.candidates import Site, Stage
from onnx_layermerge.fit import Gram, Job, Target, grid_of, patch_rows, sample_positions, value_rows
from onnx_layermerge.merge import AffineConv, Geometry

PLAIN = Geometry((3, 3), (1, 1), (1, 1), (1, 1))


class Problem:
    """Entry x [N, C, *space], a convolution of ``stage`` with known weights, and its output in float64."""

    def __init__(
        self,
        geometry: Geometry = PLAIN,
        *,
        wide: int = 4,
        out: int = 5,
        groups: int = 1,
        images: int = 24,
        seed: int = 0,
        copies: dict[int, int] | None = None,
        rank: int | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.stage = Stage(wide, out, geometry, groups)
        self.weight = rng.standard_normal(self.stage.weight_shape)
        if rank is not None:  # of each group
            left = rng.standard_normal((groups, out // groups, rank))
            right = rng.standard_normal((groups, rank, self.stage.unknowns))
            self.weight = (left @ right).reshape(self.stage.weight_shape)
        self.bias = rng.standard_normal(out)
        rank = len(geometry.kernel)
        # A mean and correlated channels, as behind a Relu.
        mixed = np.einsum("nc...,cd->nd...", rng.standard_normal((images, wide, *(8,) * rank)), np.eye(wide) + 0.3)
        self.x = (mixed + 0.5).astype(np.float32)
        for channel, of in (copies or {}).items():
            self.x[:, channel] = self.x[:, of]
        conv = AffineConv.from_conv(
            self.weight,
            self.bias,
            geometry.stride,
            (1,) * rank,
            geometry.pad_begin + geometry.pad_end,
            groups,
        )
        self.y = conv.apply(self.x.astype(np.float64))

    def gram(self, held_images: int = 4) -> Gram:
        """All positions of all images, borders included."""
        places = self.places()
        rows = patch_rows(self.x, self.stage.geometry, places)
        grouped = rows.reshape(len(places), self.stage.groups, -1).transpose(1, 0, 2)
        held = int((places[:, 0] >= len(self.x) - held_images).sum())
        return Gram(np.array(grouped, dtype=np.float32, order="C"), held)

    def places(self) -> np.ndarray:
        grid = grid_of(self.stage.geometry, self.x)
        return sample_positions(len(self.x), grid, 10**6, np.random.default_rng(0))

    def target(self, values: np.ndarray | None = None, **options: Any) -> Target:
        return Target(value_rows(self.y if values is None else values, self.places()), **options)

    def job(self, key: str = "j", *, skip: str | None = None, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Job:
        return Job(key, "x", self.stage, Site("x", "y", "y", skip, *bounds))

    def runs(
        self,
        original: dict[str, np.ndarray] | None = None,
        deployed: dict[str, np.ndarray] | None = None,
        *,
        size: int = 5,
    ) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """(values of the original, values of the deployed model) for ``size`` images at a time."""
        first = {"x": self.x, "y": self.y} if original is None else original
        second = first if deployed is None else deployed
        for start in range(0, len(self.x), size):
            part = slice(start, start + size)
            yield tuple({key: value[part] for key, value in each.items()} for each in (first, second))  # type: ignore[misc]
