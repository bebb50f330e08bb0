"""Data of Dask, on one machine or many: fitted where they lie, by `skdl.dask.SoftmaxRegressionClassifier`.

Needs Dask and, for more than this process, Distributed: ``pip install 'skdl[dask]'``. What the workers compute are the pure
functions of `skdl._shards`; `skdl._rounds` puts them together, and names no runtime either.
"""

try:
    import dask.array
    import dask.dataframe  # noqa: F401
except ImportError as error:
    raise ImportError("skdl.dask needs Dask: pip install 'skdl[dask]'.") from error

from skdl.dask._classifier import SoftmaxRegressionClassifier

__all__ = ["SoftmaxRegressionClassifier"]
