"""Saves models of this release, for the tests of all later ones: python tests/pickles/make.py. Never overwrite a release's."""

import pickle
import warnings
from pathlib import Path

import joblib
import numpy as np
import skops.io
from scipy import sparse

import skdl
from skdl import SoftmaxRegressionClassifier

FOLDER = Path(__file__).parent
warnings.simplefilter("ignore")

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 5))
number = np.digitize(X[:, 0] - X[:, 1], [-1, 1])
names = np.array(["left", "middle", "right"])[number]
settings = {"max_iter": 20, "random_state": 0}
models = {
    "multiclass": SoftmaxRegressionClassifier(class_weight={"left": 2.0}, **settings).fit(X.astype("f4"), names),
    "binary": SoftmaxRegressionClassifier(early_stopping=True, **settings).fit(X, number > 1),
    "stream": SoftmaxRegressionClassifier(class_weight="balanced", l1_ratio=0.5, **settings)
    .partial_fit(X, number, classes=range(3))
    .partial_fit(sparse.csr_array(X), number),
}
for kind, model in models.items():
    stem = f"{skdl.__version__}-{kind}"
    (FOLDER / f"{stem}.pickle").write_bytes(pickle.dumps(model, protocol=5))
    joblib.dump(model, FOLDER / f"{stem}.joblib")
    skops.io.dump(model, FOLDER / f"{stem}.skops")
    expected = {"predict": model.predict(X), "predict_proba": model.predict_proba(X)}
    np.savez_compressed(FOLDER / f"{stem}.npz", X=X, **expected, classes=model.classes_, coef=model.coef_)
