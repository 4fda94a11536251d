"""A plan made native: the record of a network as operations of the interpreter in `ops/kernels/raster.h`.

Values get memory, windows get rows that move up, and what follows a product at once (a sum, an activation, a residual)
is done as the product is written. A function that the interpreter does not know leaves the plan to `CachedStepper`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.ops.native import Kernels
from smalti.priors.layers import gate
from smalti.priors.plan import Attend, ByImage, ByPosition, Embed, Look, Plan, Previous, Value, Window, values_in
from smalti.priors.sampling import SamplePlan, gumbel_noise

PRODUCT, ACTIVATE, NORM, ATTEND, SHIFT = range(5)  # as in raster.h, all of this
PLAIN, RELU, ELU, GELU, GATED, GLU, ADD = range(7)
FUNCTIONS = {F.relu: RELU, torch.relu: RELU, F.elu: ELU, F.gelu: GELU, gate: GATED, F.glu: GLU}
OPTIONS = {ELU: {"alpha": 1.0}, GELU: {"approximate": "tanh"}, GLU: {"dim": -1}}  # the only ones that C has
PLACE = np.dtype([("start", "i8"), ("image", "i8"), ("row", "i8"), ("column", "i8")])
OPERATION = np.dtype(
    [(name, "i8") for name in ("kind", "by_row", "function", "also_function")]
    + [(name, PLACE) for name in ("in", "start", "residual", "out", "also")]
    + [(name, "i8") for name in ("table", "bias", "depth", "segments", "step", "columns")]
    + [(name, "i8") for name in ("heads", "key_width", "value_width", "length", "offset")]
    + [("epsilon", "f8")]
)
TASK = np.dtype(
    [(name, "i8") for name in ("first", "count", "batch", "width", "copies", "codes", "known", "noise", "embedding")]
    + [(name, "i8") for name in ("size", "depth", "top_k")]
    + [(name, "f8") for name in ("temperature", "top_p", "guidance")]
    + [(name, PLACE) for name in ("embedded", "logits")]
)
LANES = 16  # of the widest vectors
NOWHERE = (0, 0, 0, 0)


class Unknown(Exception):
    """The interpreter has no such operation."""


def filled(channels: int) -> int:
    """Channels filled up to whole vectors."""
    return -(-channels // LANES) * LANES


class Place(NamedTuple):
    """Where a value lies for each image, row and column.

    Attributes:
        memory: holds it.
        parts: its channels; each part is filled up to whole vectors with zeros.
        image: floats from one image to the next; 0 where all share it.
        row: from one row to the next; 0 where every row overwrites it.
        column: from one column to the next.
        offset: of the first, in floats.
    """

    memory: Tensor
    parts: tuple[int, ...]
    image: int = 0
    row: int = 0
    column: int = 0
    offset: int = 0

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """As C takes it."""
        return self.memory.data_ptr() + 4 * self.offset, self.image, self.row, self.column


class Machine:
    """The operations of a plan, and the memory that they work on.

    Args:
        native: the kernels.
        plan: of float32 values on the CPU.
        packed: matrices that an earlier machine laid out; this one adds its own.

    Raises:
        Unknown: a function that the interpreter does not have.
    """

    def __init__(self, native: Kernels, plan: Plan, packed: dict[Any, tuple[Tensor, int, Tensor]]):
        self.native, self.plan, self.packed, self.halved = native, plan, packed, _halved(plan)
        self.caches = plan.prefill()
        self.operations: list[dict[str, Any]] = []
        self.at: dict[Value, Place] = {}
        self.made: dict[Value, tuple[dict[str, Any], str]] = {}  # by which operation, as which of its results
        self.windows = {value: self._window(window) for value, window in plan.windows.items()}
        for value in plan.values:
            make = MAKERS.get(value.function) or MAKERS.get(type(value.function))
            if make is None:
                raise Unknown(value.function)
            if value.late and not isinstance(value.function, Embed):  # the interpreter ends a step with nothing else
                raise Unknown("what is made of a position's own code")
            self.at[value] = make(self, value, *value.arguments)
        embeddings = [value for value in plan.values if isinstance(value.function, Embed)]
        if len(embeddings) != 1 or plan.logits.by_row:
            raise Unknown("logits that do not depend on the codes by one embedding")
        self.table, self.embedded = embeddings[0].function.table.detach().contiguous(), self.at[embeddings[0]]
        self.logits = self.at[plan.logits]
        rows = [tuple(self._number(operation, name) for name in OPERATION.names or ()) for operation in self.operations]
        self.records = np.array(rows, OPERATION).view(np.int64).reshape(len(rows), OPERATION.itemsize // 8)

    def _number(self, operation: dict[str, Any], name: str) -> Any:
        """A field of an operation as C takes it: where a tensor or a place lies, a number itself, 0 for nothing."""
        value = operation.get(name, 0)
        if name == "table" and operation["kind"] == PRODUCT:
            weight, source, parts = operation["weight"]
            value = operation[name] = self._pack(weight, source, parts, operation["function"] in (GATED, GLU))
        if isinstance(value, Place):
            return value.numbers
        return NOWHERE if OPERATION[name] is PLACE else value.data_ptr() if isinstance(value, Tensor) else value or 0

    # ------------------------------------------------------------------ memory

    def _window(self, window: Window) -> Place:
        """Memory for the last rows of a value, with zeros on both sides; every new row moves the others up."""
        rows, reach, channels = window
        width, size = self.plan.grid[1] + 2 * reach, filled(channels)
        place = Place(_zeros(self.plan.batch, rows, width, size), (channels,), rows * width * size, 0, size)
        if rows > 1:
            self.operations.append({"kind": SHIFT, "by_row": True, "out": place, "depth": width * size, "step": rows})
        return place

    def _in_window(self, value: Value, row: int, back: int) -> Place:
        """A row of a value's window, so many columns to the left of the current one."""
        place, (rows, reach, _) = self.windows[value], self.plan.windows[value]
        return place._replace(offset=row % rows * place.image // rows + (reach - back) * place.column)

    def _target(self, value: Value, parts: tuple[int, ...]) -> Place:
        """Where a value goes: into its window, or to memory for the current column or for all columns of a row."""
        if value in self.windows:
            return self._in_window(value, -1, 0)
        size, width = sum(map(filled, parts)), self.plan.grid[1] if value.by_row else 1
        return Place(_zeros(self.plan.batch, width, size), parts, width * size, 0, size if value.by_row else 0)

    def _parts(self, value: Value, channels: int) -> tuple[int, ...]:
        """How the channels of a value lie: in two parts if a gate takes it."""
        return (channels // 2, channels // 2) if value in self.halved else (channels,)

    def _pack(self, weight: Tensor, source: tuple[int, ...], parts: tuple[int, ...], halves: bool) -> Tensor:
        """A weight (out, in, rows, columns) in panels; as it was packed before, unless it changed since."""
        name = (weight.data_ptr(), weight.shape, weight.stride(), source, parts, halves, self.native.variant)
        _, version, panels = self.packed.get(name, (None, None, None))
        if panels is None or version != weight._version:
            matrix = weight.detach().permute(0, 2, 3, 1)
            matrix = _fill(_fill(matrix, 3, source).flatten(1), 0, parts)
            if halves:  # a gate wants a vector of each half side by side
                matrix = matrix.view(2, -1, self.native.panel // 2, matrix.shape[1]).transpose(0, 1).flatten(0, 2)
            panels = self.native.packed(matrix)
            self.packed[name] = weight, weight._version, panels  # the weight is held, so that its address stays its own
        return panels

    # ------------------------------------------------------------------ operations

    def _add(self, kind: int, value: Value, parts: tuple[int, ...], **fields: Any) -> Place:
        operation = {"kind": kind, "by_row": value.by_row, "function": PLAIN, "order": len(self.operations), **fields}
        self.operations.append(operation)
        return self._result(value, operation, "out", parts)

    def _result(
        self, value: Value, operation: dict[str, Any], name: str, parts: tuple[int, ...], **fields: Any
    ) -> Place:
        """Make an operation write a value, as its result "out" or "also"."""
        place = self._target(value, parts)
        self.made[value] = operation, name
        operation.update({name: place, "columns": _size(place), **fields})
        return place

    def _product_of(self, value: Any, user: Value) -> dict[str, Any] | None:
        """The product that writes a value last, if its user can be done with it."""
        operation, name = self.made.get(value, ({}, ""))
        fits = operation.get("kind") == PRODUCT and name == "out" and operation["by_row"] == user.by_row
        return operation if fits and "also" not in operation else None

    def _is_free(self, value: Value) -> bool:
        return value.uses == 1 and value not in self.windows

    def _embed(self, value: Value, codes: Value) -> Place:
        return self._target(value, (value.function.table.shape[1],))

    def _previous(self, value: Value, source: Value) -> Place:
        if not isinstance(source.function, Embed) or not self._is_free(source):  # the first one goes into its memory
            raise Unknown("what stands before a code, of something else than its embedding, or of one used twice")
        first = value.function.first
        if tuple(first.shape) != (self.plan.batch, *self.at[source].parts):
            raise Unknown(f"a first value of {tuple(first.shape)}")
        self.at[source].memory[:, 0, : first.shape[1]] = first
        return self.at[source]

    def _constant(self, value: Value) -> Place:
        """A table by position, or by image."""
        by_image = isinstance(value.function, ByImage)
        rows = self.plan.batch if by_image else self.plan.grid[0] * self.plan.grid[1]
        if len(value.function.table) != rows:
            raise Unknown(f"a table of {len(value.function.table)} rows for {rows}")
        parts = self._parts(value, value.function.table.shape[1])
        memory = _fill(value.function.table.float(), 1, parts).contiguous()
        size = memory.shape[1]
        return Place(memory, parts, size) if by_image else Place(memory, parts, 0, self.plan.grid[1] * size, size)

    def _linear(self, value: Value, source: Value, weight: Tensor, bias: Tensor | None = None) -> Place:
        return self._multiply(value, self.at[source], weight[:, :, None, None], bias, 0)

    def _look(self, value: Value, source: Value) -> Place:
        weight, bias, reach, own = value.function
        place = self._in_window(source, -weight.shape[2] - (not own), reach)
        return self._multiply(value, place, weight, bias, place.image // self.plan.windows[source].rows)

    def _multiply(self, value: Value, source: Place, weight: Tensor, bias: Tensor | None, step: int) -> Place:
        """A product with a weight (out, in, rows, columns), the rows `step` floats apart."""
        if not weight.numel():
            raise Unknown("a product without channels")
        parts = self._parts(value, len(weight))
        return self._add(
            PRODUCT, value, parts, **{"in": source}, weight=(weight, source.parts, parts), step=step,
            bias=None if bias is None else _fill(bias, 0, parts),
            segments=weight.shape[2], depth=weight.shape[3] * _size(source),
        )  # fmt: skip

    def _norm(self, value: Value, source: Value, shape: Any) -> Place:
        place, options = self.at[source], value.options
        if tuple(shape) != (sum(place.parts),):
            raise Unknown("a norm of a part")
        if options.get("weight") is None or options.get("bias") is None:
            raise Unknown("a norm without weight and bias")
        weight, bias = (_fill(options[name], 0, place.parts) for name in ("weight", "bias"))
        more = {"in": place, "table": weight, "bias": bias, "depth": sum(place.parts), "epsilon": options["eps"]}
        return self._add(NORM, value, place.parts, **more)

    def _attend(self, value: Value, source: Value) -> Place:
        (heads, key_width), place, old = value.function, self.at[source], self.caches.get(value)
        widths = key_width, sum(place.parts) // heads - 2 * key_width
        if len(place.parts) > 1 or sum(place.parts) % heads or widths[1] < 1:
            raise Unknown(f"attention over {place.parts} channels in {heads} heads")
        offset = 0 if old is None else old[0].shape[2]
        length = filled(offset + self.plan.grid[0] * self.plan.grid[1])
        lanes, caches = self.native.panel // 2, []
        for width, kept in zip(widths, old or (None, None), strict=True):
            caches.append(_zeros(self.plan.batch, heads, length, -(-width // lanes) * lanes))
            if kept is not None:
                caches[-1][:, :, :offset, :width] = kept
        keys, values = caches[0][..., : widths[0]].unflatten(2, (-1, lanes)).transpose(3, 4), caches[1]
        more = dict(zip(("key_width", "value_width"), widths, strict=True), heads=heads, length=length, offset=offset)
        more["table"] = torch.cat([keys.flatten(1), values.flatten(1)], dim=1)
        return self._add(ATTEND, value, (heads * widths[1],), **{"in": place}, **more)

    def _activate(self, value: Value, source: Value) -> Place:
        """An activation: done as its product is written, or beside that, or by itself."""
        place, function, product = self.at[source], FUNCTIONS[value.function], self._product_of(source, value)
        if not OPTIONS.get(function, {}).items() <= value.options.items():
            raise Unknown(f"{value.function} with {value.options}")
        halves = function in (GATED, GLU)
        parts = place.parts[:1] if halves else place.parts
        if product and self._is_free(source) and product["function"] == PLAIN and "residual" not in product:
            return self._result(value, product, "out", parts, function=function)
        if product and not halves:
            return self._result(value, product, "also", parts, also_function=function)
        return self._add(ACTIVATE, value, parts, function=function, **{"in": place})

    def _sum(self, value: Value, *terms: Value) -> Place:
        """A sum: where a product begins or what is added to its result, or by itself."""
        if not all(isinstance(term, Value) for term in terms):
            raise Unknown("a sum with a constant")
        first, second = self.at[terms[0]], self.at[terms[1]]
        if first.parts != second.parts:
            raise Unknown("a sum of values of different widths")
        for one, place, other in ((terms[0], second, terms[1]), (terms[1], first, terms[0])):
            product = self._product_of(one, value) if self._is_free(one) else None
            if product and "residual" not in product and self._is_before(other, product):
                name = "start" if product["function"] == PLAIN and "start" not in product else "residual"
                return self._result(value, product, "out", self.at[one].parts, **{name: place})
        return self._add(ACTIVATE, value, first.parts, function=ADD, **{"in": first}, residual=second)

    def _is_before(self, value: Value, operation: dict[str, Any]) -> bool:
        """Whether a value is there when an operation is done."""
        made = self.made.get(value, ({"order": -1},))[0]
        return made["order"] < operation["order"] or (value.by_row and not operation["by_row"])

    def _join(self, value: Value, items: list[Value]) -> Place:
        """Values side by side; what nobody else wants is written there at once."""
        if value.options.get("dim") != -1 or not all(isinstance(item, Value) for item in items):
            raise Unknown("a concatenation of other axes or with a constant")
        place = self._target(value, tuple(part for item in items for part in self.at[item].parts))
        offset = place.offset
        for item in items:
            here = place._replace(parts=self.at[item].parts, offset=offset)
            operation, name = self.made.get(item, ({}, ""))
            offset += _size(here)
            if operation and self._is_free(item) and item.by_row == value.by_row:
                operation[name] = self.at[item] = here
            else:
                copy = {"in": self.at[item], "out": here, "columns": _size(here), "function": PLAIN}
                self.operations.append({"kind": ACTIVATE, "by_row": value.by_row, **copy})
        return place


MAKERS: dict[Any, Callable[..., Place]] = {
    Embed: Machine._embed, Previous: Machine._previous, ByPosition: Machine._constant, ByImage: Machine._constant,
    F.linear: Machine._linear, Look: Machine._look, Attend: Machine._attend,
    F.layer_norm: Machine._norm, torch.add: Machine._sum, torch.cat: Machine._join,
    **dict.fromkeys(FUNCTIONS, Machine._activate),
}  # fmt: skip


def _zeros(*size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.float32)


def _size(place: Place) -> int:
    """Floats that the channels take."""
    return sum(map(filled, place.parts))


def _fill(tensor: Tensor, axis: int, parts: tuple[int, ...]) -> Tensor:
    """A tensor whose axis holds parts, each filled up with zeros."""
    pieces, behind = tensor.detach().split(list(parts), dim=axis), [0, 0] * (tensor.ndim - 1 - axis)
    return torch.cat([F.pad(piece, [*behind, 0, -piece.shape[axis] % LANES]) for piece in pieces], axis)


def _halved(plan: Plan) -> set[Value]:
    """The values that a gate takes, and the terms of those that are sums."""
    halved: set[Value] = set()
    for value in reversed(plan.values):
        if FUNCTIONS.get(value.function) in (GATED, GLU) or (value in halved and value.function is torch.add):
            halved.update(values_in(value.arguments))
    return halved


class NativeStepper:
    """Runs a machine position after position: handing out logits, or sampling.

    Args:
        machine: made for this batch.
        copies: images that share their codes, with guidance.
    """

    def __init__(self, machine: Machine, copies: int = 1):
        self.machine, plan = machine, machine.plan
        self.codes = torch.zeros(plan.grid[0] * plan.grid[1], plan.batch // copies, dtype=torch.int64)
        self.task = np.zeros(1, TASK)
        (task,) = self.task
        task["count"], task["batch"], task["width"], task["copies"] = 1, plan.batch, plan.grid[1], copies
        task["codes"], task["embedding"] = self.codes.data_ptr(), machine.table.data_ptr()
        task["size"], task["depth"] = machine.table.shape
        task["embedded"], task["logits"] = machine.embedded.numbers, machine.logits.numbers
        self.next = 0

    def step(self, previous: Tensor | None) -> Tensor:
        """The logits (B, K) of the next position, given the codes (B,) of the one before.

        Raises:
            SmaltiError: codes of another shape or type or outside [0, K), or a step behind the last position.
        """
        size, batch = len(self.machine.table), self.codes.shape[1]
        if previous is not None:
            if previous.shape != (batch,) or previous.is_floating_point() or previous.is_complex():
                raise SmaltiError(f"codes must be integers ({batch},), not {previous.dtype} {tuple(previous.shape)}")
            low, high = (int(bound) for bound in previous.aminmax())
            if not (low >= 0 and high < size):
                raise SmaltiError(f"codes must lie in [0, {size}); these lie in [{low}, {high}]")
            self.codes[self.next - 1] = previous
        if self.next == len(self.codes):
            raise SmaltiError(f"all {self.next} positions of the grid have been stepped; make a new stepper")
        self._run(1)
        return self.machine.logits.memory[:, 0, :size].clone()

    def _run(self, count: int) -> None:
        self.task["first"], self.task["count"] = self.next, count
        self.machine.native.raster(self.machine.records, self.task.view(np.int64))
        self.next += count

    def sample(self, plan: SamplePlan) -> Tensor:
        """Codes (B, T) as planned, a row a call, with the random numbers of `CausalPrior._sample`."""
        (task,) = self.task
        known, rules = plan.mask.long(), plan.rules
        task["known"], task["guidance"], task["temperature"] = known.data_ptr(), plan.guidance, rules.temperature
        task["top_k"], task["top_p"] = rules.top_k or 0, 1.0 if rules.top_p is None else rules.top_p
        self.codes.copy_(plan.known.T)
        width = self.machine.plan.grid[1]
        like = torch.empty(width, plan.num, len(self.machine.table))
        for _ in plan.told(-(-plan.end // width)):
            noise = gumbel_noise(like, plan.generator)  # the same as in a call for each column
            task["noise"] = noise.data_ptr()
            self._run(width)
        return self.codes.T
