"""`@recipe`: what recipes have in common stands in records, and a record's fields are flat keywords and flags."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, is_dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, get_type_hints

import docstring_parser

from smalti.configs import nearest
from smalti.errors import SmaltiError
from smalti.training.experiment import Training
from smalti.training.settings import RunSettings

T = TypeVar("T", bound=Training)


class Following(NamedTuple):
    """Defaults that follow other keywords."""

    names: Collection[str]  # of the keywords: None in the signature
    values: Callable[[str, Mapping[str, Any]], Mapping[str, Any]]  # of the recipe's name and what is given
    why: str  # what they follow, in words


def recipe(
    follow: Following | None = None, with_defaults: Mapping[str, Any] | None = None, /, **settings: Any
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Make a recipe of a function that returns an experiment.

    A parameter whose annotation is a dataclass is a record: the recipe has its fields as keywords instead, and those of
    the records in it, with the values of the parameter's default as theirs. The experiment gets the function's name and
    the settings.

    Args:
        follow: keywords whose defaults follow others, and what gives them their values.
        with_defaults: values of keywords in place of those of their records.
        **settings: the defaults of a run, see `RunSettings`.

    Raises:
        SmaltiError: on the call, for an unknown or missing keyword.
    """
    run = RunSettings(**settings)

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        name, own = function.__name__, inspect.signature(function, eval_str=True).parameters
        hints = {key: parameter.annotation for key, parameter in own.items()}
        records: dict[str, Any] = {key: hint for key, hint in hints.items() if is_dataclass(hint)}
        keywords: dict[str, inspect.Parameter] = {}
        for key, parameter in own.items():
            more = _keywords(records[key], parameter.default) if key in records else {key: parameter}
            assert not keywords.keys() & more.keys(), f"{name}: two records have {keywords.keys() & more.keys()}"
            keywords |= more
        keywords |= {key: keywords[key].replace(default=value) for key, value in (with_defaults or {}).items()}
        defaults = {key: parameter.default for key, parameter in keywords.items()}
        following = [key for key in keywords if follow and key in follow.names]
        keywords |= {key: _by_default_none(keywords[key]) for key in following}

        def filled(**options: Any) -> dict[str, Any]:
            """All keywords with their values, those that follow others among them."""
            values = {key: options.get(key, parameter.default) for key, parameter in keywords.items()}
            found = follow.values(name, values) if follow else {}
            own = {key: found.get(key, defaults[key]) for key in following if values[key] is None}
            return {**values, **own}

        @functools.wraps(function)
        def flat(**options: Any) -> T:
            for key in options:
                if key not in keywords:
                    setting = f"it is a setting of the run: train(experiment, out, {key}=...)"
                    hint = setting if hasattr(run, key) else nearest(key, keywords)
                    raise SmaltiError(f"{name}: unknown keyword {key!r}; {hint}")
            values = filled(**options)
            for key, value in values.items():
                if value is inspect.Parameter.empty:
                    raise SmaltiError(f"{name}: the keyword {key!r} is missing")
            given = {key: _build(records[key], values) if key in records else values[key] for key in own}
            made = function(**given)
            of_run = {key: value for key, value in values.items() if hasattr(run, key) and value is not None}
            return replace(made, recipe=name, run=replace(made.run, **settings, **of_run))

        why = {key: f" By default that of {follow.why}." for key in following if follow}
        flat.__doc__ = _documented(function, list(records.values()), list(keywords), why)
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in keywords.values()]
        vars(flat).update(run=run, filled=filled, __signature__=inspect.Signature(parameters))
        return flat

    return decorate


def _keywords(record: Any, default: Any) -> dict[str, inspect.Parameter]:
    """The fields of a record, and of the records in it, as parameters; `default` is a record with their defaults."""
    found: dict[str, inspect.Parameter] = {}
    for key, hint in get_type_hints(record).items():
        of_class = record.__dataclass_fields__[key].default
        value = getattr(default, key) if is_dataclass(default) else of_class
        if is_dataclass(hint):
            found |= _keywords(hint, value)
        else:
            value = inspect.Parameter.empty if value is MISSING else value
            found[key] = inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=hint)
    return found


def _build(record: Any, values: Mapping[str, Any]) -> Any:
    """The record with its fields, and those of the records in it, from flat values."""
    hints = get_type_hints(record)
    return record(**{key: _build(hint, values) if is_dataclass(hint) else values[key] for key, hint in hints.items()})


def _by_default_none(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(default=None, annotation=parameter.annotation | None)


def _documented(
    function: Callable[..., Any], records: list[Any], names: list[str], more: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The docstring of a function with what its records say of their fields, and more of some."""
    about = inspect.cleandoc(function.__doc__ or "")
    texts: dict[str, str] = {}
    while records:
        record = records.pop()
        records += [hint for hint in get_type_hints(record).values() if is_dataclass(hint)]
        texts |= help_texts(record)
    texts |= help_texts(function)
    lines = [f"    {name}: {' '.join(texts[name].split())}{more.get(name, '')}" for name in names if name in texts]
    return "\n".join([about.partition("Args:\n")[0].rstrip(), "", "Args:", *lines, ""])


def help_texts(documented: Any) -> dict[str, str]:
    """What a docstring says of each parameter or attribute."""
    found = docstring_parser.parse(documented.__doc__ or "").params
    return {entry.arg_name: entry.description or "" for entry in found}
