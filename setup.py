"""Compiles the native kernels. Without a C compiler smalti is installed all the same and uses plain PyTorch."""

import os
import zlib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

FOLDER = "smalti/ops/kernels/"
SOURCES = sorted(Path(FOLDER).glob("*.[ch]"))
CHECKSUM = zlib.crc32(b"".join(path.read_bytes() for path in SOURCES))  # compared when the library is loaded
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
            ext.extra_compile_args, ext.extra_link_args = plain + openmp + checks, openmp + checks
            try:
                super().build_extension(ext)
                return
            except (CompileError, LinkError) as error:
                problem = error
        print(f"smalti: no native kernels, plain PyTorch instead ({problem})")


setup(ext_modules=[KERNELS], cmdclass={"build_ext": BuildKernels})
