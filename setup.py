"""Builds the one extension; everything else is in pyproject.toml."""

import os
import shutil
import sysconfig
import tempfile
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError

OPENMP_FLAGS = [["-fopenmp"], ["-Xpreprocessor", "-fopenmp", "-lomp"]]
BOUNDS_CHECKS = os.environ.get("SKDL_BOUNDS_CHECKS") == "1"  # for debugging: `make bounds`, docs/reliability.md


class BuildKernels(build_ext):
    """Checks the compiler, finds the OpenMP flags that work, and then builds."""

    def build_extensions(self):
        if not self.links("int main(void) { return 0; }", []):
            raise PlatformError(
                f"skdl needs a C compiler: {self.compiler.compiler_so[0]!r} could not build an empty program. "
                "On Debian or Ubuntu: apt install gcc libc6-dev; on macOS: xcode-select --install."
            )
        header = os.path.join(sysconfig.get_path("include"), "Python.h")
        if not os.path.exists(header):
            raise PlatformError(
                f"skdl needs Python's C headers: {header} does not exist. On Debian or Ubuntu: apt install python3-dev."
            )
        program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }"
        flags = next((flags for flags in OPENMP_FLAGS if self.links(program, flags)), None)
        if flags is None:
            self.warn("OpenMP was not found (omp.h, libgomp or libomp): skdl will run on one thread.")
        for extension in self.extensions:
            extension.extra_compile_args += [flag for flag in flags or [] if not flag.startswith("-l")]
            extension.extra_link_args += [flag for flag in flags or [] if flag != "-Xpreprocessor"]
        super().build_extensions()

    def links(self, program, flags):
        """Whether the compiler makes a program of this source with these flags."""
        folder = tempfile.mkdtemp()
        try:
            source = os.path.join(folder, "probe.c")
            with open(source, "w") as file:
                file.write(program)
            objects = self.compiler.compile(
                [source], folder, extra_postargs=[f for f in flags if not f.startswith("-l")]
            )
            self.compiler.link_executable(objects, os.path.join(folder, "probe"), extra_postargs=flags)
        except (CompileError, LinkError):
            return False
        finally:
            shutil.rmtree(folder)
        return True


# GCC or Clang: the vector types are theirs, so MSVC's own cl is out. On Windows clang-cl or MinGW's Clang is the way; GCC for
# Windows misaligns 32-byte vectors on the stack (GCC bug 54412).
kernels = Extension(
    "skdl._kernels",
    ["skdl/_kernels.pyx"],
    depends=glob("skdl/*.h"),
    # -g0: Python's own flags have -g, which makes five times as large a library. -Wno-psabi: vectors never cross a function
    # that is not inlined.
    extra_compile_args=["-g0", "-O3", "-Wno-psabi", "-Wno-unknown-pragmas"],
)

setup(
    ext_modules=cythonize(
        [kernels],
        language_level=3,
        compiler_directives={
            "boundscheck": BOUNDS_CHECKS,
            "wraparound": False,
            "initializedcheck": BOUNDS_CHECKS,
            "cdivision": True,
            "freethreading_compatible": True,
        },
    ),
    cmdclass={"build_ext": BuildKernels},
)
