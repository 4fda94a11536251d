"""The one exception that users are meant to see."""


class SmaltiError(ValueError):
    """Bad input: one line that says what is wrong, where, and what to do about it.

    The command line prints it without a traceback and exits with 1. Any other exception that reaches the user is a bug.
    """
