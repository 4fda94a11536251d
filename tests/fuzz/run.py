"""Run drivers: `python -m tests.fuzz.run [NAME[=COUNT] ...]`; without names all of them. Exit status 1: a fault."""

import sys

from .harness import drivers, run

COUNT = 1000


def main(arguments: list[str]) -> int:
    """Print what became of the mutants of each driver."""
    faults = 0
    for argument in arguments or drivers():
        name, _, count = argument.partition("=")
        became = run(name, int(count or COUNT))
        print(f"{name}: {sum(became.values()):,} mutants")
        for what, times in sorted(became.items()):
            print(f"{times:9,d}  {what}")
            faults += times * what.startswith("FAULT")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
