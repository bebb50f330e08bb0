"""Epochs of the OpenCL backend on every device that works, beside the OpenMP backend and PyTorch, and their floors.

    python benchmarks/opencl.py [--rows 50000] [--repeats 5] [--only mnist]

The time of an epoch, X on the device, the median of `--repeats` in turn. The floor of an epoch on a device is the largest
of three, each from what a kernel of that kind reaches there in this run: its launches, the bytes of X, its floating point
operations. PyTorch runs on a CUDA GPU where there is one: a user's loop (eager), and one step captured as a CUDA graph.
`--rows` is the size of the linear probe (768 features of float16, 1000 classes): 1000000 on a GPU.
"""

import argparse
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import pyopencl as cl
from scipy import sparse

sys.path.insert(0, str(Path(__file__).parent))
import _data
from _machine import header

from skdl._backends import ceil_div, get_backend
from skdl._data import InMemory
from skdl.opencl._device import all_devices, context_of, defect

PROBES = """
__kernel void nothing(__global float *out) {}
__kernel void read(__global const float4 *x, __global float *out, const int n, const int side_by_side)
{
    const int item = get_global_id(0), n_items = get_global_size(0), share = n / n_items;
    float4 sum = 0;
    if (side_by_side)
        for (int i = item; i < n; i += n_items) sum += x[i];
    else
        for (int i = item * share; i < (item + 1) * share; i++) sum += x[i];
    out[get_global_id(0)] = sum.x + sum.y + sum.z + sum.w;
}
__kernel void multiply(__global float *out)
{
    VECTOR a[8];
    const VECTOR x = get_global_id(0) * 1e-9f, y = 0.999f;
    for (int k = 0; k < 8; k++) a[k] = k;
    for (int i = 0; i < 4096; i++)
        for (int k = 0; k < 8; k++) a[k] = fma(a[k], y, x);
    VECTOR sum = 0;
    for (int k = 0; k < 8; k++) sum += a[k];
    out[get_global_id(0)] = ((float *)&sum)[0];
}
"""


def limits(device):
    """Seconds of a launch, bytes a second and float32 operations a second that simple kernels reach."""
    queue = cl.CommandQueue(context_of(device))
    on_cpu = device.type & cl.device_type.CPU
    lanes = max(device.native_vector_width_float, 4) if on_cpu else 1
    program = cl.Program(queue.context, PROBES).build([f"-DVECTOR=float{lanes if lanes > 1 else ''}"])
    n_items = device.max_compute_units * (16 if on_cpu else 4096)
    n = min(1 << 26, device.max_mem_alloc_size // 32)
    x = cl.Buffer(queue.context, cl.mem_flags.READ_WRITE, 16 * n)
    out = cl.Buffer(queue.context, cl.mem_flags.READ_WRITE, 4 * n_items)
    cl.enqueue_fill_buffer(queue, x, np.float32(1), 0, 16 * n)

    def best(name, shape, *arguments, times=1):
        kernel = cl.Kernel(program, name)
        kernel.set_args(*arguments)
        seconds = []
        for _ in range(5):
            queue.finish()
            start = perf_counter()
            for _ in range(times):
                cl.enqueue_nd_range_kernel(queue, kernel, shape, None)
            queue.finish()
            seconds.append((perf_counter() - start) / times)
        return min(seconds)

    launch = best("nothing", (1,), out, times=500)
    bandwidth = 16 * n / best("read", (n_items,), x, out, np.int32(n), np.int32(not on_cpu))
    return launch, bandwidth, 2 * 8 * 4096 * lanes * n_items / best("multiply", (n_items,), out)


def cases(n_probe, only):
    """Name, X, y, number of classes, batch size."""
    for name in _data.installed_images():
        X, _, y, _ = _data.images(name, "raw")
        for batch_size in 100, 1000, 10_000:
            yield f"{name} uint8, batch {batch_size}", X, y, 10, batch_size
            yield f"{name} float32, batch {batch_size}", X / np.float32(255), y, 10, batch_size
    rng = np.random.default_rng(0)
    if only in "probe":
        X = np.empty((n_probe, 768), np.float16)
        for start in range(0, n_probe, 10_000):  # block by block: less memory at once
            X[start : start + 10_000] = rng.standard_normal(X[start : start + 10_000].shape, np.float32)
        yield f"probe {n_probe} x 768 float16, 1000 classes, batch 1024", X, np.arange(n_probe) % 1000, 1000, 1024
    if only in "csr":
        columns = np.minimum(rng.zipf(1.2, size=(60_000, 14)) - 1, 79_999)
        X = sparse.csr_array(
            (np.ones(columns.size, np.float32), columns.ravel(), np.arange(60_001) * 14), shape=(60_000, 80_000)
        )
        X.sum_duplicates()
        yield "csr 60000 x 80000, 14 a row, 58 classes, batch 128", X, np.arange(60_000) % 58, 58, 128


class Ours:
    """A backend of skdl."""

    def __init__(self, name, X, y, n_outputs, batch_size, device=None):
        source = InMemory(X, y)
        backend, self.block = get_backend(name)(source, n_outputs, device=device), source.block
        self.training = backend.start(None, None, mean=None, scale=None, l1=None, l2=None, momentum=np.zeros(1),
                                      fit_intercept=True, batch_size=batch_size)  # fmt: skip
        self.step_sizes = np.full((1, 1, ceil_div(X.shape[0], batch_size)), 1e-6)

    def epoch(self, order):
        self.training.run(self.block, order[np.newaxis], self.step_sizes)


class Torch:
    """nn.Linear, CrossEntropyLoss and SGD on a CUDA GPU, X there as well."""

    def __init__(self, torch, X, y, n_classes, batch_size, graph):
        self.torch, self.batch_size, self.graph = torch, batch_size, None
        self.X, self.y = torch.as_tensor(X, device="cuda"), torch.as_tensor(y.astype(np.int64), device="cuda")
        self.layer = torch.nn.Linear(X.shape[1], n_classes, device="cuda")
        self.loss = torch.nn.CrossEntropyLoss()
        self.optimiser = torch.optim.SGD(self.layer.parameters(), lr=1e-6)
        self.rows = torch.zeros(batch_size, dtype=torch.int64, device="cuda")
        if graph:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self.step(self.rows)
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.step(self.rows)

    def step(self, rows):
        self.optimiser.zero_grad(set_to_none=True)
        self.loss(self.layer(self.X[rows].float()), self.y[rows]).backward()
        self.optimiser.step()

    def epoch(self, order):
        for rows in self.torch.as_tensor(order, device="cuda").split(self.batch_size):
            if self.graph and len(rows) == self.batch_size:
                self.rows.copy_(rows)
                self.graph.replay()
            else:
                self.step(rows)
        self.torch.cuda.synchronize()


def cuda_torch():
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def median_seconds(contenders, n_rows, n_repeats):
    """Median time of an epoch of each, which take turns; the first round warms up."""
    rng, seconds = np.random.default_rng(0), {name: [] for name in contenders}
    for repeat in range(n_repeats + 1):
        order = rng.permutation(n_rows)
        for name, contender in contenders.items():
            start = perf_counter()
            contender.epoch(order)
            if repeat:
                seconds[name].append(perf_counter() - start)
    return {name: np.median(each) for name, each in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name begins so: mnist, fashion, probe or csr")
    options = parser.parse_args()
    print(header())
    devices = {indices: device for indices, device in all_devices() if not defect(device)}
    reached = {}
    for indices, device in devices.items():
        launch, bandwidth, flops = reached[indices] = limits(device)
        print(f"{indices}: {device.name.strip()}, {device.version.strip()}, driver {device.driver_version.strip()}: "
              f"launch {launch * 1e6:.1f} us, read {bandwidth / 1e9:.0f} GB/s, {flops / 1e9:.0f} GFLOP/s")  # fmt: skip
    torch = cuda_torch()
    print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name()}" if torch else "no PyTorch on a CUDA GPU")
    for name, X, y, n_classes, batch_size in cases(options.rows, options.only):
        if not name.startswith(options.only):
            continue
        contenders = {"openmp": Ours("openmp", X, y, n_classes, batch_size)}
        contenders |= {f"opencl {i}": Ours("opencl", X, y, n_classes, batch_size, i) for i in devices}
        if torch and not sparse.issparse(X):
            contenders |= {
                f"torch {w}": Torch(torch, X, y, n_classes, batch_size, w == "graph") for w in ("eager", "graph")
            }
        seconds = median_seconds(contenders, X.shape[0], options.repeats)
        print(f"\n{name}: " + ", ".join(f"{who} {1e3 * each:.1f} ms" for who, each in seconds.items()))
        n_values = X.nnz if sparse.issparse(X) else X.size
        n_bytes = (8 * X.nnz) if sparse.issparse(X) else X.nbytes
        for indices, (launch, bandwidth, flops) in reached.items():
            floors = ceil_div(X.shape[0], batch_size) * launch, n_bytes / bandwidth, 4 * n_values * n_classes / flops
            texts = [
                f"{what} {1e3 * floor:.1f}"
                for what, floor in zip(("launches", "bytes", "operations"), floors, strict=True)
            ]
            print(f"    floor on {indices}: {', '.join(texts)} ms; reached {seconds[f'opencl {indices}'] / max(floors):.1f} x, "
                  f"{seconds[f'opencl {indices}'] / seconds['openmp']:.1f} x openmp")  # fmt: skip


if __name__ == "__main__":
    main()
