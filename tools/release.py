"""Builds what is published into dist/, from the files of the commit that is checked out, and checks it.

    make release                                     # a source archive, a wheel with the kernels, one without
    make release HOME_URL=https://HOST/OWNER/smalti  # with links to there; without it the README's are plain text
    make release PYTHONS="python3.11 python3.12"     # installs both wheels with each, and uses them without a compiler

A Python that is one of a virtual environment is used as it is, with the PyTorch that it has; of others a new
environment is made under build/release. Nothing is uploaded.
"""

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).parent.parent
WORK, DIST = ROOT / "build" / "release", ROOT / "dist"
LIBRARY = "smalti/ops/kernels/native.so"
GLIBC = (2, 17)  # the oldest that the wheel asks for: manylinux_2_17
PLATFORM = f"manylinux_{GLIBC[0]}_{GLIBC[1]}_{os.uname().machine}"
NEEDED = {"py.typed", "commit.txt", "data/emoji/tiles.webp", "data/emoji/NOTICE"}  # in smalti/
NEEDED |= {path.relative_to(ROOT / "smalti").as_posix() for path in ROOT.glob("smalti/bundled/**/*.*")}
LINK = re.compile(r"(!?)\[([^][]*)\]\((?!https?:|#)([^)]+)\)")
PICTURE = re.compile(r"!\[[^]]*\]\([^)]*\)\n(?:\n\*[^*]+\*\n)?\n?")  # with what stands below it


def long_description(readme: str, files: str | None) -> str:
    """The README for an index: it knows no other file of ours, and whoever reads it installs from there.

    Args:
        readme: Markdown.
        files: where the project's files are read: links and pictures lead there. None takes them out.
    """
    readme = readme.replace("pip install -e '.[", "pip install 'smalti[")
    if files is None:
        return LINK.sub(lambda link: link[2], PICTURE.sub("", readme))
    pictures = files.replace("/blob/", "/raw/")
    return LINK.sub(lambda link: f"{link[1]}[{link[2]}]({pictures if link[1] else files}/{link[3]})", readme)


def run(*words: object, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command; what it prints. Ends the release where it fails."""
    command, variables = [*map(str, words)], {**os.environ, **environment}
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}release: failed")
    return done.stdout


def unpack(archive: BinaryIO, place: Path) -> None:
    """The files of a tar archive in a folder that holds nothing else."""
    shutil.rmtree(place, ignore_errors=True)
    with tarfile.open(fileobj=archive) as files:
        files.extractall(place, filter="data")


def build(home: str | None) -> list[Path]:
    """The source archive of the commit, and both wheels made of it."""
    source = WORK / "source"
    unpack(
        io.BytesIO(subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout), source
    )
    settings, readme = source / "pyproject.toml", source / "README.md"
    found = re.search(r'^version = "(.*)"$', settings.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    files = f"{home}/blob/v{found[1]}" if home else None
    readme.write_text(long_description(readme.read_text(encoding="utf-8"), files), encoding="utf-8")
    if files:
        places = {
            "Homepage": home,
            "Source": home,
            "Documentation": f"{files}/docs",
            "Changelog": f"{files}/CHANGELOG.md",
        }
        with settings.open("a", encoding="utf-8") as file:
            file.write("\n[project.urls]\n" + "".join(f'{name} = "{url}"\n' for name, url in places.items()))
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", DIST, source)
    (packed,) = DIST.glob("*.tar.gz")
    for kind in (PLATFORM, "any"):
        with packed.open("rb") as archive:
            unpack(archive, WORK / kind)
        (unpacked,) = (WORK / kind).iterdir()
        run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", DIST, unpacked, SMALTI_WHEEL=kind)
    return [packed, *sorted(DIST.glob("*.whl"))]


def is_pure(wheel: Path) -> bool:
    """Whether it is the one without kernels."""
    return wheel.name.endswith("-none-any.whl")


def check(wheel: Path) -> str:
    """Look at what a wheel holds, and whether its tag is true; a line about it."""
    with zipfile.ZipFile(wheel) as files:
        names, commit = set(files.namelist()), files.read("smalti/commit.txt").decode().strip()
        missing = {f"smalti/{name}" for name in NEEDED} - names
        strange = {name for name in names if not re.match(r"smalti(-[\w.]+\.dist-info)?/.*(?<!\.[ch])$", name)}
        if missing or strange or commit.startswith("$") or (LIBRARY in names) == is_pure(wheel):
            sys.exit(f"{wheel.name}: missing {missing}, strange {strange}, commit {commit}")
        if is_pure(wheel):
            return f"{wheel.name}: commit {commit}, no kernels"
        needed, newest = asked_of(files.read(LIBRARY))
    if needed != {"libc.so.6"} or newest > GLIBC:
        sys.exit(f"{wheel.name} needs {needed}, glibc {newest}: more than its tag says")
    if PLATFORM not in (told := run(sys.executable, "-m", "auditwheel", "show", wheel)):
        sys.exit(f"{wheel.name}: {told}")
    return f"{wheel.name}: commit {commit}, kernels that need glibc {newest[0]}.{newest[1]} and nothing else"


def asked_of(library: bytes) -> tuple[set[str], tuple[int, int]]:
    """The libraries that a shared library names, and the newest version of their symbols."""
    from elftools.elf.elffile import ELFFile  # pyright: ignore[reportMissingImports]  # of auditwheel

    read = ELFFile(io.BytesIO(library))
    tags, versions = read.get_section_by_name(".dynamic"), read.get_section_by_name(".gnu.version_r")
    asked = [(file.name, version.name) for file, each in versions.iter_versions() for version in each]
    numbers = [re.fullmatch(r"GLIBC_(\d+)\.(\d+)(?:\.\d+)?", name) for _, name in asked]
    needed = {tag.needed for tag in tags.iter_tags("DT_NEEDED")} | {file for file, _ in asked}
    return needed, max((int(found[1]), int(found[2])) for found in numbers if found)


def use(python: str, wheel: Path) -> str:
    """Install a wheel and use it with no compiler within reach; a line about it."""
    own, version = run(python, "-c", "import sys; print(sys.prefix != sys.base_prefix, sys.version.split()[0])").split()
    if own == "False":
        home = WORK / f"python-{version}"
        run(python, "-m", "venv", home)
        python = str(home / "bin" / "python")
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    for words in ((), ("--no-deps", "--force-reinstall")):  # what it depends on; then this one of two equal versions
        run(*pip, *words, wheel)
    told = json.loads(run(python, "-I", ROOT / "tools" / "try_installed.py", cwd=WORK, PATH="/nowhere"))
    if (told["kernels"] == "off") != is_pure(wheel):
        sys.exit(f"{wheel.name}: kernels {told['kernels']}")
    return f"{wheel.name}: Python {version}, torch {told['torch']}, kernels {told['kernels']}: {told['said']}"


def main() -> None:
    """Build, check, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", help="the project's address")
    parser.add_argument("--pythons", nargs="*", default=[], help="interpreters to install the wheels with")
    given = parser.parse_args()
    if changed := run("git", "status", "--porcelain"):
        sys.exit(f"release: commit or remove these first, a release is made of a commit\n{changed}")
    packed, *wheels = build((given.home or "").rstrip("/"))
    run(sys.executable, "-m", "twine", "check", "--strict", packed, *wheels)
    print(f"{packed.name}: both wheels were made of it", *map(check, wheels), sep="\n")
    for python in given.pythons:
        for wheel in wheels:
            print(use(python, wheel), flush=True)


if __name__ == "__main__":
    main()
