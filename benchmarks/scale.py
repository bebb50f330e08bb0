"""Data larger than memory: files of rows that skdl.Blocks reads, under a limit of memory.

    python benchmarks/scale.py [--only NAME ...] [--rows 10000000] [--folder .cache] [--memory 4]

sorted      rows made of MNIST, bytes, sorted by class: errors after one and three epochs, and what an epoch takes; with
            alpha="auto" and with the one that it finds on the images themselves
random      the same in random order, one epoch
hashed      CSR in three files, 39 hashed features a row of 2^20, two classes: an epoch for a tenth of the rows and for all of
            them, and the log-loss of a million rows beside that of the fit in memory

A row of MNIST is an image of the training set with noise of -16 to 15 on the pixels that are not 0; sorted rows have any image
of their class. Errors are those of the test set. --rows 40000000 are 31 GB. The fit runs in a process of its own whose memory,
page cache included, is limited by Linux's control groups (which takes root) to --memory GB. Beside the time of an epoch stand
the two that it cannot be below, measured in the same run: rows at the rate of an epoch in memory, and bytes at the rate of
direct reads of 1 MiB at random places. Resident memory is the peak since the fit began. Writes scale.csv.
"""

import argparse
import mmap
import multiprocessing
import os
import shutil
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from _data import images, log_loss
from _machine import header
from _timing import Clock, markdown, read_csv, write_csv
from scipy import sparse

from skdl import Blocks, SoftmaxRegressionClassifier
from skdl._blocks import _CSR

CHUNK = 100_000
# What alpha="auto" finds on the 60,000 images. Of many noisy copies of them it finds less: it takes each for another image.
ALPHA = 6e-4
HASHED_COLUMNS, HASHED_VALUES = 2**20, 39


# ---- the files


def make_images(folder, n_rows, in_order):
    """X.npy and y.npy."""
    X, _, y, _ = images("mnist", "raw")
    rng = np.random.default_rng(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (n_rows, 784)}
    ends, of_class = np.cumsum(np.bincount(y)), np.argsort(y, kind="stable")
    labels = np.empty(n_rows, np.uint8)
    with open(folder / "X.npy", "wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for start in range(0, n_rows, CHUNK):
            at = np.arange(start, min(start + CHUNK, n_rows))
            rows = rng.integers(0, len(y), len(at))
            if in_order:  # by class, and any image of it
                c = np.searchsorted(ends, at * len(y) // n_rows, side="right")
                first = np.r_[0, ends][c]
                rows = of_class[first + (rng.random(len(at)) * (ends[c] - first)).astype(int)]
            pixels = X[rows]
            noise = np.frombuffer(rng.bytes(pixels.size), np.uint8).reshape(pixels.shape) & 31
            (np.clip(pixels, 16, 240, out=pixels, where=pixels > 0) + (noise - 16) * (pixels > 0)).tofile(file)
            labels[at] = y[rows]
    np.save(folder / "y.npy", labels)


def make_hashed(folder, n_rows):
    """data.npy, indices.npy, indptr.npy and y.npy: 13 numbers and 26 categories, as Criteo's logs of clicks have them."""
    rng = np.random.default_rng(0)
    effect = np.random.default_rng(1).normal(size=HASHED_COLUMNS).astype(np.float32) * 0.25
    files = {name: open(folder / f"{name}.npy", "wb") for name in ("data", "indices")}  # noqa: SIM115
    for name, dtype in (("data", "<f4"), ("indices", "<i4")):
        shape = (n_rows * HASHED_VALUES,)
        np.lib.format.write_array_header_2_0(files[name], {"descr": dtype, "fortran_order": False, "shape": shape})
    labels = np.empty(n_rows, np.uint8)
    for start in range(0, n_rows, CHUNK):
        n = min(CHUNK, n_rows - start)
        numbers = np.arange(13) * np.ones((n, 1), int)
        levels = (rng.pareto(0.8, (n, 26)) * 3).astype(np.int64) + 1_000_003 * np.arange(26)
        indices = np.sort(np.hstack([numbers, 13 + (levels * 2_654_435_761 % 2**32) % (HASHED_COLUMNS - 13)]), axis=1)
        data = np.ones(indices.shape, np.float32)
        data[:, :13] = np.log1p(rng.pareto(1.5, (n, 13)))
        score = (data * effect[indices]).sum(axis=1) - 1.0
        labels[start : start + n] = rng.random(n) < 1 / (1 + np.exp(-score))
        data.tofile(files["data"])
        indices.astype("<i4").tofile(files["indices"])
    for file in files.values():
        file.close()
    np.save(folder / "indptr.npy", np.arange(n_rows + 1, dtype=np.int64) * HASHED_VALUES)
    np.save(folder / "y.npy", labels)


def hashed(folder, n_rows=None):
    """X, which gives rows by a slice, and y."""
    data, indices, indptr, y = (
        np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("data", "indices", "indptr", "y")
    )
    n_rows = n_rows or len(y)
    return _CSR(data, indices, indptr[: n_rows + 1], HASHED_COLUMNS), y[:n_rows]


# ---- what an epoch cannot be below


def direct_reads(path, n_blocks=1000, block=2**20):
    """Bytes a second of aligned blocks at random places, past the page cache."""
    file, buffer = os.open(path, os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, block)
    places = np.random.default_rng(0).permutation(os.path.getsize(path) // block)[:n_blocks]
    begin = time.perf_counter()
    for place in places:
        os.preadv(file, [buffer], int(place) * block)
    seconds = time.perf_counter() - begin
    os.close(file)
    return len(places) * block / seconds


def in_memory_rate(X, y, n_epochs=6):
    """Rows a second of the epochs of a fit of arrays."""
    clock = Clock()
    SoftmaxRegressionClassifier(max_iter=n_epochs, alpha=1e-4, tol=0, random_state=0).set_callbacks(clock).fit(X, y)
    return len(y) / clock.epoch


# ---- under a limit of memory


def limited(n_bytes):
    """Put this process into a control group of so many bytes; returns whether that could be done."""
    for group, limit in (("memory/skdl-scale", "memory.limit_in_bytes"), ("skdl-scale", "memory.max")):
        folder = Path("/sys/fs/cgroup") / group
        try:
            folder.mkdir(exist_ok=True)
            (folder / limit).write_text(str(n_bytes))
            (folder / "cgroup.procs").write_text(str(os.getpid()))
            return True
        except OSError:
            continue
    return False


def resident():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**10


def fit_images(args, n_epochs, alpha, pipe):
    warnings.simplefilter("ignore")
    is_limited = limited(int(args.memory * 2**30))
    X, y = (np.load(args.folder / f"{name}.npy", mmap_mode="r") for name in "Xy")
    head = np.array(X[:200_000]), np.array(y[:200_000]) if args.random else np.arange(200_000) % 10
    rows_at_rate = len(y) / in_memory_rate(*head)
    del head
    bytes_at_rate = X.nbytes / direct_reads(args.folder / "X.npy")
    clock, begin = Clock(), time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")
    model = SoftmaxRegressionClassifier(max_iter=n_epochs, alpha=alpha, random_state=0).set_callbacks(clock)
    model.fit(Blocks.from_arrays(X, y))
    seconds, memory = time.perf_counter() - begin, resident()
    _, X_test, _, y_test = images("mnist", "raw")
    floor, order = max(rows_at_rate, bytes_at_rate), "random order" if args.random else "sorted by class"
    pipe.send(
        {
            "case": f"{order}, {len(y):,} rows, {n_epochs} epochs, alpha={alpha}", "epoch": f"{clock.epoch:.1f} s",
            "rows in memory": f"{rows_at_rate:.1f} s", "direct reads": f"{bytes_at_rate:.1f} s",
            "ratio": f"{clock.epoch / floor:.2f}", "fit": f"{seconds:.0f} s",
            "resident": f"{memory:.0f} MB of {args.memory:g} GB{'' if is_limited else ' (not limited)'}",
            "error": f"{100 * (1 - model.score(X_test, y_test)):.2f} %",
            "log-loss": f"{log_loss(model.decision_function(X_test), y_test):.4f}",
        }
    )  # fmt: skip


def fit_hashed(args, n_rows, in_memory, pipe):
    warnings.simplefilter("ignore")
    is_limited = limited(int(args.memory * 2**30))
    X, y = hashed(args.folder, n_rows)
    test = hashed(args.folder)
    X_test, y_test = test[0][slice(args.rows - 200_000, args.rows)], np.array(test[1][args.rows - 200_000 : args.rows])
    clock = Clock()
    model = SoftmaxRegressionClassifier(max_iter=1, random_state=0).set_callbacks(clock)
    if in_memory:
        X, y = X[slice(0, n_rows)], np.array(y)
    Path("/proc/self/clear_refs").write_text("5")
    begin = time.perf_counter()
    model.fit(X, y) if in_memory else model.fit(Blocks.from_arrays(X, y))
    seconds, memory = time.perf_counter() - begin, resident()
    losses = -model.predict_log_proba(sparse.csr_array(X_test))[np.arange(len(y_test)), y_test.astype(int)]
    pipe.send(
        {
            "case": f"{n_rows:,} rows, {'in memory' if in_memory else 'blocks'}", "epoch": f"{clock.epoch:.1f} s",
            "rows in memory": "", "direct reads": "", "ratio": "", "fit": f"{seconds:.0f} s",
            "resident": f"{memory:.0f} MB of {args.memory:g} GB{'' if is_limited else ' (not limited)'}",
            "error": "", "log-loss": f"{losses.mean():.4f}",
        }
    )  # fmt: skip


def apart(function, *args):
    """What a function sends that runs in a process of its own, with nothing of the files in memory."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        print("(the page cache could not be emptied)", file=sys.stderr)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=function, args=(*args, theirs))
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    print("   " + ", ".join(f"{k} {v}" for k, v in found.items() if v), file=sys.stderr, flush=True)
    return found


def sorted_rows(args):
    args.random = False
    make_images(args.folder, args.rows, in_order=True)
    return [
        apart(fit_images, args, n_epochs, alpha)
        for n_epochs, alpha in ((1, "auto"), (1, ALPHA), (3, "auto"), (3, ALPHA))
    ]


def random_rows(args):
    args.random = True
    make_images(args.folder, args.rows, in_order=False)
    return [apart(fit_images, args, 1, alpha) for alpha in ("auto", ALPHA)]


def hashed_rows(args):
    make_hashed(args.folder, args.rows)
    return [apart(fit_hashed, args, n, m) for n, m in ((args.rows, False), (10**6, False), (10**6, True))]


CASES = {"sorted": sorted_rows, "random": random_rows, "hashed": hashed_rows}

if __name__ == "__main__":
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=here / ".cache" / "scale")
    parser.add_argument("--memory", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=here)
    args = parser.parse_args()
    print(header())
    path = args.out / "scale.csv"
    rows = [r for r in read_csv(path) if r["table"] not in args.only] if path.exists() else []
    for name in args.only:
        args.folder.mkdir(parents=True)
        try:
            found = CASES[name](args)
        finally:
            shutil.rmtree(args.folder)
        markdown(found)
        rows += [{"table": name, **r} for r in found]
        write_csv(path, rows)
