"""How many steps fit into a budget of minutes, by what the first ones took; and how long a run has still to go."""

import bisect
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from smalti import processes
from smalti.training.settings import RunSettings, Watched

WARM, FEWEST = 2, 8  # steps that are not counted; that are, if there is time
PART, MOST_SECONDS = 0.03, 20.0  # of the budget, or seconds, in which each kind of step is measured
HASTE = 0.1  # the part of the budget after which fewer steps than FEWEST will do
LARGEST = 1 << 40  # steps
TRUST = 0.005  # the part of a run that says as much about its speed as what was measured before it


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds that a run spends.

    Attributes:
        steps: on a step, by the part of the run from which on it takes so long: {0.0: ...} where all are alike.
        pauses: on a validation, a picture and a checkpoint.
    """

    steps: Mapping[float, float]
    pauses: Mapping[Watched, float] = field(default_factory=dict)

    def before(self, run: RunSettings, done: int) -> float:
        """Seconds of the first `done` steps, without what is due after the last of them."""
        ends = [math.ceil(part * run.steps) for part in (*sorted(self.steps), 1.0)]
        spans = zip(sorted(self.steps), itertools.pairwise(ends), strict=True)
        total = sum(self.steps[part] * max(0, min(done, end) - first) for part, (first, end) in spans)
        every = {name: run.every(name) for name in self.pauses}
        past = max(0, done - 1)
        return total + sum(seconds * (past // every[name]) for name, seconds in self.pauses.items() if every[name])

    def total(self, run: RunSettings) -> float:
        """Seconds of the whole run."""
        return self.before(run, run.steps) + sum(self.pauses[name] for name in self.pauses if run.every(name))

    def fitting(self, run: RunSettings, seconds: float) -> int:
        """The largest number of steps of a run that takes so long, at least 1."""
        lengths = range(1, LARGEST)
        return max(1, bisect.bisect_right(lengths, seconds, key=lambda steps: self.total(replace(run, steps=steps))))

    def __str__(self) -> str:
        first, *later = (f"{1000 * seconds:,.3g} ms a step" for _, seconds in sorted(self.steps.items()))
        parts = [f"from {part:.0%} of the run on" for part in sorted(self.steps)[1:]]
        return ", ".join([first, *(f"{cost} {part}" for cost, part in zip(later, parts, strict=True))])


def seconds_of(step: Callable[[], object], budget: float) -> float:
    """Seconds that a step takes: the mean of some, as many as the first process takes, after a few that do not count.

    Args:
        step: does one, and waits until the device is done.
        budget: seconds of the whole run, of which a small part is spent.
    """
    for _ in range(WARM):
        step()
    start, most = time.perf_counter(), min(PART * budget, MOST_SECONDS)
    for count in itertools.count(1):
        step()
        seconds = time.perf_counter() - start
        enough = seconds >= most and (count >= FEWEST or seconds >= HASTE * budget)
        if processes.told(enough):
            return seconds / count
    raise AssertionError


def seconds_once(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Clock:
    """How long the steps after one took."""

    def __init__(self, step: int):
        self.step, self._start = step, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since that step."""
        return time.perf_counter() - self._start


class TimeLeft:
    """How long a run will still take: what is planned, at the speed of what is done.

    Args:
        run: with the number of steps.
        start: the step from which this process has gone on.
        costs: as they were measured; without them all steps are taken as alike, and pauses as part of them.
    """

    def __init__(self, run: RunSettings, start: int, costs: Costs | None = None):
        self.run, self.costs = run, costs or Costs(steps={0.0: 1.0})
        self.start, self.total = self.costs.before(run, start), self.costs.total(run)
        self.trust = TRUST * self.total if costs else 0.0

    def __call__(self, done: int, elapsed: float) -> float:
        """Seconds to the end, `elapsed` seconds after the start, when `done` steps of the run are done."""
        now = self.costs.before(self.run, done)
        planned = now - self.start + self.trust
        return (self.total - now) * (elapsed + self.trust) / planned if planned > 0 else math.nan
