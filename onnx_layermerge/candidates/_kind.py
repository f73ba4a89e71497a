"""What a kind of replacement has to say of itself: where it can stand, what is fitted, what goes into the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnx_layermerge.candidates._candidate import Candidate, Stage
from onnx_layermerge.candidates._site import Site
from onnx_layermerge.candidates._space import Space
from onnx_layermerge.graph import Network, Region, Series

__all__ = ["Fitted", "Given", "Job", "Kind", "Weights"]


@dataclass(frozen=True, eq=False)
class Job:
    """One least-squares problem: patches of ``entry`` under ``stage``, judged at ``site``.

    ``width`` channels of the entry are to stay (None: all), those of each ``unit`` neighbours together; the weights are
    to have rank ``rank`` (None: any); ``prior`` [C_out, D] are weights to stay near.
    """

    key: str
    entry: str
    stage: Stage
    site: Site
    width: int | None = None
    prior: np.ndarray | None = None
    rank: int | None = None
    unit: int = 1


class Weights(Protocol):
    """What a job comes back with."""

    @property
    def weight(self) -> np.ndarray:
        """Float64 [C_out, C_in/groups·∏kernel], C_in without the channels that do not stay."""
        ...

    @property
    def bias(self) -> np.ndarray:
        """Float64 [C_out]."""
        ...

    @property
    def kept(self) -> np.ndarray | None:
        """The entry's channels that stay, ascending; None for all."""
        ...


@dataclass(frozen=True)
class Given:
    """A kind whose weights follow from the network's own."""

    propose: Callable[[Network, Region, Space], Iterable[Candidate]]
    series: Callable[[Network, Candidate], Series]


@dataclass(frozen=True)
class Fitted:
    """A kind whose weights come from data: a job for ``fit/``, and what its answer becomes."""

    propose: Callable[[Network, Region, Space], Iterable[Candidate]]
    job: Callable[[Network, Candidate], Job]
    series: Callable[[Network, Candidate, Weights], Series]


Kind = Given | Fitted
