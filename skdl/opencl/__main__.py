"""List the OpenCL devices of this machine and try a small fit on each, or, with its indices, on one.

Each is tried in a process of its own: a broken driver may end the process that uses it.
"""

import subprocess
import sys
from time import perf_counter

import numpy as np

from skdl import SoftmaxRegressionClassifier

# 16 MB of bytes in 10 classes: enough that the time of an epoch says something.
N_ROWS, N_FEATURES = 20_000, 784


def timed_fit(X, y, **params):
    """A small fit: its predictions, and its time in seconds."""
    model = SoftmaxRegressionClassifier(max_iter=5, tol=1, random_state=0, **params)
    start = perf_counter()
    model.fit(X, y)
    return model.predict(X), perf_counter() - start


def trial(device):
    """Whether a small fit on a device works, and how fast or why not, in a line."""
    X = np.random.default_rng(0).integers(0, 256, (N_ROWS, N_FEATURES), dtype=np.uint8)
    y = X[:, :10].argmax(axis=1)
    expected, on_cpu = timed_fit(X, y)
    try:
        _, first = timed_fit(X, y, backend="opencl", device=device)
        predicted, seconds = timed_fit(X, y, backend="opencl", device=device)
    except Exception as error:  # whatever a broken driver makes of it
        return f"does not work: {' '.join(str(error).split())}"
    if (predicted == expected).mean() < 0.99:
        return "does not work: it trains another model than backend='openmp'"
    return (
        f"works: {seconds:.3f} s for 5 epochs of {N_ROWS} x {N_FEATURES} bytes, the first time {first:.3f} s; "
        f"backend='openmp': {on_cpu:.3f} s"
    )


def main(arguments):
    try:
        from skdl.opencl._device import all_devices
    except ImportError as error:
        sys.exit(str(error))
    if arguments:
        print(trial(arguments[0]))
        return
    devices = all_devices()
    if not devices:
        print("No OpenCL device. On Debian or Ubuntu: apt install pocl-opencl-icd; GPUs: the vendor's driver.")
    for indices, device in devices:
        print(f"device={indices!r}: {device.name.strip()}, {device.platform.name.strip()} ({device.version.strip()})")
        done = subprocess.run([sys.executable, "-m", "skdl.opencl", indices], capture_output=True, text=True)
        lines = (done.stdout + done.stderr).strip().splitlines()
        if done.returncode:
            why = next((line for line in lines if "error" in line.lower()), f"exit status {done.returncode}")
            print(f"    does not work: its driver ended the process: {why}")
        else:
            print(f"    {done.stdout.strip().splitlines()[-1]}")


if __name__ == "__main__":
    main(sys.argv[1:])
