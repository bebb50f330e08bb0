"""MNIST, which the examples read from the repository."""

import gzip
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
DATA = ROOT / "benchmarks" / "data" / "mnist"


def load_mnist(part):
    """Images (n, 784) as they are stored, one byte a pixel from 0 to 255, and their labels (n,)."""
    images = gzip.decompress((DATA / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((DATA / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784), np.frombuffer(labels, np.uint8, offset=8)
