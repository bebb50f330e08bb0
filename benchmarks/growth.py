"""Do time and memory grow linearly with rows, classes and features?

    python benchmarks/growth.py [--max-rows 6000000] [--quick]

Fits of two epochs on bytes (MNIST's pixels over and over, as many rows or features as are asked for), all else default,
validation, labels and statistics included; each in a process of its own. Memory is what a fit allocates beside X, at its
peak, as NumPy reports it to tracemalloc. Prints a table with the exponent of each step, writes growth.csv and growth.png.
6,000,000 rows of 784 bytes take 4.7 GB; where less than that and a reserve is free, the largest sizes are left out.
"""

import argparse
import multiprocessing
import os
import sys
import tracemalloc
import warnings
from pathlib import Path
from statistics import median

import numpy as np
from _data import images
from _machine import header
from _timing import markdown, seconds, write_csv
from sklearn.exceptions import ConvergenceWarning

from skdl import SoftmaxRegressionClassifier

# What grows, and what stays: n rows, d features, k classes.
SWEEPS = {
    "rows": ("n", [1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 6_000_000], dict(d=784, k=10)),
    "classes": ("k", [2, 5, 10, 20, 50, 100, 200, 500, 1000], dict(n=20_000, d=784)),
    "features": ("d", [20, 50, 100, 300, 1000, 3000, 10_000, 30_000, 100_000], dict(n=5000, k=10)),
}


def data(n, d, k):
    """X (n, d) bytes and random labels, made without a second copy of X."""
    pixels = images("mnist", "raw")[0].ravel()
    X = np.empty(n * d, dtype=np.uint8)
    for start in range(0, len(X), len(pixels)):
        part = X[start : start + len(pixels)]
        part[:] = pixels[: len(part)]
    y = np.random.default_rng(0).integers(0, k, n)
    y[:k] = np.arange(k)
    return X.reshape(n, d), y


def measure(shape):
    """Times of fits in seconds, and the bytes that a fit has beside X at its peak."""
    warnings.simplefilter("ignore", ConvergenceWarning)  # two epochs are asked for on purpose
    X, y = data(**shape)

    def fit():
        SoftmaxRegressionClassifier(max_iter=2, random_state=0).fit(X, y)

    first = seconds(fit)  # pays for threads and pages
    times = [seconds(fit) for _ in range(1 if first > 5 else 3 if first > 0.5 else 9)]
    tracemalloc.start()
    fit()
    return times, tracemalloc.get_traced_memory()[1]


def draw(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ink, paper, accent = "#22303c", "#fbfaf7", "#c8553d"
    plt.rcParams.update(
        {"text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink, "font.size": 9}
    )
    figure, grid = plt.subplots(2, 3, figsize=(11, 6.4), facecolor=paper, sharex="col", sharey="row",
                                layout="constrained")  # fmt: skip
    for column, (sweep, (_, _, fixed)) in zip(grid.T, SWEEPS.items(), strict=True):
        mine = [r for r in rows if r["sweep"] == sweep]
        x = np.array([r["size"] for r in mine])
        for axes, what in zip(column, ("seconds", "MB beside X"), strict=True):
            values = np.array([r[what] for r in mine])
            axes.plot(x, values, "o-", color=accent, markersize=5, linewidth=1.6)
            axes.plot(x, values[-1] * x / x[-1], ":", color=ink, linewidth=1, label="linear")
            axes.set(xscale="log", yscale="log")
            axes.set_facecolor(paper)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25, linewidth=0.6)
            axes.minorticks_off()
        stays = ", ".join(f"{name} = {value:,}" for name, value in fixed.items())
        column[0].set_title(f"{sweep}  ({stays})", loc="left", fontsize=10)
        column[1].set_xlabel(f"number of {sweep}")
    lowest = min(r["seconds"] for r in rows), min(r["MB beside X"] for r in rows)
    for axes, label, bottom in zip(grid[:, 0], ("seconds of a fit", "MB beside X"), lowest, strict=True):
        axes.set_ylabel(label)
        axes.set_ylim(bottom=bottom / 2)  # the dotted lines may leave
    grid[0, 0].legend(frameon=False, fontsize=8)
    title = "A fit of two epochs: time and memory against the size of the data (dotted: linear)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    figure.savefig(path, dpi=110, facecolor=paper)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-rows", type=int, default=6_000_000)
    parser.add_argument("--quick", action="store_true", help="few and small sizes, to see that the script works")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the table and the picture")
    args = parser.parse_args()
    print(header(), end="\n\n", flush=True)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    rows = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for sweep, (letter, sizes, fixed) in SWEEPS.items():
            table = []
            for size in sizes[:4:2] if args.quick else sizes:
                shape = {**fixed, letter: size}
                if sweep == "rows" and size > args.max_rows:
                    continue
                if 1.2 * shape["n"] * (shape["d"] + 100) > available:
                    print(f"{size:,} {sweep} are left out: {available / 2**30:.1f} GB are free")
                    continue
                times, memory = pool.apply(measure, (shape,))
                r = {"sweep": sweep, "size": size, **shape, "seconds": median(times), "runs": len(times)}
                rows.append(r | {"MB beside X": memory / 1e6})
                print(f"   {size:,} {sweep}: {median(times):.3g} s", file=sys.stderr, flush=True)
                table.append({
                    sweep: f"{size:,}", "ms": f"{1e3 * median(times):,.1f}", "runs": str(len(times)),
                    "ns a value of X": f"{1e9 * median(times) / shape['n'] / shape['d']:.2f}",
                    "MB beside X": f"{memory / 1e6:,.1f}",
                    "exponent of time": "", "of memory": "",
                })  # fmt: skip
                if len(table) > 1:
                    before, growth = rows[-2], np.log(size / rows[-2]["size"])
                    table[-1]["exponent of time"] = f"{np.log(rows[-1]['seconds'] / before['seconds']) / growth:.2f}"
                    exponent = np.log(rows[-1]["MB beside X"] / before["MB beside X"]) / growth
                    table[-1]["of memory"] = f"{exponent:.2f}"
            print(f"{sweep}: " + ", ".join(f"{name} = {value:,}" for name, value in fixed.items()))
            markdown(table)
    write_csv(args.out / "growth.csv", rows)
    draw(rows, args.out / "growth.png")


if __name__ == "__main__":
    main()
