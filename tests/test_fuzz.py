"""Random data, forms and parameters: the NumPy twin's result, or a clear error."""

import malformed


def test_malformed_sparse():
    """A small part of the cases that `make fuzz` tries under AddressSanitizer."""
    refused, computed = malformed.run(1000)
    assert refused > 400 and computed > 200
