"""Are the defaults right, on everything? Test log-loss of the default fit beside the tuned models of others.

    python benchmarks/defaults.py fit            # fits the suite with the skdl at hand: adds to defaults_skdl.csv
    python benchmarks/defaults.py suite          # that against LogisticRegressionCV: table and picture, from the CSVs
    python benchmarks/defaults.py units          # raw, standardised and disguised features
    python benchmarks/defaults.py grid           # embeddings and text against the best of a grid
    python benchmarks/defaults.py hard           # inputs that defaults get wrong, against LogisticRegression
    python benchmarks/defaults.py images         # MNIST and Fashion-MNIST, 10 seeds

The data sets are those of `_suite.py`, where what has to be installed is said. The constants of the defaults were chosen on
the sets marked "choose"; the others ("report") tell whether they hold elsewhere. The results of LogisticRegressionCV and of
the grids of text are in `defaults_peers.csv`. `fit` does not fit again what the CSV has of this version.
"""

import argparse
import time
import warnings

import numpy as np
from _data import HERE, images
from _machine import header
from _suite import N_SPLITS, SETS, SUITE, known_peers, score
from _timing import markdown, read_csv, write_csv
from scipy import sparse
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skdl
from skdl import SoftmaxRegressionClassifier

RESULTS = HERE / "defaults_skdl.csv"
NO_DIFFERENCE = 0.01  # of log-losses, in the worst ratio
GRID = np.logspace(-6, 1, 15)


def default_fit(X, y, **parameters):
    return SoftmaxRegressionClassifier(random_state=0, **parameters).fit(X, y)


# ---- the suite


def fit_suite(names):
    rows = read_csv(RESULTS) if RESULTS.exists() else []
    have = {row["data"] for row in rows if row["version"] == skdl.__version__}
    for data in [SUITE[name] for name in names or SUITE if name not in have]:
        for split, (X, X_test, y, y_test) in enumerate(data.splits()):
            start = time.perf_counter()
            model = default_fit(X, y)
            seconds = time.perf_counter() - start
            loss, error = score(model, X_test, y_test)
            rows.append(
                dict(version=skdl.__version__, data=data.name, split=split, log_loss=f"{loss:.5f}",
                     error=f"{error:.3f}", alpha=f"{model.alpha_:.4g}", epochs=model.n_iter_, seconds=f"{seconds:.3f}")
            )  # fmt: skip
        print(data.name, f"{loss:.4f}", flush=True)
        write_csv(RESULTS, rows)


def mean_of(rows, column, n_splits):
    values = [float(row[column]) for row in rows if int(row["split"]) < n_splits]
    return np.mean(values) if values else np.nan


def report_suite(out):
    ours, peers = read_csv(RESULTS), [row for row in known_peers() if row["peer"] == "LogisticRegressionCV"]
    versions = sorted({row["version"] for row in ours})
    table, ratios, raised, worst = [], {}, {}, {}
    for data in SETS:
        peer = [row for row in peers if row["data"] == data.name]
        losses = [
            mean_of(
                [row for row in ours if row["data"] == data.name and row["version"] == version], "log_loss", len(peer)
            )
            for version in versions
        ]
        best = mean_of(peer, "log_loss", N_SPLITS)
        for version, loss in zip(versions, losses, strict=True):
            if np.isfinite(loss):
                ratios[data.name, version] = loss / best
                raised[data.name, version] = (loss + NO_DIFFERENCE) / (best + NO_DIFFERENCE)
                worst[data.name, version] = loss / best if loss - best > NO_DIFFERENCE else min(loss / best, 1.0)
        line = {"set": data.name, "kind": data.kind, "use": data.use, "LogisticRegressionCV": f"{best:.4f}"}
        line |= {f"skdl {version}": f"{loss:.4f}" for version, loss in zip(versions, losses, strict=True)}
        line |= {"ratio": f"{losses[-1] / best:.3f}"}
        table.append(line)
    markdown(table)
    summary = []
    for use in ("choose", "report"):
        for version in versions:
            names = [data.name for data in SETS if data.use == use and (data.name, version) in ratios]
            means = [np.exp(np.mean([np.log(r[name, version]) for name in names])) for r in (ratios, raised)]
            name = max(names, key=lambda name: worst[name, version])
            summary.append({"sets": f"{use} ({len(names)})", "version": version, "geometric mean": f"{means[0]:.3f}",
                            "of losses + .01": f"{means[1]:.3f}",
                            "worst": f"{worst[name, version]:.3f}", "which": name})  # fmt: skip
    markdown(summary)
    draw(out / "defaults.png", ratios, versions)


def draw(path, ratios, versions):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [data.name for data in sorted(SETS, key=lambda d: (d.use, ratios.get((d.name, versions[-1]), 1.0)))]
    fig, ax = plt.subplots(figsize=(8, 9), layout="constrained")
    colours = {"choose": "#1f6f8b", "report": "#c8553d"}
    for i, name in enumerate(names):
        colour = colours[SUITE[name].use]
        for version in versions:
            ratio, last = ratios.get((name, version)), version == versions[-1]
            if ratio is not None:
                ax.plot(np.clip(ratio, 0.4, 4), i, "o", color=colour, mfc=colour if last else "white", ms=6 if last else 5,
                        alpha=1 if last else 0.6, zorder=3 if last else 2)  # fmt: skip
    ax.axvline(1, color="0.3", lw=1)
    ax.set_xscale("log")
    ticks = [0.4, 0.5, 0.7, 1, 1.5, 2, 3, 4]
    ax.set_xticks(ticks, ["≤ 0.4", "0.5", "0.7", "1", "1.5", "2", "3", "≥ 4"])
    ax.minorticks_off()
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.set_ylim(-1, len(names))
    ax.grid(axis="x", color="0.9")
    ax.set_xlabel("test log-loss over that of LogisticRegressionCV behind a scaler (left of 1: skdl is better)")
    handles = [plt.Line2D([], [], marker="o", ls="", color=colours[use], label=f"sets for {what}")
               for use, what in (("choose", "choosing constants"), ("report", "reporting"))]  # fmt: skip
    handles += [
        plt.Line2D([], [], marker="o", ls="", color="0.4", mfc="white", label=f"skdl {v}") for v in versions[:-1]
    ]
    ax.legend(handles=handles, loc="lower right", fontsize=8)
    fig.savefig(path, dpi=150)


# ---- units


def report_units():
    """The same features in other units: standardised; each times a random power of ten, with an offset."""
    rows = []
    for data in SETS:
        X, X_test, y, y_test = next(data.splits())
        if sparse.issparse(X) or len(y) > 5000:
            continue
        X, X_test, rng = X.astype(float), X_test.astype(float), np.random.default_rng(0)
        factor = 10.0 ** rng.integers(-6, 7, X.shape[1])
        offset = 3 * rng.normal(size=X.shape[1]) * factor * X.std(axis=0)
        scaler = StandardScaler().fit(X)
        pairs = (
            (X, X_test),
            (scaler.transform(X), scaler.transform(X_test)),
            (X * factor + offset, X_test * factor + offset),
        )
        losses = [score(default_fit(A, y), A_test, y_test)[0] for A, A_test in pairs]
        names = "raw", "standardised", "disguised"
        rows.append({"set": data.name} | {name: f"{loss:.5f}" for name, loss in zip(names, losses, strict=True)})
        rows[-1]["largest ratio"] = f"{max(losses) / min(losses):.5f}"
    markdown(rows)


# ---- grids


def report_grids():
    rows = []
    for name in ("debian-embedding", "docstrings-embedding"):
        losses = []
        for X, X_test, y, y_test in SUITE[name].splits():
            alphas = ["auto", *GRID]
            losses.append([score(default_fit(X, y, alpha=alpha), X_test, y_test)[0] for alpha in alphas])
        auto, *grid = np.mean(losses, axis=0)
        rows.append({"set": name, "alpha='auto'": f"{auto:.4f}", "best of 15 alphas": f"{min(grid):.4f}",
                     "at": f"{GRID[np.argmin(grid)]:.1e}", "ratio": f"{auto / min(grid):.3f}"})  # fmt: skip
    markdown(rows)
    rows = []
    for data in SETS:
        if data.kind == "text":
            X, X_test, y, y_test = next(data.splits())
            loss, error = score(default_fit(X, y), X_test, y_test)
            raw_loss, raw_error = score(default_fit(X, y, standardize=False), X_test, y_test)
            peers = [row for row in known_peers() if row["data"] == data.name and row["peer"] != "LogisticRegressionCV"]
            best, least = (min(peers, key=lambda row: float(row[by])) for by in ("log_loss", "error"))
            rows.append({"set": data.name, "log-loss": f"{loss:.4f}", "standardize=False": f"{raw_loss:.4f}",
                         "best": f"{float(best['log_loss']):.4f}", "of": f"{best['peer']}({best['parameter']})",
                         "ratio": f"{loss / float(best['log_loss']):.3f}", "error %": f"{error:.2f}",
                         "s.=False": f"{raw_error:.2f}", "least": f"{float(least['error']):.2f}",
                         "by": f"{least['peer']}({least['parameter']})"})  # fmt: skip
    markdown(rows)


# ---- hard cases


def rare_class(rng):
    y = (rng.random(20_000) < 0.001).astype(int)
    return rng.normal(size=(len(y), 10)) + 0.8 * y[:, None], y, 0.5


def texts_of_any_length(rng, spread=1.5, long=0):
    topics = rng.dirichlet(np.full(1000, 0.3), 4)
    y = rng.integers(0, 4, 4000)
    lengths = (40 * np.exp(spread * rng.normal(size=len(y)))).astype(int) + 1
    lengths[0] = long or lengths[0]
    return (
        sparse.csr_array([rng.multinomial(n, topics[k]) for n, k in zip(lengths, y, strict=True)]).astype(float),
        y,
        0.25,
    )


def companies_and_years(rng):
    company, year = rng.integers(0, 300, 6000), rng.integers(2005, 2026, 6000)
    y = (rng.normal(size=300)[company] + 0.3 * (year - 2015) + rng.logistic(size=6000) > 0).astype(int)
    one_hot = sparse.csr_array((np.ones(6000), company, np.arange(6001)), shape=(6000, 300))
    return sparse.hstack([one_hot, sparse.csr_array(year[:, None].astype(float))], format="csr"), y, 1 / 3


def differences(rng):
    common = rng.normal(size=(4000, 1))
    X = np.sqrt(0.999) * common + np.sqrt(0.001) * rng.normal(size=(4000, 10))
    return X, ((X[:, 0] - X[:, 1]) * 60 + rng.logistic(size=4000) > 0).astype(int), 0.5


def long_row(rng, times):
    X = rng.normal(size=(4000, 20))
    y = (X @ rng.normal(size=20) + rng.logistic(size=4000) > 0).astype(int)
    X[0] *= times
    return X, y, 0.5


def report_hard():
    cases = {
        "a class of .1 %, balanced": (rare_class, {"class_weight": "balanced"}),
        "counts, lengths lognormal(1.5)": (texts_of_any_length, {}),
        "one-hot and a year, CSR": (companies_and_years, {}),
        "differences of correlated columns": (differences, {}),
    }
    for n in (10_000, 100_000):
        cases[f"counts, one row of {n:,} words"] = (lambda rng, n=n: texts_of_any_length(rng, 0.5, n), {})
    for times in (1e3, 1e6):
        cases[f"Gaussian rows, one times {times:g}"] = (lambda rng, times=times: long_row(rng, times), {})
    rows = []
    for title, (make, parameters) in cases.items():
        losses = []
        for seed in range(3):
            X, y, test_size = make(np.random.default_rng(seed))
            rows_of = np.arange(len(y))
            train, test = train_test_split(rows_of[1:], test_size=test_size, stratify=y[1:], random_state=seed)
            train = np.append(train, 0)  # the odd row, where there is one
            dense = X.toarray() if title.startswith("one-hot") else X
            peer = LogisticRegression(max_iter=3000, **parameters)
            if not sparse.issparse(dense):
                peer = make_pipeline(StandardScaler(), peer)
            pairs = (default_fit(X[train], y[train], **parameters), X), (peer.fit(dense[train], y[train]), dense)
            losses.append([score(model, A[test], y[test])[0] for model, A in pairs])
        rows.append(_against(title, *np.mean(losses, axis=0)))
    X, y = load_breast_cancer(return_X_y=True)
    for share in (0.1, 0.3, 0.7):
        losses = []
        for seed in range(5):
            X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=share, stratify=y, random_state=seed)
            peer = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000)).fit(X_train, y_train)
            losses.append([score(model, X_test, y_test)[0] for model in (default_fit(X_train, y_train), peer)])
        rows.append(_against(f"breast cancer, {share:.0%} of it", *np.mean(losses, axis=0)))
    markdown(rows)


def _against(title, loss, peer):
    return {"case": title, "skdl": f"{loss:.4f}", "LogisticRegression": f"{peer:.4f}", "ratio": f"{loss / peer:.3f}"}


# ---- images


def report_images():
    rows = []
    for name in ("mnist", "fashion"):
        X, X_test, y, y_test = images(name, "raw")
        fits = [SoftmaxRegressionClassifier(random_state=seed).fit(X, y) for seed in range(10)]
        results = np.array([score(model, X_test, y_test) for model in fits])
        (loss, error), (loss_spread, error_spread) = results.mean(axis=0), results.std(axis=0)
        rows.append({"set": name, "error %": f"{error:.2f} ± {error_spread:.2f}",
                     "log-loss": f"{loss:.4f} ± {loss_spread:.4f}", "epochs": f"{fits[0].n_iter_}"})  # fmt: skip
    markdown(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("fit", "suite", "units", "grid", "hard", "images"))
    parser.add_argument("sets", nargs="*", metavar="set", help="to fit (all)")
    parser.add_argument("--out", type=type(HERE), default=HERE, metavar="DIR", help="where the picture goes")
    args = parser.parse_args()
    if not set(args.sets) <= set(SUITE):
        parser.error(f"sets are {', '.join(SUITE)}")
    print(header())
    with warnings.catch_warnings(action="ignore"):
        match args.command:
            case "fit":
                fit_suite(args.sets)
            case "suite":
                report_suite(args.out)
            case "units":
                report_units()
            case "grid":
                report_grids()
            case "hard":
                report_hard()
            case "images":
                report_images()
