"""mypy, strict, on a program that uses skdl well and on one that uses it badly."""

import os
import re
import subprocess
import sys
from pathlib import Path

import skdl

TESTS = Path(__file__).parent
PROGRAM, MISUSES = TESTS / "typed_program.py", TESTS / "typed_misuses.py"


def test_mypy(tmp_path):
    package = Path(skdl.__file__).parent
    assert (package / "py.typed").exists()
    # Faults of skdl's own are no concern of its users, for whom it lies where no faults are reported.
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--config-file=",
        "--cache-dir",
        tmp_path,
    ]
    environment = {**os.environ, "MYPYPATH": str(package.parent)}
    if package.parent.name == "site-packages":  # where mypy looks unasked, and refuses to be sent
        del environment["MYPYPATH"]
    done = subprocess.run(
        [*command, PROGRAM, MISUSES],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    found = re.findall(r"(\w+\.py):(\d+): error:", done.stdout)
    wrong = [number for number, line in enumerate(MISUSES.read_text().splitlines(), 1) if line.endswith("# wrong")]
    assert sorted({(name, int(number)) for name, number in found}) == [(MISUSES.name, number) for number in wrong], (
        done.stdout + done.stderr
    )


def test_the_program_runs():
    environment = {**os.environ, "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, "-W", "ignore", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert skdl.__version__ in done.stdout
