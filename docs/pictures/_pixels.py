"""MNIST in [0, 1], from the clone."""

import gzip
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "data" / "mnist"


def mnist(part):
    """Images (n, 784), float32 from 0 to 1, and their labels (n,)."""
    images = gzip.decompress((FOLDER / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((FOLDER / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    X = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784)
    return X.astype(np.float32) / 255, np.frombuffer(labels, np.uint8, offset=8)
