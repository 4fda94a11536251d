"""The one exception that users are meant to see, and what its one line shows of others' values."""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 300  # characters of an error about a file of somebody else

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60
_repr.maxlist = _repr.maxtuple = _repr.maxdict = 4
_repr.maxlevel = 3


class SmaltiError(ValueError):
    """Bad input: one line that says what is wrong, where, and what to do about it.

    The command line prints it without a traceback and exits with 1. Any other exception that reaches the user is a bug.
    """


def cut(text: str, most: int) -> str:
    """A text on one line, of at most `most` characters."""
    text = " ".join(text[: 4 * most].split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def shown(value: object, most: int = 60) -> str:
    """A value as an error shows it: its `repr`, on one line and cut; quick for a value of any size."""
    return cut(_repr.repr(value), most)


@contextmanager
def one_line(path: object, what: str) -> Iterator[None]:
    """Whatever a library makes of a damaged file becomes one line; a `SmaltiError` gets the file's name in front.

    Args:
        path: of the file.
        what: to say of it before the library's own words.
    """
    try:
        yield
    except SmaltiError as error:
        text = str(error)
        raise type(error)(text if str(path) in text else cut(f"{path}: {text}", LONGEST)) from error
    except Exception as error:
        raise SmaltiError(cut(f"{what} ({reason(error)})", LONGEST)) from error


def reason(error: BaseException) -> str:
    """What a foreign exception says, on one line and cut; its class where it says nothing."""
    lines = str(error).strip().splitlines()
    return cut(lines[0], 120) if lines else type(error).__name__
