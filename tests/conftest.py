"""What the tests share: MNIST, and small problems that need no file."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from skdl import _openmp

MNIST = Path(__file__).parent.parent / "benchmarks" / "data" / "mnist"


def read_idx(path, offset):
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


@pytest.fixture(scope="session")
def mnist():
    """X_train (60000, 784) uint8, y_train, X_test (10000, 784), y_test."""
    parts = []
    for name in ("train", "t10k"):
        parts.append(read_idx(MNIST / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 784))
        parts.append(read_idx(MNIST / f"{name}-labels-idx1-ubyte.gz", 8))
    return parts


@pytest.fixture(autouse=True)
def more_threads_than_cores(monkeypatch):
    """Tests that ask for threads get them, on any machine."""
    monkeypatch.setattr(_openmp, "available_cores", lambda: 64)


@pytest.fixture(params=["openmp"])
def backend(request):
    return request.param
