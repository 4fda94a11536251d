"""`smalti VERB ...`: parsers from typed functions, one-line errors, exit status 0 (done), 1 (bad input), 2 (usage)."""

import functools
import importlib
import inspect
import io
import itertools
import json
import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TextIO, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings

import smalti
from smalti import processes
from smalti.apps import completion, process
from smalti.apps.code import find_recipe, run_code
from smalti.apps.output import as_text, hushed, printable, say
from smalti.configs import nearest, to_dict
from smalti.errors import SmaltiError
from smalti.recipes import RECIPES
from smalti.recipes.flat import help_texts
from smalti.training.settings import RunSettings

VERBS: dict[str, Callable[..., Any]] = {
    name: getattr(importlib.import_module(f"smalti.apps.{name}"), name) for name in smalti.VERBS
}
INTERRUPTED = 130
PRINT = "--print_config"
BEGINS = "start_from"  # --from, where a recipe asks for it
PLACES = ("--data", "--out", "--from", "--tokenizer", "--like", "--model", "--prior", "--run")

set_parsing_settings(parse_optionals_as_positionals=False)


class Answer(NamedTuple):
    """How a verb answers."""

    json: bool
    quiet: bool


def entry() -> None:
    """The console script."""
    process.wait_less()
    process.keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Unicode is no error
    process.leave(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one command line; returns the exit status."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", module="PIL")  # odd metadata; how large an image may be is our own check
        warnings.showwarning = functools.partial(_say_warning, sys.stderr)  # also where a verb is quiet
        for name in ("PIL", "tifffile"):  # what is wrong with an image is said by our own errors
            logging.getLogger(name).setLevel(logging.CRITICAL)
        return _run(list(argv))


def _run(argv: list[str]) -> int:
    first = speaks = processes.is_first()  # of several that torchrun has started
    try:
        with processes.spoken_once():
            _refuse_unquoted(argv)
            _refuse_empty(argv)
            name, function, arguments, answer = _parse(argv)
            _refuse_company(name)
        speaks = True  # unless another one has said the same
        with hushed(answer.quiet), processes.joined():
            result = function(**arguments)
        if not first:
            return 0
        if answer.json:
            print(printable(json.dumps(result, ensure_ascii=False)))
        elif result is not None:
            print(printable(as_text(name, result)))
        sys.stdout.flush()
        return 0
    except SystemExit as stop:  # jsonargparse: 0 after --help, 2 for wrong usage
        return int(stop.code or 0)
    except KeyboardInterrupt as stop:
        if first:
            _complain(str(stop) or "stopped")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of stdout went away, as in `smalti ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except processes.PeerLost:
        return 1
    except SmaltiError as error:
        if speaks:
            _complain(str(error))
        return 1
    except OSError as error:
        what = f"{error.filename or 'file'}: {error.strerror or error}"
        _complain(f"{what}; check the path, its permissions and the free space")
        return 1


def _refuse_unquoted(argv: list[str]) -> None:
    """Name the remedy where a shell has put several files in the place of one pattern: --data a-*.parquet."""
    for place, word in enumerate(argv):
        if word not in ("--data", "--validation", "--test", "info"):
            continue
        files = list(itertools.takewhile(os.path.isfile, argv[place + 1 :]))
        if len(files) > 1:
            pattern = os.path.join(os.path.dirname(files[0]), f"*{os.path.splitext(files[0])[1]}")
            remedy = f"put the pattern in quotes, as {word} {shlex.quote(pattern)}"
            raise SmaltiError(f"{word} takes one name and was given {len(files)} files, {files[0]}, ...; {remedy}")


def _refuse_empty(argv: list[str]) -> None:
    """An empty word is a shell's variable that is not set; as a path it would be the folder one is in."""
    for before, word in itertools.pairwise(argv):
        given = not word and (before in PLACES or not before.startswith("-"))
        if given or word in {f"{flag}=" for flag in PLACES}:
            of = word.rstrip("=") or (before if before in PLACES else f"the word after {before}")
            raise SmaltiError(f"{of} is empty; give a name, or . for the folder you are in")


def _refuse_company(name: str) -> None:
    """Only a training is done by several processes together; others would each do the whole."""
    if name != "train" and processes.launched() > 1:
        raise SmaltiError(f"{name} runs in one process, not in {processes.launched()}: leave torchrun out")


def _complain(text: str, file: TextIO | None = None) -> None:
    say(f"smalti: {' '.join(text.split())}", file)


def _say_warning(file: TextIO, message: Warning | str, category: type[Warning], *_: Any) -> None:
    if not issubclass(category, DeprecationWarning | FutureWarning):
        _complain(f"warning: {message}", file)


def _parse(argv: list[str]) -> tuple[str, Callable[..., Any], dict[str, Any], Answer]:
    """The verb's name, its function, its arguments, and how to answer."""
    argv = _with_negative_values(argv)
    everything = completion.wanted(argv)  # of all verbs, not of the one in use
    parser = ArgumentParser(prog="smalti", description="Images to discrete codes and back.", version=smalti.__version__)
    commands = parser.add_subcommands(dest="verb", metavar="VERB")
    verb = None if everything else next((word for word in argv if not word.startswith("-")), None)
    recipes, chosen = RECIPES, argv[1] if argv[:1] == ["train"] and len(argv) > 1 else ""
    if ".py:" in chosen:  # known by the function's name from here on: a dot would mean something to the parser
        chosen, function = find_recipe(chosen)
        recipes = {**RECIPES, chosen: function}
        argv = ["train", chosen, *argv[2:]]
    resolved = chosen and hasattr(recipes.get(chosen), "filled") and PRINT in argv
    argv = [word for word in argv if word != PRINT] if resolved else argv
    own: list[str] = []  # parameters of the chosen recipe
    for name, function in VERBS.items():
        child = ArgumentParser(prog=f"smalti {name}", description=_first_line(function))
        commands.add_subcommand(name, child, help=_first_line(function))
        if name == "train" and (name == verb or everything):
            own = _add_recipes(child, recipes, chosen, everything)
        elif name == verb or everything:
            _add_verb(child, function)
            _add_common(child)
    if everything:
        completion.name_files(parser, (*PLACES, "--known", "--mask", "--code"))
    if verb is not None and verb not in commands.choices:
        parser.error(f"unknown verb {verb!r}; {nearest(verb, commands.choices)}")

    config = parser.parse_args(argv).as_dict()
    name = config["verb"]
    if name is None:
        parser.print_help()
        parser.exit(2)
    arguments = config[name]
    recipe = arguments["recipe"] if name == "train" else ""
    arguments = arguments[recipe] if recipe else arguments
    answer, code = Answer(arguments.pop("json"), arguments.pop("quiet")), arguments.pop("code")
    arguments.pop("config", None)
    for path in filter(None, ",".join(code).split(",")):
        run_code(path)
    if recipe:
        function, out = recipes[recipe], arguments.pop("out")
        start, settings = arguments.pop("from"), {key: arguments.pop(key) for key in _settings_of(function, own)}
        if resolved:
            config = {**arguments, **settings, "out": out, "from": start}
            return name, lambda: print(_as_config(function, arguments, config), end=""), {}, answer
        if BEGINS in inspect.signature(function).parameters:  # the recipe's own, which tells it what to train
            arguments[BEGINS], start = start, None
        return name, lambda: VERBS[name](function(**arguments), out, start_from=start, **settings), {}, answer
    return name, VERBS[name], arguments, answer


def _as_config(recipe: Any, arguments: dict[str, Any], config: dict[str, Any]) -> str:
    """A recipe's command as YAML for --config, with the values of its arguments that follow others."""
    values = {**config, **recipe.filled(**arguments)}
    values.pop(BEGINS, None)
    if values.get("minutes") is not None:
        values["steps"] = None
    return yaml.safe_dump(to_dict({key: value for key, value in values.items() if value is not None}), sort_keys=False)


def _with_negative_values(argv: list[str]) -> list[str]:
    """The words with `--flag -1000:1000` as one, which would be taken for two flags otherwise."""
    words: list[str] = []
    for word in argv:
        if re.match(r"-\.?\d", word) and words and re.fullmatch(r"--\w+", words[-1]):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _add_recipes(
    train: ArgumentParser, recipes: dict[str, Callable[..., Any]], chosen: str, everything: bool
) -> list[str]:
    """Give `smalti train` a subcommand for each recipe; only the chosen one gets its flags, or all do.

    Returns the names of its parameters, those of what its **keywords go to among them.
    """
    own: list[str] = []
    subcommands = train.add_subcommands(dest="recipe", metavar="RECIPE")
    if chosen and not chosen.startswith("-") and chosen not in recipes:
        train.error(f"unknown recipe {chosen!r}; {nearest(chosen, recipes)}, or path/to/file.py:function")
    for name, recipe in recipes.items():
        child = ArgumentParser(prog=f"smalti train {name}", description=_first_line(recipe))
        if name == chosen or everything:
            own = child.add_function_arguments(recipe, as_group=False, skip={BEGINS})
            _add_settings(child, recipe, own)
            child.add_argument("--out", type=str, required=True, help="the run's folder; an unfinished run goes on")
            text = "a model whose weights a new run begins with; its data, settings and some shapes may be others"
            child.add_argument("--from", type=str, default=None, metavar="RUN", help=text)
            child.add_argument("--config", action="config", help="a YAML or JSON file with these arguments")
            _add_common(child)
        subcommands.add_subcommand(name, child, help=_first_line(recipe))
    return own


def _add_verb(parser: ArgumentParser, function: Callable[..., Any]) -> None:
    """Flags from a verb's signature: what it requires comes by position, or as a required flag if keyword-only.

    A list of texts, and what a verb is about, come by position also where they may be left out.
    """
    texts = help_texts(function)
    for place, (name, parameter) in enumerate(inspect.signature(function).parameters.items()):
        required, text = parameter.default is inspect.Parameter.empty, texts.get(name)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            for record in get_args(parameter.annotation):  # a TypedDict: Unpack[Record]
                _add_record(parser, record)
            if not get_args(parameter.annotation):
                _add_settings(parser, function, [*inspect.signature(function).parameters])
        elif required and parameter.annotation == list[str]:
            parser.add_argument(name, type=str, nargs="+", help=text)
        elif parameter.annotation == list[str] | None:
            parser.add_argument(name, type=str, nargs="*", default=parameter.default, help=text)
        elif required and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            parser.add_argument(name, type=str, help=text)
        elif not place and parameter.annotation == str | None and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            parser.add_argument(name, type=str, nargs="?", default=None, help=text)
        elif parameter.default is False:  # --force as well as --force true
            parser.add_argument(f"--{name}", type=bool, nargs="?", const=True, default=False, help=text)
        else:
            default = {"required": True} if required else {"default": parameter.default}
            parser.add_argument(f"--{name}", type=parameter.annotation, help=text, **default)


def _add_record(parser: ArgumentParser, record: Any) -> None:
    """Flags for the keys of a TypedDict; None where they are not given."""
    texts = help_texts(record)
    for name, hint in get_type_hints(record).items():
        parser.add_argument(f"--{name}", type=hint, default=None, help=texts[name])


def _settings_of(function: Callable[..., Any], own: Sequence[str]) -> dict[str, Any]:
    """The settings of a run that a recipe or a verb has no parameter for, with their defaults.

    A verb that has one for the steps takes no minutes.
    """
    run, taken = getattr(function, "run", None), {*own, "minutes"} if "steps" in own else {*own}
    return {name: getattr(run, name, None) for name in get_type_hints(RunSettings) if name not in taken}


def _add_settings(parser: ArgumentParser, function: Callable[..., Any], own: Sequence[str]) -> None:
    texts, hints = help_texts(RunSettings), get_type_hints(RunSettings)
    for name, default in _settings_of(function, own).items():
        hint = hints[name] if default is not None else hints[name] | None
        alone = {"nargs": "?", "const": True} if hints[name] is bool else {}  # --compile as well as --compile true
        parser.add_argument(f"--{name}", type=hint, default=default, help=texts[name], **alone)


def _add_common(parser: ArgumentParser) -> None:
    text = "a Python file of yours that defines parts of the model, see docs/extending.md; several with commas"
    parser.add_argument("--code", action="append", default=[], metavar="FILE", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress and no remarks, but warnings and errors")


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]
