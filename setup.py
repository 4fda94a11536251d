"""Compiles the native kernels. Without a C compiler smalti is installed all the same and uses plain PyTorch.

SMALTI_WHEEL says what a wheel is for: a platform, such as manylinux_2_17_x86_64, of one with the kernels, or `any`, of
one without them. `make release` makes both.
"""

import os
import zlib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

FOLDER = "smalti/ops/kernels/"
SOURCES = sorted(Path(FOLDER).glob("*.[ch]"))
CHECKSUM = zlib.crc32(b"".join(path.read_bytes() for path in SOURCES))  # compared when the library is loaded
WHEEL = os.environ.get("SMALTI_WHEEL", "")
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]  # for `make sanitize`
KERNELS = Extension(
    "smalti.ops.kernels.native",
    sources=[f"{FOLDER}kernels_{variant}.c" for variant in ("avx512", "avx2", "portable")],
    depends=[str(path) for path in SOURCES],
    define_macros=[("SMALTI_SOURCES", str(CHECKSUM))],
    extra_compile_args=["-O3", "-std=gnu11", "-fno-math-errno"],
    optional=True,
)


class BuildKernels(build_ext):
    """A plain shared library, with OpenMP where the compiler has it."""

    def get_ext_filename(self, fullname: str) -> str:
        """Without Python's tag: it has no Python in it."""
        return fullname.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        """With OpenMP, else without, else not at all."""
        plain = list(ext.extra_compile_args)
        for openmp in (["-fopenmp"], ["-Wno-unknown-pragmas"]):
            checks = SANITIZE if os.environ.get("SMALTI_SANITIZE") else []
            linked = [] if WHEEL else openmp  # that of a wheel finds OpenMP in the process: PyTorch brings it along
            ext.extra_compile_args, ext.extra_link_args = plain + openmp + checks, linked + checks
            try:
                super().build_extension(ext)
                return
            except (CompileError, LinkError) as error:
                problem = error
        if WHEEL:
            raise problem
        print(f"smalti: no native kernels, plain PyTorch instead ({problem})")


class Wheel(bdist_wheel):
    """One for every Python 3: the kernels are a library of C alone."""

    def get_tag(self) -> tuple[str, str, str]:
        """`py3-none-PLATFORM`."""
        return "py3", "none", WHEEL if WHEEL else super().get_tag()[2]


setup(
    ext_modules=[] if WHEEL == "any" else [KERNELS],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": Wheel},
)
