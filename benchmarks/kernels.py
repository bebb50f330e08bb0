"""How far from the machine's limit are the kernels? Epochs of plain SGD against their floor, for the shapes users have.

    python benchmarks/kernels.py [--type float32 ...] [--quick]

A cell is an epoch (no momentum, no penalty, constant step) on MNIST's pixels, rearranged into rows of d features, with
random labels of k classes. Its floor is what the machine's two ceilings allow, both measured in the same run: the time to
read X once, or the time of its 4 n d k floating point operations (k = 2 has one logit and counts once), whichever is
longer. n makes a floor of about 15 ms on one thread, but is at least two minibatches and 1,000 rows. One thread and all
take turns; medians. Prints the distance to the floor on all threads and, in brackets, how many times faster they are than
one; writes kernels.csv and kernels.png.
"""

import argparse
import sys
from pathlib import Path
from statistics import median

import numpy as np
from _data import images
from _machine import Roofline, header
from _timing import PlainEpochs, alternated, markdown, seconds, write_csv

from skdl.openmp._threads import max_threads

TYPES = "float32", "float64", "uint8", "float16"
FEATURES, CLASSES, BATCHES = (20, 784, 4096), (2, 10, 100, 1000), (32, 100, 1000, 4096)
NOMINAL_PEAK, NOMINAL_BANDWIDTH = 1e11, 2e10  # of one thread; they choose n only, so that it is the same in every run
FAR = 4  # times its floor: such a cell needs a reason


def n_rows(n_features, n_classes, dtype, batch_size, floor=0.015):
    n_logits = 1 if n_classes == 2 else n_classes
    row = max(4 * n_features * n_logits / NOMINAL_PEAK, n_features * dtype.itemsize / NOMINAL_BANDWIDTH)
    return max(min(int(floor / row), 2_000_000), 2 * batch_size, 1000)


def measure(roofline, type_, quick):
    """Rows of the CSV for one type."""
    dtype, pixels = np.dtype(type_), images("mnist", "raw")[0].ravel()
    threads = list(roofline.bandwidth)
    for d in FEATURES:
        shapes = [(k, b, n_rows(d, k, dtype, b, floor=0.001 if quick else 0.015)) for k in CLASSES for b in BATCHES]
        data = np.resize(pixels, (max(n for _, _, n in shapes), d))
        if dtype.kind == "f":
            data = (data / np.float32(255)).astype(dtype)
        for k, b, n in shapes:
            if quick and d * k * n > 1e9:
                continue
            X, y = data[:n], np.random.RandomState(0).randint(0, k, n)
            epochs = {t: PlainEpochs(X, y, k, b, t) for t in threads}

            def timed(e):
                e.shuffle()
                return seconds(e.run)

            contenders = {t: lambda e=e: timed(e) for t, e in epochs.items()}
            times = alternated(contenders, 2 if quick else 7, budget=0.5, rest=0)
            took = {t: median(values) for t, values in times.items()}
            floor = {t: roofline.floor(X.shape, 1 if k == 2 else k, dtype, t) for t in threads}
            row = {"type": type_, "d": d, "k": k, "batch": b, "n": n, "runs": len(times[threads[-1]])}
            for t in threads:
                row |= {f"ms on {t}": 1e3 * took[t], f"floor ms on {t}": 1e3 * floor[t]}
            row |= {"distance on 1": took[1] / floor[1], "distance": took[threads[-1]] / floor[threads[-1]]}
            yield row | {"speed-up": took[1] / took[threads[-1]]}
        print(f"{type_}, {d} features: done", file=sys.stderr)


def report(type_, cells):
    table = []
    for d in FEATURES:
        for k in CLASSES:
            found = {c["batch"]: c for c in cells if (c["type"], c["d"], c["k"]) == (type_, d, k)}
            row = {f"{type_}, d": f"{d:,}", "k": f"{k:,}"}
            for b in BATCHES:
                row[f"batch {b}"] = f"{found[b]['distance']:.1f} ({found[b]['speed-up']:.1f} x)" if b in found else "–"
            table.append(row)
    markdown(table)


def draw(cells, threads, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm

    types = [t for t in TYPES if any(c["type"] == t for c in cells)]
    figure, grid = plt.subplots(1, len(types), figsize=(1 + 3 * len(types), 5.6), squeeze=False, layout="constrained")
    shapes = [(d, k) for d in FEATURES for k in CLASSES]
    for axes, type_ in zip(grid[0], types, strict=True):
        values = np.full((len(shapes), len(BATCHES)), np.nan)
        for c in cells:
            if c["type"] == type_:
                values[shapes.index((c["d"], c["k"])), BATCHES.index(c["batch"])] = c["distance"]
        picture = axes.imshow(values, norm=LogNorm(1, 16), cmap="YlOrRd", aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if value > 6 else "#22303c"
                axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=8, color=colour)
        axes.set_title(type_, loc="left", fontsize=10)
        axes.set_xticks(range(len(BATCHES)), BATCHES)
        axes.set_xlabel("batch")
        axes.set_yticks(range(len(shapes)), [f"{d:,} × {k:,}" for d, k in shapes] if axes is grid[0, 0] else [])
        for line in range(len(CLASSES), len(shapes), len(CLASSES)):
            axes.axhline(line - 0.5, color="white", linewidth=2)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=8)
    grid[0, 0].set_ylabel("features × classes")
    bar = figure.colorbar(picture, ax=grid[0], shrink=0.6, ticks=[1, 2, 4, 8, 16], format="%d x")
    bar.minorticks_off()
    figure.suptitle(
        f"An epoch's time over its floor, {threads} threads (1 is the machine's limit)", x=0.01, ha="left",
        fontsize=13, fontweight="bold",
    )  # fmt: skip
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--type", dest="types", nargs="+", choices=TYPES, default=TYPES)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that the script works")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the table and the picture")
    args = parser.parse_args()
    threads = sorted({1, max_threads(None)})
    print(header())
    roofline = Roofline(threads)
    print(roofline, end="\n\n", flush=True)
    cells = []
    for type_ in args.types:
        cells += measure(roofline, type_, args.quick)
        report(type_, cells)
    roofline.measure()
    print(f"with what was measured at the end, if it was better: {roofline}")
    far = [c for c in cells if c["distance"] > FAR]
    print(f"{len(far)} of {len(cells)} cells are above {FAR} x their floor; "
          f"{sum(c['speed-up'] < 1 for c in cells)} are slower on {threads[-1]} threads than on one")  # fmt: skip
    write_csv(args.out / "kernels.csv", cells)
    draw(cells, threads[-1], args.out / "kernels.png")


if __name__ == "__main__":
    main()
