"""What is to be said of images that are read all the same: once for a data set, with a count."""

import threading
import warnings


class Remarks:
    """Collects remarks on images by their kind; thread-safe."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}  # by kind: of how many images, and the first remark
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def add(self, kind: str, text: str) -> None:
        """Note a remark: `kind` says it of many images, "keep few levels", `text` of one, with its name."""
        with self._lock:
            count, first = self._found.get(kind, (0, text))
            self._found[kind] = count + 1, first

    def say(self) -> None:
        """Warn of each kind that was found, once."""
        with self._lock:
            new = {kind: found for kind, found in self._found.items() if kind not in self._said}
            self._said.update(new)
        for kind, (count, first) in new.items():
            warnings.warn(first if count == 1 else f"{count} images {kind}; the first: {first}", stacklevel=3)
