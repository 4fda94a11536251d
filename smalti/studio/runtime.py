"""ONNX Runtime for browsers: fetched once from the npm registry, held to its hash, kept in a cache.

It is 14 MB, so it is no part of this package. SMALTI_ONNXRUNTIME_WEB names a folder that has its files already, as
`node_modules/onnxruntime-web/dist` has.
"""

import hashlib
import io
import os
import tarfile
import urllib.request
from pathlib import Path

from smalti.errors import SmaltiError, reason
from smalti.files import atomic_path

VERSION = "1.30.0"
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
HASHES = {  # SHA-256
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
LARGEST_BYTES = 1 << 26  # of the archive, which has 33 MB


def runtime(address: str = ADDRESS) -> dict[str, bytes]:
    """The files of the runtime, from the cache or, the first time, from the registry.

    Raises:
        SmaltiError: they are not here and the registry cannot be reached, or they are not those that were tested.
    """
    own = os.environ.get("SMALTI_ONNXRUNTIME_WEB")
    folder = Path(own) if own else cache()
    if not all((folder / name).is_file() for name in HASHES):
        if own:
            raise SmaltiError(
                f"SMALTI_ONNXRUNTIME_WEB: {own} holds no {SCRIPT} and {WASM} of onnxruntime-web {VERSION}"
            )
        _fetch(address, folder)
    return {name: _checked((folder / name).read_bytes(), name, str(folder / name)) for name in HASHES}


def cache() -> Path:
    """The folder that the runtime is kept in."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SMALTI_CACHE") or Path(caches) / "smalti") / f"onnxruntime-web-{VERSION}"


def _fetch(address: str, folder: Path) -> None:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            packed = answer.read(LARGEST_BYTES)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            files = {name: archive.extractfile(f"package/dist/{name}") for name in HASHES}
            found = {name: file.read(LARGEST_BYTES) for name, file in files.items() if file is not None}
    except (OSError, tarfile.TarError, KeyError) as error:
        remedy = "fetch it where there is a network, or name a folder that has it by SMALTI_ONNXRUNTIME_WEB"
        raise SmaltiError(f"{address} cannot be fetched ({reason(error)}); {remedy}") from error
    for name in HASHES:
        data = _checked(found.get(name, b""), name, address)
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(data)


def _checked(data: bytes, name: str, where: str) -> bytes:
    if hashlib.sha256(data).hexdigest() != HASHES[name]:
        raise SmaltiError(f"{where}: {name} is not that of onnxruntime-web {VERSION}; remove it, to fetch it again")
    return data
