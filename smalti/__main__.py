"""`python -m smalti` and `torchrun -m smalti`."""

from smalti.apps.cli import entry

if __name__ == "__main__":
    entry()
