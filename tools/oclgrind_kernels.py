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
from _helpers import Problem, logits

LIBRARY = "/usr/lib/oclgrind/liboclgrind-rt-icd.so"  # where Debian and Ubuntu put it
# PyOpenCL asks each device for vendors' extras when it builds a program; oclgrind calls that an invalid value.
NOT_OURS = "Oclgrind - OpenCL runtime error detected\n\tFunction: clGetDeviceInfo\n\tError:    CL_INVALID_VALUE\n"
NOT_OURS += "\tFor argument 'param_name'\n"


def run_kernels():
    """Every kernel, with tails in rows, features and classes, on the tiles of CPUs and of GPUs."""
    for kind in "cpu", "gpu":
        for fused_logits in 0, 1 << 14:
            for n_logits in 1, 3, 70:
                for csr in [False] if fused_logits == 0 else [False, True]:
                    with (
                        patch.object(_device, "is_cpu", lambda device, kind=kind: kind == "cpu"),
                        patch.object(_layout, "FUSED_LOGITS", fused_logits),
                        patch.object(_layout, "CHUNK_BYTES", {kind: 7 * 80 * 4 if fused_logits == 0 else 1 << 22}),
                        patch.object(_program, "LARGEST_GROUP", 64),
                    ):
                        p = Problem(21, 66, n_logits, backend="opencl", storage="float32", csr=csr)
                        penalty = {"l1": np.full(66, 0.01), "l2": np.full(66, 0.01)}
                        settings = {"momentum": 0.5, "coordinates": True, "n_epochs": 2, **penalty}
                        loss = p.run([0.1, 0.1, 0.1], 9, **settings)[0]
                        np.testing.assert_allclose(loss, p.run_twin([0.1, 0.1, 0.1], 9, **settings)[0], rtol=1e-5)
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
