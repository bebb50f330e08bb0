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
    for pattern in ("*.py", "*.pyx", "*.h")
    for path in ROOT.glob(f"skdl/**/{pattern}")
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run([sys.executable, "-m", "build", "-q", "--outdir", out, ROOT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.timeout(280)
def test_sdist_and_wheel(built):
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    with tarfile.open(sdist) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    held = {name for name in held if not name.startswith("skdl.egg-info") and name != "skdl"}
    about = {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "setup.py",
        "pyproject.toml",
        "MANIFEST.in",
        "PKG-INFO",
        "setup.cfg",
    }
    assert held == SOURCES | about

    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    extension = {name for name in held if re.fullmatch(r"skdl/_kernels\.[\w.-]+\.(so|pyd)", name)}
    assert len(extension) == 1
    modules = {name for name in SOURCES if name.endswith(".py")}
    assert {name for name in held if ".dist-info/" not in name} == modules | extension
    assert any(name.endswith("licenses/LICENSE") for name in held)


def test_import_is_cheap_and_quiet():
    program = """
        import sys, threading
        from pathlib import Path
        import numpy, scipy, sklearn, sklearn.model_selection, sklearn.callback
        tasks = Path("/proc/self/task")
        before = len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()
        modules = set(sys.modules)
        import skdl
        after = len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()
        assert after == before, "importing skdl started a thread"
        loaded = {"pyopencl", "matplotlib", "pandas", "torch"} & (set(sys.modules) - modules)
        assert not loaded, loaded
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_builds_and_runs_without_openmp(tmp_path):
    """CC=... is a compiler that refuses -fopenmp, as Apple's does; fits then run on one thread and give the same bits."""
    for name in ("skdl", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "_kernels.c", "__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*) echo "no OpenMP" >&2; exit 1;; esac\nexec cc "$@"\n')
    compiler.chmod(0o755)
    environment = {**os.environ, "CC": str(compiler), "LDSHARED": f"{compiler} -shared"}
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "OpenMP was not found" in done.stdout + done.stderr
    program = """
        import numpy as np, skdl
        from sklearn.datasets import load_digits
        assert skdl.__file__.startswith(PATH)
        X, y = load_digits(return_X_y=True)
        model = skdl.SoftmaxRegressionClassifier(max_iter=3, random_state=0, n_jobs=4).fit(X, y)
        skdl.show_versions()
        print(model.coef_.sum().hex())
    """.replace("PATH", repr(str(tmp_path)))
    outputs = []
    for folder, text in ((tmp_path, program), (tmp_path.parent, program.replace("assert skdl.__file__", "pass #"))):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(text)], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.splitlines())
    assert any(line.startswith("OpenMP") and "no: built without it" in line for line in outputs[0])
    assert outputs[0][-1] == outputs[1][-1]
