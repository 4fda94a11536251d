"""A causal prior's network, recorded once, and stepped position after position with a cache on any device.

The network is one text of plain PyTorch. Called with codes it computes all positions at once. Called with the `codes`
of a `Plan` it records itself: functions of single positions (linear layers, activations, norms, sums) are noted as they
are called, by `__torch_function__`; the layers of `smalti.priors.layers`, which look at other positions, note
themselves. `CachedStepper` runs the record in PyTorch, `smalti.priors.machine` natively where it knows all functions.

A value is known before a row begins, for all of its columns (all that it sees lies in the rows above), or at its
position only, or after it, if it is made of the position's own code, which later positions alone may look at. So a
network's parts that look upwards are computed a row at a time, and no input is visited for nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IDENTITIES = {F.dropout, torch.flatten}  # in evaluation, at one position


class Value:
    """What the network computes at every position; stands for (B, *positions, C) while the network is recorded.

    Attributes:
        function: makes it at one position from `arguments`, or a note of this module that says how.
        arguments: values and constants.
        options: keywords of `function`.
        by_row: known for all columns of a row before the row begins.
        late: known after its position only: it is made of the position's own code.
        uses: by how many later values.
    """

    def __init__(self, plan: "Plan", function: Any, arguments: tuple, options: Mapping[str, Any], by_row: bool):
        self.plan, self.function, self.arguments, self.options = plan, function, arguments, options
        self.by_row, self.uses = by_row, 0
        self.late = function is None or (_sees_own(function) and any(value.late for value in values_in(arguments)))
        for value in values_in(arguments):
            value.uses += 1

    @classmethod
    def __torch_function__(cls, function: Callable, types: Any, arguments: tuple = (), options: Any = None) -> "Value":
        found = values_in(arguments)
        by_row = all(value.by_row for value in found)
        return found[0] if function in IDENTITIES else found[0].plan.note(function, arguments, options or {}, by_row)

    def __add__(self, other: Any) -> "Value":
        return self.__torch_function__(torch.add, (), (self, other))

    def __sub__(self, other: Any) -> "Value":
        return self.__torch_function__(torch.sub, (), (self, other))

    def __mul__(self, other: Any) -> "Value":
        return self.__torch_function__(torch.mul, (), (self, other))

    __radd__, __rmul__ = __add__, __mul__

    def __len__(self) -> int:
        return self.plan.batch

    @property
    def shape(self) -> tuple[int]:
        """(B,): more is not known."""
        return (self.plan.batch,)

    def flatten(self, *_: int) -> "Value":
        """At one position there is nothing to flatten."""
        return self


def values_in(arguments: Any) -> list[Value]:
    """The values among some arguments, in lists too."""
    if isinstance(arguments, Value):
        return [arguments]
    return [value for item in arguments for value in values_in(item)] if type(arguments) in (tuple, list) else []


def with_values(arguments: Any, known: Mapping[Value, Tensor]) -> Any:
    """The arguments with tensors in place of values."""
    if isinstance(arguments, Value):
        return known[arguments]
    nested = type(arguments) in (tuple, list)
    return type(arguments)(with_values(item, known) for item in arguments) if nested else arguments


class Embed(NamedTuple):
    """The vectors (K, C) of the codes: at a position that of its own code, which only later positions may see."""

    table: Tensor


class Previous(NamedTuple):
    """The value at the position before, in raster order; at the first position `first` (B, C)."""

    first: Tensor


class ByPosition(NamedTuple):
    """A row of `table` (T, C) for each position."""

    table: Tensor


class ByImage(NamedTuple):
    """A vector for each image: `table` (B, C)."""

    table: Tensor


class Look(NamedTuple):
    """A convolution over a value's last rows, the current one the last of them if `own`.

    Its weight is (out, in, rows, columns); the columns begin `reach` to the left.
    """

    weight: Tensor
    bias: Tensor | None
    reach: int
    own: bool


class Attend(NamedTuple):
    """Attention of this position over itself and all before it, `prefix` among them."""

    heads: int
    key_width: int


def _sees_own(function: Any) -> bool:
    """Whether the result at a position depends on the arguments at that position."""
    if isinstance(function, Look):
        return function.own and function.weight.shape[3] > function.reach
    return not isinstance(function, Previous)


class Window(NamedTuple):
    """How much of a value's past is looked at: the last `rows` rows, and `reach` columns of zeros on both sides."""

    rows: int
    reach: int
    channels: int


class Plan:
    """The record of a network.

    Args:
        network: takes codes (B, h, w) to logits (B, h, w, K).
        batch: B.
        grid: (h, w).

    Attributes:
        codes: what the network is called with.
        values: in the order in which they are computed.
        windows: the values whose past is looked at.
        prefix: (B, P, C) positions before the codes, where attention begins, and the value that they come before.
        logits: what the network returned.
    """

    def __init__(self, network: Callable[[Any], Any], batch: int, grid: tuple[int, int]):
        self.batch, self.grid = batch, grid
        self.values: list[Value] = []
        self.windows: dict[Value, Window] = {}
        self.prefix: tuple[Value, Tensor] | None = None
        self.codes = Value(self, None, (), {}, by_row=False)
        with torch.no_grad():
            self.logits: Value = network(self.codes)
        for value in reversed(self.values):  # what nobody looks at is not computed
            if not value.uses and value is not self.logits:
                self.values.remove(value)
                for argument in values_in(value.arguments):
                    argument.uses -= 1
        for value in self.values:
            if isinstance(value.function, Look):
                self._look_back(value.arguments[0], value.function)

    def note(self, function: Any, arguments: tuple, options: Mapping[str, Any], by_row: bool = False) -> Value:
        """Record a value."""
        if function is F.embedding:
            function, arguments = Embed(arguments[1]), arguments[:1]
        self.values.append(Value(self, function, arguments, options, by_row))
        return self.values[-1]

    def _look_back(self, source: Value, look: Look) -> None:
        """Widen the window of a value to what looks at it."""
        old = self.windows.get(source, Window(0, 0, 0))
        rows, channels = look.weight.shape[2] + (not look.own), look.weight.shape[1]
        self.windows[source] = Window(max(rows, old.rows), max(look.reach, old.reach), channels)

    def prefill(self) -> dict[Value, tuple[Tensor, Tensor]]:
        """The keys and values (B, heads, P, width) of the prefix, for each attention."""
        caches: dict[Value, tuple[Tensor, Tensor]] = {}
        if self.prefix is None or not self.prefix[1].shape[1]:
            return caches
        known = dict([self.prefix])
        for value in self.values:
            if value is self.logits or not all(argument in known for argument in values_in(value.arguments)):
                continue
            arguments = with_values(value.arguments, known)
            if isinstance(value.function, Attend):
                queries, keys, contents = heads_of(arguments[0], *value.function)
                caches[value] = keys, contents
                known[value] = merged(F.scaled_dot_product_attention(queries, keys, contents, is_causal=True))
            elif values_in(value.arguments):
                known[value] = value.function(*arguments, **value.options)
        return caches


def heads_of(qkv: Tensor, heads: int, key_width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, heads, n, width) of their concatenation (B, n, heads * (2 * key_width + width))."""
    sizes = [heads * key_width, heads * key_width, qkv.shape[2] - 2 * heads * key_width]
    queries, keys, values = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in qkv.split(sizes, dim=2))
    return queries, keys, values


def merged(mixed: Tensor) -> Tensor:
    """(B, heads, n, width) to (B, n, heads * width)."""
    return mixed.transpose(1, 2).flatten(2)


class CachedStepper:
    """Runs a plan position after position, in PyTorch; a row's part before its first position.

    Args:
        plan: the network's.
    """

    def __init__(self, plan: Plan):
        self.plan, self.place = plan, 0
        self.known: dict[Value, Tensor] = {}
        self.before: dict[Value, Tensor] = {}  # what a note of `Previous` stands for
        self.windows: dict[Value, Tensor] = {}  # (B, rows, reach + w + reach, C)
        self.caches = plan.prefill()

    @torch.no_grad()
    def step(self, previous: Tensor | None) -> Tensor:
        """The logits (B, K) of the next position, given the codes (B,) of the one before."""
        if previous is not None:
            self._end(previous)
        column = self.place % self.plan.grid[1]
        if column == 0:
            for value, window in self.windows.items():
                self.windows[value] = F.pad(window[:, 1:], (0, 0, 0, 0, 0, 1))
            self._run((value for value in self.plan.values if value.by_row), slice(None))
        self._run((value for value in self.plan.values if not value.by_row and not value.late), column)
        self.place += 1
        logits = self.known[self.plan.logits]
        return logits[:, column] if self.plan.logits.by_row else logits

    def _end(self, codes: Tensor) -> None:
        """What is known behind a position, by its codes (B,)."""
        column = (self.place - 1) % self.plan.grid[1]
        self.known[self.plan.codes] = codes
        self._run((value for value in self.plan.values if value.late), column)
        for value in self.plan.values:
            if isinstance(value.function, Previous):
                self.before[value] = self._at(value.arguments[0], value, column)

    def _run(self, values: Iterable[Value], column: Any) -> None:
        for value in values:
            self._keep(value, self._result(value, column), column)

    def _keep(self, value: Value, result: Tensor, column: Any) -> None:
        self.known[value] = result
        if value in self.plan.windows:
            window, reach = self._window(value, result), self.plan.windows[value].reach
            window[:, -1, reach : window.shape[2] - reach][:, column] = result

    def _window(self, value: Value, like: Tensor) -> Tensor:
        if value not in self.windows:
            rows, reach, channels = self.plan.windows[value]
            size = self.plan.batch, rows, self.plan.grid[1] + 2 * reach, channels
            self.windows[value] = torch.zeros(size, dtype=like.dtype, device=like.device)
        return self.windows[value]

    def _result(self, value: Value, column: Any) -> Tensor:
        """(B, C), or (B, w, C) of a whole row."""
        function, grid = value.function, self.plan.grid
        match function:
            case Embed(table):
                return table[self.known[value.arguments[0]]]
            case Previous(first):
                return self.before.get(value, first)
            case ByPosition(table):
                return table.view(*grid, -1)[self.place // grid[1]].expand(self.plan.batch, -1, -1)
            case ByImage(table):
                return table[:, None].expand(-1, grid[1], -1)
            case Look(weight, bias, reach, own):
                (source,) = value.arguments
                window, (height, width) = self._window(source, weight), weight.shape[2:]
                first, start = window.shape[1] - height - (not own), self.plan.windows[source].reach - reach
                start, count = (start, grid[1] + 2 * reach) if value.by_row else (start + column, width)
                rows = window[:, first : first + height, start : start + count]
                found = F.conv2d(rows.permute(0, 3, 1, 2), weight, bias)[:, :, 0].transpose(1, 2)
                return found if value.by_row else found[:, 0]
            case _:
                known = {one: self._at(one, value, column) for one in values_in(value.arguments)}
                arguments = with_values(value.arguments, known)
                if isinstance(function, Attend):
                    return self._attend(value, *arguments)
                return function(*arguments, **value.options)

    def _at(self, argument: Value, value: Value, column: Any) -> Tensor:
        known = self.known[argument]
        return known[:, column] if argument.by_row and not value.by_row else known

    def _attend(self, value: Value, qkv: Tensor) -> Tensor:
        queries, *new = heads_of(qkv[:, None], *value.function)
        old = self.caches.get(value, ())
        keys, contents = (torch.cat(pair, dim=2) for pair in zip(old, new, strict=True)) if old else new
        self.caches[value] = keys, contents
        return merged(F.scaled_dot_product_attention(queries, keys, contents))[:, 0]
