"""The sdist and the wheel hold what they must and nothing else; importing skdl is cheap and quiet."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.py", "*.pyx", "*.h", "*.cl", "py.typed")
    for path in ROOT.glob(f"skdl/**/{pattern}")
}


def held_for_testers():
    """What an sdist holds for those who test it, or read about it."""
    folders = [path for name in ("tests", "docs", "examples") for path in ROOT.glob(f"{name}/**/*") if path.is_file()]
    about = ("LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "benchmarks/_data.py")
    held = {path.relative_to(ROOT).as_posix() for path in folders if "__pycache__" not in path.parts}
    built = "docs/api/", "docs/gallery/"  # by `make docs`
    return {name for name in held if not name.startswith(built)} | set(about)


def make_compiler(folder, refuses):
    """The environment of a build whose compiler refuses calls with these words. It does not optimise: that takes long."""
    compiler = folder / "cc"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in {refuses}) echo "refused" >&2; exit 1;; esac\nexec cc "$@" -O0\n')
    compiler.chmod(0o755)
    return {**os.environ, "CC": str(compiler), "LDSHARED": f"{compiler} -shared"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with sdist and wheel, and what the build said. CC=... is a compiler that refuses -fopenmp, as Apple's does."""
    out = tmp_path_factory.mktemp("dist")
    environment = make_compiler(tmp_path_factory.mktemp("compiler"), refuses="*-fopenmp*")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout + done.stderr


@pytest.mark.timeout(280)
def test_sdist_and_wheel(built):
    out, _ = built
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    with tarfile.open(sdist) as archive:
        held = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    held = {name for name in held if not name.startswith("skdl.egg-info")}
    assert held == SOURCES | held_for_testers() | {"setup.py", "pyproject.toml", "MANIFEST.in", "PKG-INFO", "setup.cfg"}
    assert sdist.stat().st_size < 1e6  # MNIST, for one, is in the repository alone

    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        extension = {name for name in held if re.fullmatch(r"skdl/_kernels\.[\w.-]+\.(so|pyd)", name)}
        assert len(extension) == 1
        assert b".debug_info" not in archive.read(*extension)
    installed = {name for name in SOURCES if name.endswith((".py", ".cl", "py.typed"))}
    assert {name for name in held if ".dist-info/" not in name} == installed | extension
    assert any(name.endswith("licenses/LICENSE") for name in held)


def test_import_is_cheap_and_quiet():
    program = """
        import sys, threading
        from pathlib import Path
        import numpy, scipy, sklearn, sklearn.model_selection
        tasks = Path("/proc/self/task")
        before = len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()
        modules = set(sys.modules)
        import skdl
        after = len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()
        assert after == before, "importing skdl started a thread"
        loaded = {"pyopencl", "matplotlib", "pandas", "torch", "dask", "onnx", "skl2onnx"} & (set(sys.modules) - modules)
        assert not loaded, loaded
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


@pytest.fixture
def sources(tmp_path):
    """A copy of what a build needs."""
    for name in ("skdl", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "_kernels.c", "__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    return tmp_path


BUILD = "import runpy, sys; sys.argv = ['setup.py', 'build_ext', '--inplace']; runpy.run_path('setup.py', run_name='__main__')"


def test_no_compiler_is_one_sentence(sources):
    environment = make_compiler(sources, refuses="*")
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=sources, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert re.search(
        r"error: skdl needs a C compiler: '.*cc' could not build an empty program.*apt install gcc", done.stderr
    )
    assert "Traceback" not in done.stderr


def test_no_headers_is_one_sentence(sources):
    hide = "import sysconfig; sysconfig.get_path = lambda name, *a, **k: '/nowhere'; "
    done = subprocess.run([sys.executable, "-c", hide + BUILD], cwd=sources, capture_output=True, text=True)
    assert done.returncode != 0
    assert re.search(
        r"error: skdl needs Python's C headers: /nowhere/Python.h does not exist.*python3-dev", done.stderr
    )
    assert "Traceback" not in done.stderr


def test_builds_and_runs_without_openmp(built, tmp_path):
    """Fits then run on one thread and give the same bits."""
    out, said = built
    assert "OpenMP was not found" in said
    [wheel] = out.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    program = """
        import numpy as np, skdl
        from sklearn.datasets import load_digits
        assert skdl.__file__.startswith(PATH)
        X, y = load_digits(return_X_y=True)
        model = skdl.SoftmaxRegressionClassifier(max_iter=3, random_state=0, n_jobs=4).fit(X, y)
        skdl.show_versions()
        print(model.coef_.sum().hex())
    """.replace("PATH", repr(str(installed)))
    outputs = []
    # without fused products, since only an optimised build has them
    environment = {**os.environ, "SKDL_INSTRUCTION_SET": "baseline"}
    for folder, text in ((installed, program), (tmp_path, program.replace("assert skdl.__file__", "pass #"))):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(text)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.splitlines())
    assert any(line.startswith("OpenMP") and "no: built without it" in line for line in outputs[0])
    assert outputs[0][-1] == outputs[1][-1]
