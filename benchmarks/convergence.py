"""Objective and test log-loss against epochs and seconds: skdl and what people use now.

    python benchmarks/convergence.py [mnist] [fashion] [digits] [--budget 20] [--repeats 3] [--rows N] [--out DIR]

All minimise the same F (cross-entropy + alpha / 2 ||W||^2, that of standardize=False, with the alpha_ that alpha="auto"
finds there) on pixels in [0, 1] (MNIST, Fashion-MNIST: float32) or as they are (digits: float64), threads as each library
sets them. What a point is:

skdl         one complete fit with max_iter = 1, 2, 3, 5, ... epochs, all else default: its step falls to 0 at the end
textbook     W := W - lr G: skdl with numeric lr, momentum 0, constant step, batch 128; complete fits likewise
Adam         PyTorch nn.Linear, batch 128, whole-tensor indexing (no DataLoader); one run, looked at after an epoch
MLP          MLPClassifier(hidden_layer_sizes=()), a softmax regression, its own batch of 200; partial_fit by epochs
lbfgs, saga  LogisticRegression, complete fits with max_iter = 1, 2, 5, 10, ...; for lbfgs an epoch is an iteration

"best lr" is found by climbing over lr by factors of sqrt(10) at the size that reaches the target in the fewest epochs, or
else has the lowest test log-loss after --search epochs; neither that search nor any evaluation is on the clock. Times
are medians of repeats, contenders alternated; a contender's time on a data set ends after about `--budget` seconds.

Prints the time until the test log-loss is within 1 % of (or below) the optimum's, and until F is within its tolerance
(2 %, or 0.005 where the optimum is below 0.1), linear between points; ">" is the time of a contender that had not got
there. Writes convergence.csv and convergence.png.
"""

import argparse
import csv
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
from _data import (
    TITLES,
    cache_name,
    error,
    excess,
    images,
    installed_images,
    log_loss,
    logits,
    objective,
    optimum,
    small,
)
from _machine import header
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from skdl import SoftmaxRegressionClassifier

try:
    import torch
except ImportError:
    torch = None

EPOCHS = [1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000]
COARSE = [1, 2, 5, 10, 20, 40, 80, 160, 320, 640, 1280]  # where every point is a fit of seconds
SMALL_FACTOR = 6  # an epoch of digits is 11 updates, one of MNIST 469: so many times the epochs there, and the repeats
# Name, colour, line style, marker of each contender, in the order of the legend.
STYLES = {
    "skdl": ("skdl, default step", "#c8553d", "-", "o"),
    "textbook": ("textbook step, best lr", "#e3a587", "-", "o"),
    "adam": ("PyTorch Adam, defaults", "#3b6ea5", "--", "s"),
    "adam best": ("PyTorch Adam, best lr", "#3b6ea5", "-", "s"),
    "mlp sgd": ("MLPClassifier sgd, defaults", "#6a994e", "--", "^"),
    "mlp sgd best": ("MLPClassifier sgd, best lr", "#6a994e", "-", "^"),
    "mlp adam": ("MLPClassifier adam, defaults", "#a7c957", "-", "v"),
    "lbfgs": ("LogisticRegression lbfgs", "#22303c", "-", "D"),
    "saga": ("LogisticRegression saga", "#8d99a6", "-", "D"),
}


# ---- the contenders: generators of (epochs, seconds, coef, intercept)


def complete_fits(make, data, epochs, budget):
    """A new model for every number of epochs; stops where the next fit would overrun the budget."""
    spent = 0.0
    for n in epochs:
        model = make(n)
        start = time.perf_counter()
        model.fit(data.X, data.y)
        seconds = time.perf_counter() - start
        yield n, seconds, model.coef_, model.intercept_
        spent += seconds
        following = next((e for e in epochs if e > n), n)
        if spent + seconds * following / n > budget:
            return


def one_run(epoch, parameters, epochs, budget):
    """`epoch()` again and again; `parameters()` at each number of epochs asked for."""
    seconds = 0.0
    for n in range(1, epochs[-1] + 1):
        start = time.perf_counter()
        epoch()
        seconds += time.perf_counter() - start
        if n in epochs:
            yield n, seconds, *parameters()
        if seconds > budget:
            return


def skdl(data, epochs, budget, lr=None, seed=0):
    def make(n):
        return SoftmaxRegressionClassifier(max_iter=n, alpha=data.alpha, standardize=False, random_state=seed)

    return complete_fits(make, data, epochs, budget)


def textbook(data, epochs, budget, lr=None, seed=0):
    def make(n):
        return SoftmaxRegressionClassifier(
            max_iter=n,
            alpha=data.alpha,
            standardize=False,
            lr=lr,
            momentum=0.0,
            lr_schedule="constant",
            n_iter_no_change=n + 1,
            random_state=seed,
        )

    return complete_fits(make, data, epochs, budget)


def adam(data, epochs, budget, lr=1e-3, seed=0, batch=128):
    torch.manual_seed(seed)
    X, y = torch.from_numpy(np.array(data.X, np.float32)), torch.from_numpy(np.array(data.y))
    model = torch.nn.Linear(X.shape[1], int(y.max()) + 1)
    loss = torch.nn.CrossEntropyLoss()
    groups = [dict(params=[model.weight], weight_decay=data.alpha), dict(params=[model.bias])]
    optimiser = torch.optim.Adam(groups, lr=lr)

    def epoch():
        order = torch.randperm(len(X))
        for rows in order.split(batch):
            optimiser.zero_grad()
            loss(model(X[rows]), y[rows]).backward()
            optimiser.step()

    def parameters():
        return model.weight.detach().numpy().copy(), model.bias.detach().numpy().copy()

    return one_run(epoch, parameters, epochs, budget)


def mlp(solver):
    def trace(data, epochs, budget, lr=1e-3, seed=0):
        batch = min(200, len(data.y))
        model = MLPClassifier(
            (), solver=solver, alpha=data.alpha * batch, learning_rate_init=lr, batch_size=batch, random_state=seed
        )  # its penalty is alpha / (2 batch) ||W||^2

        def epoch():
            model.partial_fit(data.X, data.y, classes=data.classes)

        return one_run(epoch, lambda: (model.coefs_[0].T.copy(), model.intercepts_[0].copy()), epochs, budget)

    return trace


def logistic(solver):
    def trace(data, epochs, budget, lr=None, seed=0):
        def make(n):
            C = 1 / (data.alpha * len(data.y))
            return LogisticRegression(C=C, solver=solver, max_iter=n, tol=1e-10, random_state=seed)

        return complete_fits(make, data, [n for n in COARSE if n <= 2 * epochs[-1]], budget)

    return trace


# Each with the first lr of its search, or None where there is none.
CONTENDERS = {
    "skdl": (skdl, None),
    "textbook": (textbook, 1e-3),
    "adam": (adam, None),
    "adam best": (adam, 1e-3),
    "mlp sgd": (mlp("sgd"), None),
    "mlp sgd best": (mlp("sgd"), 1e-2),
    "mlp adam": (mlp("adam"), None),
    "lbfgs": (logistic("lbfgs"), None),
    "saga": (logistic("saga"), None),
}


# ---- data and measures


class Data:
    """A data set, an alpha, the optimum of the objective with it, and the measures of parameters on it."""

    def __init__(self, name, n_rows):
        self.name = name
        self.X, self.X_test, self.y, self.y_test = small(name, "raw", 0) if name == "digits" else images(name, "[0, 1]")
        key = cache_name(name, "raw" if name == "digits" else "[0, 1]")
        if n_rows and n_rows < len(self.y):
            self.X, self.y, key = self.X[:n_rows].copy(), self.y[:n_rows], f"{key}-{n_rows}-rows"
        self.classes = np.unique(self.y)
        self.alpha = SoftmaxRegressionClassifier(standardize=False, random_state=0).fit(self.X, self.y).alpha_
        self.best = optimum(self.X, self.y, self.alpha, name=key)
        self.best_f, self.best_loss, self.best_error = self.measure(*self.best)
        self.target = 1.01 * self.best_loss

    def measure(self, coef, intercept):
        """F, test log-loss, test error in per cent."""
        H = logits(self.X_test, coef, intercept)
        return objective(self.X, self.y, coef, intercept, self.alpha), log_loss(H, self.y_test), error(H, self.y_test)

    def test_loss(self, coef, intercept):
        return log_loss(logits(self.X_test, coef, intercept), self.y_test)


def search(data, trace, start, n_epochs):
    """The lr that reaches the target first, or else has the lowest test log-loss after n_epochs."""
    epochs = [n for n in EPOCHS if n <= n_epochs]
    scores = {}

    def score(step):
        if step not in scores:
            try:
                points = [(n, data.test_loss(W, b)) for n, _, W, b in trace(data, epochs, np.inf, lr=start * 10**step)]
            except ValueError:  # diverged
                points = [(n_epochs, np.inf)]
            first = next((n for n, loss in points if loss <= data.target), np.inf)
            loss = points[-1][1]
            scores[step] = first, loss if np.isfinite(loss) else np.inf
        return scores[step]

    step = 0.0
    while min(score(step - 0.5), score(step + 0.5)) < score(step) and abs(step) < 6:
        step += 0.5 if score(step + 0.5) < score(step - 0.5) else -0.5
    return start * 10**step


def reached(points, column, target):
    """Seconds and epochs until the measure is at the target, linear between points; None if it never is."""
    for i, point in enumerate(points):
        if point[column] <= target:
            if i == 0:
                return point["seconds"], point["epochs"]
            before = points[i - 1]
            share = (before[column] - target) / (before[column] - point[column])
            return tuple(before[c] + share * (point[c] - before[c]) for c in ("seconds", "epochs"))
    return None


def measure(data, traces, args):
    """Points of each contender: the measures of the first run, the median times of all."""
    results = {name: [] for name in traces}  # lists of points; a point is a dict
    spent = dict.fromkeys(traces, 0.0)
    runs = dict.fromkeys(traces, 0)
    factor = SMALL_FACTOR if data.name == "digits" else 1
    epochs = [n for n in EPOCHS if n <= args.max_epochs * factor]
    for trace, lr in traces.values():  # a first call pays for threads and imports
        next(iter(trace(data, [1], np.inf, **lr)))
    budget = args.budget / 4 if data.name == "digits" else args.budget
    for repeat in range(args.repeats * factor):
        for name, (trace, lr) in traces.items():
            if repeat and spent[name] * (1 + 1 / repeat) > budget:
                continue
            start = time.perf_counter()
            for i, (n, seconds, W, b) in enumerate(trace(data, epochs, budget, **lr)):
                if repeat and i == len(results[name]):
                    break
                if repeat == 0:
                    f, loss, e = data.measure(W, b)
                    point = {"epochs": n, "times": [], "F": f, "F - optimum": f - data.best_f}
                    results[name].append({**point, "test log-loss": loss, "test error": e})
                results[name][i]["times"].append(seconds)
            spent[name] += time.perf_counter() - start
            runs[name] += 1
    for points in results.values():
        for point in points:
            point["seconds"] = median(point.pop("times"))
    return results, runs


def report(data, results, runs, traces):
    def text(points, target, ours):
        found = reached(points, *target)
        seconds, epochs = found or (points[-1]["seconds"], points[-1]["epochs"])
        ratio = f"{seconds / ours[0]:8.1f} x" if ours else f"{'':10}"
        return f"{'' if found else '>':>4}{1000 * seconds:9.1f} ms{epochs:7.1f}{ratio}"

    tolerance = 0.02 * data.best_f if data.best_f >= 0.1 else 0.005
    targets = [("test log-loss", data.target), ("F", data.best_f + tolerance)]
    ours = [reached(results["skdl"], *target) for target in targets]
    heads = f"{'test log-loss + 1 %':>33}{'F within tolerance':>33}"
    print(f"{'time, epochs, times skdl (>: not yet)':40}{heads}   last: F (gap), log-loss; runs")
    for name, points in results.items():
        lr = f" {traces[name][1]['lr']:.2g}" if traces[name][1] else ""
        columns = "".join(text(points, target, our) for target, our in zip(targets, ours, strict=True))
        last = points[-1]
        gap = excess(last["F"], data.best_f)
        print(
            f"{STYLES[name][0] + lr:40}{columns}   {last['F']:.4f} ({gap:.2f}), {last['test log-loss']:.4f}; {runs[name]}"
        )


# ---- the picture


def draw(sets, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ink, paper = "#22303c", "#fbfaf7"
    plt.rcParams.update(
        {"text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink, "font.size": 9}
    )
    figure, grid = plt.subplots(
        len(sets), 2, figsize=(11, 1.5 + 3.4 * len(sets)), facecolor=paper, squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.95 / (1.5 + 3.4 * len(sets))), hspace=0.06, wspace=0.04)
    for (left, right), (data, results) in zip(grid, sets, strict=True):
        for name, points in results.items():
            label, colour, line, marker = STYLES[name]
            style = dict(color=colour, linestyle=line, marker=marker, markersize=3.2, linewidth=1.3, label=label)
            if name == "skdl":
                style |= dict(linewidth=2.6, markersize=5, zorder=5)
            left.plot([p["epochs"] for p in points], [p["F - optimum"] for p in points], **style)
            right.plot(
                [p["seconds"] for p in points], [p["test log-loss"] / data.best_loss - 1 for p in points], **style
            )
        title = f"{TITLES[data.name]}, {len(data.y):,} × {data.X.shape[1]}"
        left.set_title(f"{title}: objective above its optimum, {data.best_f:.4f}", loc="left", fontsize=10)
        right.set_title(f"test log-loss against the optimum's, {data.best_loss:.4f}", loc="left", fontsize=10)
        left.set(xscale="log", yscale="log", xlabel="epochs (lbfgs: iterations)", ylabel="F − optimum")
        left.set_ylim(bottom=max(1e-6, min(abs(p["F - optimum"]) for points in results.values() for p in points) / 2))
        right.set(xscale="log", xlabel="seconds")
        right.set_yscale("symlog", linthresh=0.01, linscale=0.5)
        ticks = {-0.1: "−10 %", -0.01: "−1 %", 0.01: "+1 %", 0.1: "+10 %", 1: "+100 %", 10: "+1000 %"}
        lowest = min(p["test log-loss"] for points in results.values() for p in points) / data.best_loss - 1
        right.set(ylim=(min(-0.03, 1.5 * lowest), 15))
        right.set_yticks(list(ticks), ticks.values())
        right.axhspan(-0.01, 0.01, color=ink, alpha=0.08, linewidth=0)
        for axes in (left, right):
            axes.set_facecolor(paper)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25, linewidth=0.6)
            axes.minorticks_off()
    figure.suptitle(
        "Softmax regression to the same optimum: down and to the left is better",
        x=0.012, y=1 - 0.1 / (1.5 + 3.4 * len(sets)), ha="left", va="top", fontsize=14, fontweight="bold",
    )  # fmt: skip
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, ncols=5, fontsize=8, frameon=False, loc="upper left",
        bbox_to_anchor=(0.005, 1 - 0.42 / (1.5 + 3.4 * len(sets))),
    )  # fmt: skip
    figure.savefig(path, dpi=130, facecolor=paper)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help="mnist, fashion, digits (all that are installed)")
    parser.add_argument(
        "--budget", type=float, default=20, help="seconds of a contender on images; a quarter on digits"
    )
    parser.add_argument("--repeats", type=int, default=3, help="at the most; fewer where the budget ends")
    parser.add_argument(
        "--search", type=int, default=20, help="epochs of a search for lr on images; 6 times that on digits"
    )
    parser.add_argument("--max-epochs", type=int, default=50, help="of a contender; 6 times that on digits")
    parser.add_argument("--rows", type=int, help="only the first so many rows to train on")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the picture and the table")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # fits are cut short on purpose
    warnings.simplefilter("ignore", RuntimeWarning)  # steps that are too large, on the way to the best
    print(header())
    contenders = dict(CONTENDERS)
    if torch is None:
        print("PyTorch is left out: it is not installed")
        contenders = {name: c for name, c in contenders.items() if not name.startswith("adam")}
    else:
        print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    sets, rows = [], []
    for name in args.sets or [*installed_images(), "digits"]:
        data = Data(name, args.rows)
        print(
            f"\n{TITLES[name]}, {len(data.y):,} x {data.X.shape[1]} {data.X.dtype}: optimum F {data.best_f:.4f}, "
            f"test log-loss {data.best_loss:.4f}, test error {data.best_error:.2f} %",
            flush=True,
        )
        n_search = args.search * (SMALL_FACTOR if name == "digits" else 1)
        traces = {
            who: (trace, {} if start is None else {"lr": search(data, trace, start, n_search)})
            for who, (trace, start) in contenders.items()
        }
        results, runs = measure(data, traces, args)
        report(data, results, runs, traces)
        sets.append((data, results))
        rows += [{"data": name, "contender": who, **p} for who, points in results.items() for p in points]
        with open(args.out / "convergence.csv", "w", newline="") as file:
            table = csv.DictWriter(file, ["data", "contender", "epochs", "seconds", *list(rows[0])[3:-1]])
            table.writeheader()
            table.writerows(rows)
        draw(sets, args.out / "convergence.png")


if __name__ == "__main__":
    main()
