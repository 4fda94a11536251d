"""Frozen dataclasses to JSON and back, and the construction of a family's members from a spec.

A *spec* is a plain mapping {"kind": NAME, **keywords}: NAME is a key of a family (`BOTTLENECKS`, `NETWORKS`,
`LIKELIHOODS`, `PRIORS`), the keywords go to the member's constructor. Unknown names and keys are errors that name the
nearest known one.
"""

import dataclasses
import difflib
import inspect
import types
import typing
from collections import UserDict
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from smalti.errors import SmaltiError

T = TypeVar("T")
Spec = Mapping[str, Any]
FREE = {"free": True}  # metadata of a field that a run may change when it goes on: it does not decide the result


def nearest(name: str, known: Iterable[str]) -> str:
    """An error's tail: the known name that is most like `name`, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
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
        SmaltiError: not a mapping, an unknown key, or a required key that is missing; the message begins with `where`.
    """
    if not isinstance(values, Mapping):
        raise SmaltiError(f"{where}: expected an object with the keys of {kind.__name__}, got {values!r}")
    hints = typing.get_type_hints(kind)
    known = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items() if key in hints}
    return construct(kind, {**values, **known}, where)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) is types.UnionType and type(None) in typing.get_args(hint):
        if value is None:
            return None
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value, where)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(value)
    simple = {int: int, float: (int, float), str: str, bool: bool}
    if hint in simple and (not isinstance(value, simple[hint]) or (hint is not bool and isinstance(value, bool))):
        raise SmaltiError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {value!r}")
    return value


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
        raise SmaltiError(f"{self.what}: unknown kind {name!r}; {nearest(name, self)}; {own}")

    def build(self, spec: Spec, **more: Any) -> T:
        """Construct the member that `spec["kind"]` names, with the rest of `spec` and `more` as keywords.

        Raises:
            SmaltiError: unknown kind, unknown or missing keyword, or a member that lacks an attribute of its interface.
        """
        options = {**spec, **more}
        name = str(options.pop("kind", None))
        made = construct(self[name], options, f"{self.what} {name!r}")
        interfaces = [cls for cls in type(made).__mro__ if getattr(cls, "__abstractmethods__", None)]
        for attribute in (key for cls in interfaces for key in inspect.get_annotations(cls)):
            if not hasattr(made, attribute):
                raise SmaltiError(f"{self.what} {name!r}: {type(made).__name__} does not set {attribute}")
        return made


def _path_of(member: type) -> str:
    return f"{member.__module__}.{member.__qualname__}"


def construct(member: type[T], options: Mapping[str, Any], what: str) -> T:
    """Make an object of class `member` with keywords from a file; `what` begins an error's text.

    Raises:
        SmaltiError: unknown or missing keyword.
    """
    parameters = inspect.signature(member).parameters
    for key in options:
        if key not in parameters:
            raise SmaltiError(f"{what}: unknown key {key!r}; {nearest(key, parameters)}")
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in options:
            raise SmaltiError(f"{what}: the key {key!r} is missing")
    return member(**options)


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
