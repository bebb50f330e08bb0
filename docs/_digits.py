"""The model of the start page: trained on MNIST while the site is built, and written as a script of some 44 KB."""

import base64
import json
import sys
from pathlib import Path

import numpy as np

from skdl import SoftmaxRegressionClassifier

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "examples"))

from _images import load_mnist  # noqa: E402


def as_text(array):
    return base64.b64encode(array.tobytes()).decode()


def train():
    """What _static/digits.js reads: coefficients (float32, row by row), intercepts, and how far ink varies in each pixel."""
    X, y = load_mnist("train")
    model = SoftmaxRegressionClassifier(random_state=0).fit(X, y)
    return {
        "coef": as_text(model.coef_.astype("<f4")),
        "intercept": model.intercept_.tolist(),
        "spread": as_text(X.std(axis=0).round().astype(np.uint8)),
        "error": round(100 * (1 - model.score(*load_mnist("t10k"))), 2),
    }


def write_model(app, exception):
    if exception is None and app.builder.format == "html":
        # A script, not JSON: pages opened from the disk may load it, too.
        path = Path(app.outdir, "_static", "digits_model.js")
        path.write_text(f"const DIGITS_MODEL = {json.dumps(train())};\n")


def setup(app):
    app.connect("build-finished", write_model)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
