"""Pages that were made before: where each is kept, known without PyTorch."""

import hashlib
from pathlib import Path

import smalti
from smalti.files import CONFIG, WEIGHTS, file_hash
from smalti.studio import runtime

PAGE = Path(__file__).with_name("page")  # what a page is made of
FILE = "studio.html"


def kept(run: Path, title: str) -> Path:
    """Where the page of the model in a folder is kept: another place where the model or our own files are others."""
    parts = [smalti.__version__, runtime.VERSION, title, *(file_hash(run / name) for name in (CONFIG, WEIGHTS))]
    own = [*Path(__file__).parent.glob("*.py"), *PAGE.rglob("*.*")]
    parts += [path.read_text(encoding="utf-8") for path in sorted(own)]
    version = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    return runtime.cache().parent / "studio" / version / FILE
