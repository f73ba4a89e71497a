"""The cost of a block, as the slope of time over copies.

A block timed alone is charged for things it would not cost inside the network: the call, the
copies and layout changes at its ends, caches that are warm or cold. With T(R) the time of a model
that holds R copies of the block, each with weights of its own,

    cost = (T(R2) - T(R1)) / (R2 - R1),        R1 = 1, R2 = 3,

and all that does not grow with R cancels. Each round contributes one slope, from an R1 and an R2
run directly after one another (so that slow drift cancels too); the cost is the median of the
slopes. The blocks of a group are taken in a new random order every round, and an anchor is timed
once a round: should the machine itself become slower or faster, the anchor shows it.

What is clearly dearer than anybody wants is given up after a look (``_live.py``). What else a device can
tell is asked of its backend (``_watch.py``): clocks that moved, blocks that are bound by launches and not
by compute, what a block costs with cold caches. On a CPU none of these is there to be told.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence, Sized

import numpy as np

from onnx_layermerge.errors import ModelError, UsageError
from onnx_layermerge.latency._anchor import Anchor
from onnx_layermerge.latency._clock import Clock, cpu_clock
from onnx_layermerge.latency._live import Live
from onnx_layermerge.latency._sampling import Progress, no_progress
from onnx_layermerge.latency._spec import BlockSpec, Store
from onnx_layermerge.latency._statistics import FEWEST_ROUNDS, Failure, StopRule, Value
from onnx_layermerge.latency._watch import watch_of
from onnx_layermerge.latency.backends import Backend

__all__ = ["slopes"]

GROUP_BYTES = 256 << 20
"""Model bytes of the sessions held at once; the weights live about twice in memory."""


class _Profiler:
    """The state of one call of `slopes`; its methods are the steps."""

    def __init__(
        self,
        blocks: Iterable[BlockSpec | None],
        total: int,
        backend: Backend,
        rule: StopRule,
        clock: Clock,
        warm_up_s: float,
        stop_s: float,
        rng: np.random.Generator,
        progress: Progress,
        store: Store,
        hand: Callable[[str | None], None],
        keep: Callable[[BlockSpec, Sequence[float]], None],
    ) -> None:
        self._watch, self._keep = watch_of(backend), keep
        self._waiting, self._total, self._ended = iter(blocks), total, False
        self._live: list[Live] = []
        self._backend, self._rule, self._clock, self._warm_up_s = backend, rule, clock, warm_up_s
        self._stop_s, self._rng, self._progress, self._store, self._hand = stop_s, rng, progress, store, hand
        self.anchor: Anchor | None = None
        self._anchor_key = ""
        self._seen: set[str] = set()
        self.results: dict[str, Value] = {}

    def load_group(self, most: int) -> bool:
        """Load the next blocks, up to the limits or to a mark; False when there is nothing more to do."""
        held = 0
        while not self._ended and len(self._live) < most and held < GROUP_BYTES:
            try:
                if self._late():
                    raise StopIteration
                spec = next(self._waiting)
            except StopIteration:
                self._ended = True
                break
            if spec is None and self._live:
                break
            if spec is not None and spec.key not in self._seen:
                held += self._load(spec)
        if self.anchor is None and self._live:
            # The middle one: cheap enough to repeat, long enough to show a change.
            middle = sorted(self._live, key=lambda item: item.once_s)[len(self._live) // 2].spec
            self._hand(middle.key)
            with contextlib.suppress(ModelError):
                self.anchor = Anchor(middle, self._backend, self._clock, 10 * self._warm_up_s)
                self._anchor_key = middle.key
            self._hand(None)
        if self.anchor is not None:
            self.anchor.new_group()
        return bool(self._live) or not self._ended

    def round(self) -> bool:
        """Take one more slope of every block that is not settled; False when all are."""
        if self.anchor is not None and self._live:
            self._hand(self._anchor_key)
            self.anchor.round()
        for index in self._rng.permutation(len(self._live)):
            if self._late():
                break
            item = self._live[index]
            self._hand(item.spec.key)
            try:
                item.round(self._clock)
            except ModelError as error:
                self._settle(item, Failure(str(error)))
                continue
            bound = item.bound()
            reason = self._rule.verdict(item.slopes, item.spent_s)
            if bound is not None:
                self._settle(item, bound)
            elif reason is not None:
                self._settle(item, item.result(reason))
            self.show(f"timing {item.spec.label}")
        self._hand(None)
        self._watch.look()
        if self._late():
            self._give_up()
        self._live = [item for item in self._live if item.spec.key not in self.results]
        return bool(self._live)

    def warnings(self) -> tuple[str, ...]:
        """What was not steady, by the anchor and by the device's own instruments."""
        drift = self.anchor.warning() if self.anchor is not None else None
        return (*([] if drift is None else [drift]), *self._watch.warnings())

    def close(self) -> None:
        for item in self._live:
            item.close()
        if self.anchor is not None:
            self.anchor.close()

    def show(self, what: str) -> None:
        """Report progress, in steps over all blocks."""
        # A block is worth one step for loading and one for each of the rounds it needs at least.
        each = 1 + self._rule.min_n
        pending = (x for x in self._live if x.spec.key not in self.results)
        done = sum(min(1 + len(x.slopes), each - 1) for x in pending)
        self._progress(len(self.results) * each + done, self._total * each, what)

    def _load(self, spec: BlockSpec) -> int:
        """Make the block live; bytes of its models (0: it failed)."""
        self._seen.add(spec.key)
        item = Live(spec, self._rng)
        self.show(f"building {spec.label}")
        self._hand(spec.key)
        self._live.append(item)  # before loading, so that close() finds half of a block too
        try:
            item.load(self._backend, self._clock, self._warm_up_s)
        except ModelError as error:
            self._settle(item, Failure(str(error)))
            self._live.remove(item)
            return 0
        self._hand(None)
        return item.model_bytes

    def _settle(self, item: Live, result: Value) -> None:
        item.close()
        self.results[item.spec.key] = result
        self._keep(item.spec, item.slopes)
        self._store(item.spec, result)

    def _late(self) -> bool:
        return self._clock().wall_s >= self._stop_s

    def _give_up(self) -> None:
        """Out of time: keep what has an interval, drop the rest."""
        self._ended = True
        for item in self._live:
            if item.spec.key not in self.results:
                if len(item.slopes) >= FEWEST_ROUNDS:
                    self._settle(item, item.result("cap"))
                item.close()
        self._live = []


def slopes(
    blocks: Iterable[BlockSpec | None],
    backend: Backend,
    *,
    cap_s: float = 0.6,
    floor_s: float = 0.0,
    target: float = 0.01,
    min_rounds: int = 30,
    max_rounds: int = 60,
    floor_rounds: int | None = None,
    group: int = 24,
    warm_up_s: float = 0.01,
    budget_s: float = math.inf,
    seed: int = 0,
    total: int | None = None,
    clock: Clock = cpu_clock,
    progress: Progress = no_progress,
    store: Store | None = None,
    warn: Callable[[str], None] | None = None,
    hand: Callable[[str | None], None] | None = None,
    keep: Callable[[BlockSpec, Sequence[float]], None] | None = None,
) -> dict[str, Value]:
    """Time every block on the backend; blocks with the same key are timed once.

    Args:
        blocks: read one by one, whenever there is room for the next, so that an iterator may decide by
            what was stored before; None in it is a mark: all before it is settled before it goes on.
        cap_s: wall seconds for the timed rounds of one block.
        floor_s: half-width in seconds that is precise enough however cheap the block is; a small
            share of the whole network's time is a good choice.
        target: half-width relative to the cost that is precise enough.
        min_rounds, max_rounds: bounds of the rounds per block, 6 <= min <= max.
        floor_rounds: rounds from which on the floor is judged, 6 <= floor <= min; None is `min_rounds`.
        group: blocks loaded at once at most (fewer when their weights are large).
        warm_up_s: wall seconds that each model runs before it is timed.
        budget_s: wall seconds after which nothing is begun any more; what has an interval by then is
            stored with stop reason ``cap``, what has none is left out.
        seed: of the orders.
        total: how many blocks there may be, for the progress; None counts them where that is possible.
        store: called with each result as soon as it is there, so that a crash loses none.
        warn: called with one sentence for each thing that was not steady on the way.
        hand: called with the key of the block that is about to be built or run, and with None after.
        keep: called with all slopes of a block, in seconds and in the order of the rounds, before its result.

    Returns:
        Key -> cost in seconds, or that it is above the block's ceiling, or the reason why the backend
        could not build or run the block.

    Raises:
        DeviceError: the device was lost.
        UsageError: the bounds make no sense.
    """
    rule = StopRule(min_rounds, max_rounds, cap_s, target, floor_s, floor_rounds)
    if group < 1:
        raise UsageError("A group without a block cannot be timed; give at least one.")
    if isinstance(blocks, Sized) and not len(blocks):
        return {}
    if total is None:
        total = len({spec.key for spec in blocks if spec is not None}) if isinstance(blocks, Sized) else 0
    profiler = _Profiler(
        blocks,
        total,
        backend,
        rule,
        clock,
        warm_up_s,
        clock().wall_s + budget_s,
        np.random.default_rng(seed),
        progress,
        store or (lambda spec, value: None),
        hand or (lambda key: None),
        keep or (lambda spec, slopes: None),
    )
    with contextlib.closing(profiler):
        while profiler.load_group(group):
            while profiler.round():
                pass
        profiler.show("timed all blocks")
    if warn is not None:
        for text in profiler.warnings():
            warn(text)
    return profiler.results
