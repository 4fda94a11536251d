"""Uses an installed smalti as a newcomer would, with nothing around it: no compiler, no other program, no home.

    python -I tools/try_installed.py

Prints what `smalti info --json` says, and what was done.
"""

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

LDCONFIG = "/sbin/ldconfig"  # which triton asks for CUDA's libraries
TINY = ["--data", "emoji", "--steps", "2", "--batch_size", "4", "--width", "8", "--codebook_size", "16"]


def main() -> None:
    """Sample, train, encode, compress and back; what starts another program, or warns, ends it."""
    started: list[str] = []
    sys.addaudithook(lambda event, given: started.append(str(given[0])) if event == "subprocess.Popen" else None)
    warnings.simplefilter("error", UserWarning)
    import smalti
    from smalti.apps import cli

    place = Path(smalti.__file__).parent
    assert "site-packages" in place.parts, place
    assert (place / "py.typed").is_file()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for line in (
            ["sample", "emoji", "--text", "red heart", "--num", "2"],
            ["info", "emoji"],
            ["models"],
            ["train", "vqvae", *TINY, "--out", "run"],
            ["reconstruct", "run", "run/samples", "--out", "pictures"],
            ["encode", "run", "run/samples", "--out", "codes.npz"],
            ["compress", "run", "run/samples", "--out", "small.smalti"],
            ["decompress", "small.smalti", "--model", "run", "--out", "again"],
        ):
            with open(os.devnull, "w") as nowhere:
                out, sys.stdout = sys.stdout, nowhere
                status = cli.main([*line, "--quiet"])
                sys.stdout = out
            assert status == 0, line
        assert Path("sample.png").is_file() and list(Path("again").iterdir()) and list(Path("pictures").iterdir())
    assert set(started) <= {LDCONFIG}, started
    told = smalti.info()
    said = "sampled, trained, reconstructed, encoded, compressed, decompressed; no compiler started"
    print(json.dumps({**told, "said": said}))


if __name__ == "__main__":
    main()
