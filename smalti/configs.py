"""Frozen dataclasses to JSON and back, and the construction of a family's members from a spec.

A *spec* is a plain mapping {"kind": NAME, **keywords}: NAME is a key of a family (`BOTTLENECKS`, `NETWORKS`,
`LIKELIHOODS`, `PRIORS`), the keywords go to the member's constructor. Unknown names and keys are errors that name the
nearest known one. The annotations of a dataclass or a constructor are the schema of what a file may say: every value is
held against its own, see `fit`.
"""

import dataclasses
import difflib
import inspect
import numbers
import types
import typing
from collections import UserDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from smalti.errors import LONGEST, SmaltiError, cut, reason, shown
from smalti.ranges import Range

T = TypeVar("T")
Spec = Mapping[str, Any]
FREE = {"free": True}  # metadata of a field that a run may change when it goes on: it does not decide the result


def nearest(name: str, known: Iterable[str]) -> str:
    """An error's tail: the known name that is most like `name`, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name[:100], known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def effective(active: bool, why: str, **options: tuple[Any, Any]) -> dict[str, Any]:
    """Options that have an effect only together with another, at their defaults where they are not given.

    Args:
        active: whether they have one.
        why: they have none, for the error: "without ...".
        **options: (what was given or None, the default).

    Raises:
        SmaltiError: an option is given that has no effect.

    Example:
        >>> effective(True, "without logits distance", sharpness=(None, 2.0))
        {'sharpness': 2.0}
    """
    if active:
        return {name: default if given is None else given for name, (given, default) in options.items()}
    for name, (given, _) in options.items():
        if given is not None:
            raise SmaltiError(f"{name} {given} has no effect {why}; leave it out")
    return {}


def to_dict(config: Any) -> Any:
    """A dataclass, and all that is in it, as what JSON can hold."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_dict(value) for value in config]
    return config


def from_dict(kind: type[T], values: Any, where: str = "config") -> T:
    """Rebuild a dataclass of class `kind` from `to_dict`'s result.

    Raises:
        SmaltiError: not a mapping, an unknown key, a required key that is missing, or a value that its annotation does
            not allow; the message begins with `where` and the key.
    """
    if not isinstance(values, Mapping):
        raise _expected(where or kind.__name__, f"an object with the keys of {kind.__name__}", values)
    return construct(kind, values, where)


def construct(member: type[T], options: Mapping[str, Any], where: str) -> T:
    """Make an object of class `member` with keywords from a file, each held against its annotation.

    Raises:
        SmaltiError: an unknown or missing keyword, or a value that its annotation does not allow; the message begins
            with `where` and the key.
        CannotBuild: whatever else the class raises.
    """
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = {key: own for key, own in inspect.signature(member).parameters.items() if own.kind in kinds}
    for key in options:
        if key not in parameters:
            raise SmaltiError(f"{where or member.__name__}: unknown key {shown(key)}; {nearest(key, parameters)}")
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in options:
            raise SmaltiError(f"{where or member.__name__}: the key {key!r} is missing")
    hints = _hints_of(member)
    fitted = {key: fit(hints.get(key, Any), value, f"{where}.{key}".lstrip(".")) for key, value in options.items()}
    try:
        return member(**fitted)
    except SmaltiError as error:
        raise type(error)(cut(str(error), LONGEST)) from error
    except Exception as error:  # a member may be anybody's
        what = f"{where or 'config'}: no {member.__name__} can be made of these values"
        raise CannotBuild(f"{what} ({type(error).__name__}: {reason(error)})") from error


class CannotBuild(SmaltiError):
    """A constructor failed in a way of its own."""


def fit(hint: Any, value: Any, where: str) -> Any:
    """`value` as its annotation wants it: lists as tuples, mappings as dataclasses, all the rest unchanged.

    What is no annotation of JSON's kinds of value (a class of the user's) takes every value.

    Args:
        hint: the annotation; what numbers may be stands in it as a `smalti.ranges.Range`.
        value: from a file.
        where: the key, for the error.

    Raises:
        SmaltiError: the annotation does not allow it.

    Example:
        >>> fit(tuple[int, ...], [8, 8], "bottleneck.levels")
        (8, 8)
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        ranges = [part for part in parts[1:] if isinstance(part, Range)]
        return _in_ranges(parts[0], ranges, value, where)
    if origin in (types.UnionType, typing.Union):
        return _one_of(parts, value, where)
    if origin is typing.Literal:
        if not any(type(part) is type(value) and part == value for part in parts):
            raise _expected(where, f"one of {', '.join(map(repr, parts))}", value)
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_dict(hint, value, where)
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise _expected(where, "an object", value)
        return {key: fit(parts[1], own, f"{where}.{key}") for key, own in value.items()} if parts else value
    if isinstance(kind, type) and issubclass(kind, Sequence) and not issubclass(kind, str | bytes):
        return _sequence(kind, parts, value, where)
    if hint is float:
        return _in_ranges(float, [Range()], value, where)
    if isinstance(hint, type) and hint in NAMES and not _is_a(hint, value):
        raise _expected(where, NAMES[hint], value)
    return value


NAMES = {int: "int", float: "float", str: "str", bool: "bool", types.NoneType: "null"}


def _is_a(hint: type, value: Any) -> bool:
    if hint in (int, float):
        number = isinstance(value, numbers.Integral if hint is int else numbers.Real)
        return number and not isinstance(value, bool) and value == value  # NaN is no number
    return isinstance(value, hint)


def _in_ranges(hint: Any, ranges: list[Range], value: Any, where: str) -> Any:
    if hint not in (int, float):
        return fit(hint, value, where)
    if not _is_a(hint, value):
        raise _expected(where, NAMES[hint], value)
    for allowed in ranges:
        if value not in allowed:
            raise SmaltiError(f"{where}: must be {allowed}, not {shown(value)}")
    return value


def _one_of(hints: Sequence[Any], value: Any, where: str) -> Any:
    """By the first of several annotations that allows the value; the error is that of the only one, or names all."""
    errors = []
    for hint in hints:
        try:
            return fit(hint, value, where)
        except SmaltiError as error:
            if hint is not types.NoneType:
                errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    wanted = " or ".join(str(error).partition(": ")[2].rpartition(", got")[0] or str(error) for error in errors)
    raise _expected(where, wanted.replace("expected ", ""), value)


def _sequence(kind: type, parts: Sequence[Any], value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _expected(where, "a list", value)
    if kind is tuple and parts and parts[-1] is not ...:
        if len(value) != len(parts):
            raise _expected(where, f"{len(parts)} values", value)
        hints = parts
    else:
        hints = [parts[0] if parts else Any] * len(value)
    fitted = [fit(hint, own, f"{where}.{index}") for index, (hint, own) in enumerate(zip(hints, value, strict=True))]
    return fitted if kind is list else tuple(fitted)


def _expected(where: str, what: str, value: Any) -> SmaltiError:
    return SmaltiError(f"{where}: expected {what}, got {shown(value)}")


def _hints_of(member: type) -> dict[str, Any]:
    """The annotations of a class's keywords; none where they cannot be read."""
    try:
        return typing.get_type_hints(
            member if dataclasses.is_dataclass(member) else member.__init__, include_extras=True
        )
    except Exception:  # a name that only a type checker knows
        return {}


class Family(UserDict[str, type[T]]):
    """The classes that can stand in one place of a model, by name; `FAMILY["name"] = Class` adds one of your own.

    Args:
        what: the family's name in an error, for example "bottleneck".
        base: the class of all members.
        **members: the family's own, all of them in one place.

    Raises:
        SmaltiError: a name that is taken, a class of another family, or one with abstract methods left; also when a
            member is added later.
    """

    def __init__(self, what: str, base: type[T], /, **members: type[T]):
        self.what, self.base = what, base
        super().__init__(members)

    def __setitem__(self, name: str, member: type[T]) -> None:
        if not (isinstance(member, type) and issubclass(member, self.base)):
            raise SmaltiError(f"{self.what} {name!r} must be a subclass of {self.base.__name__}, not {member!r}")
        if missing := sorted(getattr(member, "__abstractmethods__", ())):
            raise SmaltiError(f"{self.what} {name!r}: {member.__name__} does not define {', '.join(missing)}")
        if name in self and _path_of(self[name]) != _path_of(member):  # the same class again: its file was run again
            raise SmaltiError(f"there is a {self.what} {name!r} already, {_path_of(self[name])}; choose another name")
        super().__setitem__(name, member)

    def __missing__(self, name: str) -> type[T]:
        own = "if it is your own, name the file that defines it: --code FILE"
        raise SmaltiError(f"{self.what}: unknown kind {shown(name)}; {nearest(name, self)}; {own}")

    def build(self, spec: Spec, **more: Any) -> T:
        """Construct the member that `spec["kind"]` names, with the rest of `spec` and `more` as keywords.

        Raises:
            SmaltiError: unknown kind, unknown or missing keyword, a value that its annotation does not allow, or a
                member that lacks an attribute of its interface.
        """
        if "kind" not in spec:
            raise SmaltiError(f"{self.what}: the key 'kind' is missing; {nearest('', self)}")
        if given := [key for key in more if key in spec]:
            raise SmaltiError(f"{self.what}.{given[0]}: is not given here; leave it out")
        name = fit(str, spec["kind"], f"{self.what}.kind")
        options = {key: value for key, value in spec.items() if key != "kind"}
        made = construct(self[name], {**options, **more}, self.what)
        interfaces = [cls for cls in type(made).__mro__ if getattr(cls, "__abstractmethods__", None)]
        for attribute in (key for cls in interfaces for key in inspect.get_annotations(cls)):
            if not hasattr(made, attribute):
                raise SmaltiError(f"{self.what} {name!r}: {type(made).__name__} does not set {attribute}")
        return made


def _path_of(member: type) -> str:
    return f"{member.__module__}.{member.__qualname__}"


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """The places where two `to_dict` results differ, as "path: old -> new" lines."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))]
    return [] if old == new else [f"{where}: {old!r} -> {new!r}"]


def decisive(config: Any) -> Any:
    """As `to_dict`, without the fields that are marked as `FREE`."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = [field.name for field in dataclasses.fields(config) if not field.metadata.get("free")]
        return {name: decisive(getattr(config, name)) for name in fields}
    return to_dict(config)
