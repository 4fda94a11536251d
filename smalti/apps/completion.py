"""What `smalti --print_completion shtab-bash` needs: verbs, flags and files, completed by a shell."""

from collections.abc import Iterator, Sequence
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings

from smalti.errors import SmaltiError

FLAG = "--print_completion"


def wanted(argv: Sequence[str]) -> bool:
    """Whether a command line has the flag; jsonargparse then takes it, and shtab answers.

    Raises:
        SmaltiError: shtab is missing.
    """
    if FLAG not in argv:
        return False
    try:
        import shtab  # noqa: F401  # pyright: ignore[reportMissingImports]

        set_parsing_settings(add_print_completion_argument=True)
    except (ImportError, TypeError) as error:  # TypeError: a jsonargparse that has another way
        raise SmaltiError(f"{FLAG} needs more: pip install 'smalti[completion]'") from error
    return True


def name_files(parser: ArgumentParser, places: Sequence[str]) -> None:
    """Complete files where a word is one: what comes by position, and the flags that are places."""
    import shtab  # pyright: ignore[reportMissingImports]

    for action in _actions(parser):
        if not action.choices and (not action.option_strings or action.option_strings[0] in places):
            action.complete = shtab.FILE


def _actions(parser: Any) -> Iterator[Any]:
    """Those of a parser and of its subcommands."""
    for action in parser._actions:
        if action.nargs == "A...":  # argparse's sign of subcommands
            for child in action.choices.values():
                yield from _actions(child)
        else:
            yield action
