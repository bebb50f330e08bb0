"""The OpenCL kernels under oclgrind, which reports accesses out of bounds, data races and invalid calls.

    apt install oclgrind && python tools/oclgrind_kernels.py

Runs itself in a process that sees the simulator alone, and fails if that reports anything.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np

from skdl.opencl import _device, _layout, _program

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from _helpers import Problem, logits, started_side_by_side

LIBRARY = "/usr/lib/oclgrind/liboclgrind-rt-icd.so"  # where Debian and Ubuntu put it
# Models side by side, by the number of outputs: those of two classes fill a vector and begin another.
N_MODELS = {1: 9, 3: 3, 70: 2}
# PyOpenCL asks each device for vendors' extras when it builds a program; oclgrind calls that an invalid value.
NOT_OURS = "Oclgrind - OpenCL runtime error detected\n\tFunction: clGetDeviceInfo\n\tError:    CL_INVALID_VALUE\n"
NOT_OURS += "\tFor argument 'param_name'\n"


def run_kernels():
    """Every kernel, with tails in rows, features, classes and models, on the tiles of CPUs and of GPUs."""
    for kind in "cpu", "gpu":
        for fused_logits in 0, 1 << 14:
            for n_logits in N_MODELS:
                for csr in [False] if fused_logits == 0 else [False, True]:
                    with (
                        patch.object(_device, "is_cpu", lambda device, kind=kind: kind == "cpu"),
                        patch.object(_layout, "FUSED_LOGITS", fused_logits),
                        patch.object(_layout, "CHUNK_BYTES", {kind: 7 * 80 * 4 if fused_logits == 0 else 1 << 22}),
                        patch.object(_program, "LARGEST_GROUP", 64),
                    ):
                        p = Problem(21, 66, n_logits, backend="opencl", storage="float32", csr=csr)
                        settings = {"momentum": 0.5, "l1": np.full(66, 0.01), "l2": np.full(66, 0.01)}
                        n_models = N_MODELS[n_logits]
                        problems, step_sizes = p.others(n_models), np.full((n_models, 2, 3), 0.1)
                        training = started_side_by_side(problems, n_models * [settings], 9, coordinates=True)
                        losses = training.run(p.block, np.stack(2 * [p.order]), step_sizes)[:, -1] / 21
                        for loss, problem in zip(losses, problems, strict=True):
                            expected = problem.run_twin([0.1] * 3, 9, coordinates=True, n_epochs=2, **settings)[0]
                            np.testing.assert_allclose(loss, expected, rtol=1e-5)
                        logits("opencl", p.X, p.W, p.b)
                        p.backend().statistics(p.block, p.order)
    print("ran every kernel")


def main():
    with tempfile.TemporaryDirectory() as drivers:
        (Path(drivers) / "oclgrind.icd").write_text(LIBRARY + "\n")
        settings = {
            "OCL_ICD_VENDORS": drivers,
            "OCLGRIND_DATA_RACES": "1",
            "OCLGRIND_CHECK_API": "1",
            "OCLGRIND_COMPUTE_UNITS": "4",  # so many that groups share slices and models
            "PYOPENCL_CTX": "",
        }
        environment = {**os.environ, **settings}
        command = [sys.executable, __file__, "kernels"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    reports = done.stderr.replace(NOT_OURS, "").strip()
    print(done.stdout + reports)
    if done.returncode or reports or "ran every kernel" not in done.stdout:
        raise SystemExit("oclgrind: failed")


if __name__ == "__main__":
    run_kernels() if sys.argv[1:] == ["kernels"] else main()
