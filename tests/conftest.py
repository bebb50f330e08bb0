"""What the tests share: MNIST."""

import pytest
from _data import images


@pytest.fixture(scope="session")
def mnist():
    """X_train (60000, 784) uint8, y_train, X_test (10000, 784), y_test."""
    X, X_test, y, y_test = images("mnist", "raw")
    return X, y, X_test, y_test
