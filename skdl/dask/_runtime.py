"""Where functions run: on the workers of a client of Distributed, or by Dask's own scheduler in this process."""

from contextlib import contextmanager
from weakref import WeakSet

import dask


def current_client():
    """The client that Distributed would use, or None."""
    try:
        from distributed import default_client
    except ImportError:
        return None
    try:
        return default_client()
    except ValueError:  # there is none
        return None


class Runtime:
    """See `skdl._rounds.Runtime`. Handles are dask.delayed's; nothing is scattered, so what is lost can be made again.

    A context manager: when it is left, the cluster need not keep anything for it.
    """

    def __init__(self, client):
        if client is not None and not hasattr(client, "nthreads"):
            raise TypeError(
                f"client={client!r} is not valid: expected a distributed.Client, or None for the current one."
            )
        self._client, self._kept = client, WeakSet()
        # Without workers the kernels' own threads do what there is to do, on one shard.
        self._threads = [1] if client is None else sorted(client.nthreads().values())
        if not self._threads:
            raise RuntimeError(
                "The cluster has no workers yet: wait for them, by client.wait_for_workers(n) for example."
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for future in self._kept:  # the traceback of an error would hold them for as long as somebody holds it
            future.release()

    @property
    def n_threads(self):
        return sum(self._threads)

    def threads_of(self, n_shards):
        if self._client is None:
            return None
        return max(1, min(self._threads[-1], self.n_threads // n_shards))

    def call(self, function, *args, **kwargs):
        return dask.delayed(function, pure=False)(*args, **kwargs)

    def part(self, handle, i):
        return handle[i]

    def keep(self, handles):
        with _explained():
            if self._client is None:
                return list(dask.persist(*handles))
            from distributed import futures_of

            kept = self._client.persist(handles)
            self._kept.update(futures_of(kept))
            return kept

    def result(self, handle):
        # Models are sent with the tasks that go on from them, on purpose, so Distributed need not warn of large ones.
        with _explained(), dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
            if self._client is None:
                return handle.compute()
            future = self._client.compute(handle)
            try:
                return future.result()
            finally:
                future.release()


@contextmanager
def _explained():
    """What Dask raises when it gives up comes with a sentence; what is wrong with data and parameters is one already."""
    try:
        yield
    except (TypeError, ValueError):
        raise
    except Exception as error:
        raise RuntimeError(f"Dask gave up on a part of the work: {type(error).__name__}: {error}") from error
