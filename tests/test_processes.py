"""Threads, processes and failures around a fit: the same bits, no hang, and an estimator as it was."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import _helpers
import joblib
import numpy as np
import pytest
from _helpers import Callback, fitted_state, needs_callbacks, run
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.datasets import load_iris
from threadpoolctl import threadpool_limits

from skdl import _classifier, _kernels, _sgd
from skdl.openmp import _memory, _threads

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
# Large enough that two threads share a minibatch.
X = np.random.default_rng(0).integers(0, 255, (1500, 784), dtype=np.uint8)
Y = np.arange(1500) % 10


make = partial(_helpers.make, max_iter=2, n_jobs=2)


def fit(seed, backend="openmp", container=np.asarray):
    clf = make(random_state=seed, backend=backend)
    return clf.fit(container(X.astype("f4")) if container is not np.asarray else X, Y).coef_


@pytest.fixture(scope="module")
def alone():
    return [fit(seed) for seed in range(8)]


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_eight_threads_fit_at_once(container, backend):
    expected = [fit(seed, backend, container) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for coef, other in zip(pool.map(fit, range(8), [backend] * 8, [container] * 8), expected, strict=True):
            assert_array_equal(coef, other)


def test_eight_threads_predict_with_one_model(backend):
    clf = make(backend=backend).fit(X, Y)
    expected = clf.predict_proba(X)
    with ThreadPoolExecutor(8) as pool:
        for probabilities in pool.map(clf.predict_proba, [X] * 16):
            assert_array_equal(probabilities, expected)


@pytest.mark.parametrize("how", ["loky", "threading", "multiprocessing"])
def test_joblib(how, backend):
    """multiprocessing forks a process in which OpenMP's threads have run; after OpenCL a fork is an error (test_opencl.py)."""
    if backend == "opencl" and how == "multiprocessing":
        backend = "openmp"
    coefs = joblib.Parallel(n_jobs=2, backend=how)(joblib.delayed(fit)(seed, backend) for seed in range(4))
    for seed, coef in enumerate(coefs):
        assert_array_equal(coef, fit(seed, backend))


# X, Y and make as above, for a process of its own.
SETUP = """
    import numpy as np
    from skdl import SoftmaxRegressionClassifier
    from skdl.openmp import _threads
    X = np.random.default_rng(0).integers(0, 255, (1500, 784), dtype=np.uint8)
    Y = np.arange(1500) % 10
    def make(**params):
        return SoftmaxRegressionClassifier(max_iter=2, random_state=0, **params)
"""


def test_more_threads_than_cores(alone):
    """Where there were eight threads on one core, or on as many as there are: the barrier lets them take turns."""
    program = """
        import os
        _threads.available_cores = lambda: 8
        assert _threads.max_threads(None) == _threads.max_threads(8) == 8
        print(make(n_jobs=8).fit(X, Y).coef_.tobytes().hex())
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        print(make(n_jobs=8).fit(X, Y).coef_.tobytes().hex())
    """
    lines = run(SETUP, program, OMP_NUM_THREADS="8").stdout.splitlines()
    assert lines == 2 * [alone[0].tobytes().hex()]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_one_core_is_one_thread():
    """As under taskset."""
    program = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        assert [_threads.max_threads(n) for n in (None, -1, -5, 1, 8)] == [1] * 5
        before = len(os.listdir("/proc/self/task"))
        make(n_jobs=8).fit(X, Y)
        print(len(os.listdir("/proc/self/task")) - before)
    """
    assert run(SETUP, program, OMP_NUM_THREADS="8", OPENBLAS_NUM_THREADS="1").stdout == "0\n"


def test_limits_of_threads(monkeypatch):
    """OMP_NUM_THREADS and threadpoolctl hold, affinity, quotas and joblib's limits too."""
    monkeypatch.setattr(_kernels, "max_threads", lambda: 6)
    for cores, expected in ((3, [3, 3, 2, 1, 1, 1, 3]), (64, [6, 6, 5, 4, 1, 1, 8])):
        monkeypatch.setattr(_threads, "available_cores", lambda cores=cores: cores)
        assert [_threads.max_threads(n) for n in (None, -1, -2, -3, -9, 1, 8)] == expected


@pytest.mark.parametrize("type_", [np.int8, np.uint8, np.int64])
def test_threads_are_counted_in_python(type_):
    """Sizes of scratch are products of their number, in which NumPy's small integers would overflow."""
    assert type(_threads.max_threads(type_(2))) is int
    clf = make(n_jobs=type_(2)).fit(X, Y)
    assert_array_equal(clf.predict(X), make().fit(X, Y).predict(X))


def test_cores_are_those_of_joblib():
    """Which knows of affinity, cgroup quotas and LOKY_MAX_CPU_COUNT."""
    assert run(SETUP, "print(_threads.available_cores())", LOKY_MAX_CPU_COUNT="1").stdout == "1\n"


@pytest.mark.skipif(not _kernels.OPENMP, reason="built without OpenMP: nothing to limit")
@pytest.mark.parametrize("limit", [1, 2])
def test_threadpool_limits(limit, alone):
    with threadpool_limits(limit):
        assert _kernels.max_threads() == limit
        assert _threads.max_threads(None) <= limit
        assert_array_equal(make(n_jobs=None).fit(X, Y).coef_, alone[0])


@pytest.mark.parametrize("order", ["import {0}, skdl", "import skdl, {0}"])
@pytest.mark.parametrize("library", ["torch", "xgboost", "lightgbm"])
def test_import_order(library, order, alone):
    """Libraries that bring an OpenMP of their own, before and after skdl."""
    pytest.importorskip(library)
    done = run(order.format(library), SETUP, "print(make().fit(X, Y).coef_.tobytes().hex())")
    assert done.stdout.strip() == alone[0].tobytes().hex()


BLAS = """
    import json
    from concurrent.futures import ThreadPoolExecutor
    import numpy as np
    from sklearn.datasets import make_classification
    from threadpoolctl import threadpool_info
    from skdl import SoftmaxRegressionClassifier
    def blas_threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="BLAS has one thread on one core")
def test_fits_at_once_leave_the_threads_of_blas_alone():
    """A limit on them is a state of the process: what one fit saves and restores, another has changed."""
    program = """
        X, y = np.random.default_rng(0).normal(size=(600, 2000)).astype("f4"), np.arange(600) % 3
        fit = SoftmaxRegressionClassifier(n_jobs=1, max_iter=1).fit
        before = blas_threads()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: fit(X, y) and None, range(40)))
        print(json.dumps([before, blas_threads()]))
    """
    before, after = json.loads(run(BLAS, program, OPENBLAS_NUM_THREADS="2").stdout)
    assert before == after
    assert 2 in before


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="BLAS has one thread on one core")
@pytest.mark.parametrize("step", ["pose", "solve"])
def test_fits_of_one_estimator_at_once_leave_one_model(step, monkeypatch):
    """One that waits, once its data are checked or its plan is made, while another one goes from beginning to end."""
    clf, waits, other_is_done = make(), Event(), Event()
    go_on = getattr(_classifier, step)

    def late(*args, **kwargs):
        if (args[1].shape[1] if step == "pose" else args[0].n_features) == 3:
            waits.set()
            assert other_is_done.wait(60)
        return go_on(*args, **kwargs)

    monkeypatch.setattr(_classifier, step, late)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(clf.fit, X[:30, :3], Y[:30])
        assert waits.wait(60)
        clf.fit(X[:40, :5], Y[:40] % 2)
        other_is_done.set()
        first.result()
    assert (clf.n_features_in_, clf.coef_.shape, len(clf.classes_)) == (3, (10, 3), 10)
    assert clf.predict(X[:5, :3]).shape == (5,)


def test_no_bit_depends_on_the_threads_of_blas():
    program = """
        X, y = make_classification(100, 20_000, n_informative=50, random_state=0)
        model = SoftmaxRegressionClassifier(max_iter=3, random_state=0).fit(X + 5, y)
        model.partial_fit(X, y)
        print(json.dumps([model.lr_, model.intercept_.tobytes().hex(), model.coef_.sum(), blas_threads()]))
    """
    one, two = (json.loads(run(BLAS, program, OPENBLAS_NUM_THREADS=n).stdout) for n in ("1", "2"))
    assert one[:3] == two[:3]
    assert one[3] != two[3]


# ---- failures


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_call_that_fails_draws_no_random_number(method):
    """Or the next fit would not give the bits that it would have given."""
    bad = X.astype("f4")
    bad[5, 5] = np.nan
    state = np.random.RandomState(0)
    clf = make(random_state=state).partial_fit(X, Y, classes=range(10))
    before = state.get_state()[2]
    with pytest.raises(ValueError, match="NaN"):
        getattr(clf, method)(bad, Y)
    assert state.get_state()[2] == before


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_each_allocation_may_fail(method, container, monkeypatch):
    data = container(X.astype("f4"))
    clf, undisturbed = make().partial_fit(data, Y, classes=range(10)), make().partial_fit(data, Y, classes=range(10))
    state, allocate = fitted_state(clf), _memory.zeros
    for failing in range(100):
        countdown = iter([True] * failing)

        def zeros(*args, countdown=countdown):
            if not next(countdown, False):
                raise MemoryError("no more")
            return allocate(*args)

        monkeypatch.setattr(_memory, "zeros", zeros)
        try:
            getattr(clf, method)(data, Y)
        except MemoryError:
            assert fitted_state(clf) == state
        else:
            break
    assert failing > 4
    monkeypatch.undo()
    assert_array_equal(clf.coef_, getattr(undisturbed, method)(data, Y).coef_)
    assert_array_equal(clf.partial_fit(data, Y).coef_, undisturbed.partial_fit(data, Y).coef_)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")
def test_memory_runs_out():
    """A real limit of the address space: MemoryError, the model as it was, and a process that goes on."""
    program = """
        import resource
        make(n_jobs=1).fit(X, Y).predict_proba(X)  # libraries allocate for themselves
        def used():
            return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        wide = np.zeros((64, 400_000), dtype=np.uint8)
        wide[:, 0] = labels = np.arange(64) % 10
        clf = make(n_jobs=1).fit(wide[:, :100], labels)
        coef, failed, unlimited = clf.coef_.copy(), 0, resource.getrlimit(resource.RLIMIT_AS)
        for megabytes in (*range(0, 200, 10), 2000):
            resource.setrlimit(resource.RLIMIT_AS, (used() + (megabytes << 20), unlimited[1]))
            try:
                clf.fit(wide, labels)
            except MemoryError:
                failed += 1
                assert (clf.coef_ == coef).all() and clf.n_features_in_ == 100
            resource.setrlimit(resource.RLIMIT_AS, unlimited)
        assert clf.coef_.shape == (10, 400_000)
        assert (clf.coef_ == make(n_jobs=1).fit(wide, labels).coef_).all()
        print(failed)
    """
    assert int(run(SETUP, program, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1").stdout) > 3


class Stops(Callback):
    """A callback that ends the first epoch with an exception."""

    def __init__(self, exception):
        self.exception = exception

    def on_fit_task_end(self, estimator, context, **_):
        raise self.exception


@needs_callbacks
@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, MemoryError, RecursionError])
def test_what_ends_a_fit_leaves_no_trace(exception, backend):
    clf = make(backend=backend).fit(X[:500], Y[:500])
    state = fitted_state(clf)
    with pytest.raises(exception):
        clf.set_callbacks(Stops(exception())).fit(X, Y)
    assert fitted_state(clf) == state
    assert_array_equal(clf.set_callbacks().fit(X, Y).coef_, make(backend=backend).fit(X, Y).coef_)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_threads_that_lose_their_cores_are_given_up():
    """Where eight threads have one core, a fit goes on with one of them, and later they are tried again; the bits stay.

    What becomes of that try is up to whoever else wants the core.
    """
    done = run(
        """
        import os, time
        import numpy as np
        from skdl import _kernels, SoftmaxRegressionClassifier
        from skdl.openmp import _threads
        _threads.available_cores = lambda: 64
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        X, y = np.random.default_rng(0).standard_normal((2000, 300), dtype="f4"), np.arange(2000) % 10
        fit = lambda n_jobs: SoftmaxRegressionClassifier(max_iter=2, batch_size=1000, n_jobs=n_jobs, random_state=0).fit(X, y)
        expected, same = fit(1).coef_, True
        before = now = _kernels.threads_now(8)
        end = time.monotonic() + 60
        while now == 8 and time.monotonic() < end:
            same &= bool((fit(8).coef_ == expected).all())
            now = _kernels.threads_now(8)
        after_fits = now
        while now == 1 and time.monotonic() < end:
            time.sleep(0.01)
            now = _kernels.threads_now(8)
        same &= bool((fit(8).coef_ == expected).all())
        print(same, before, after_fits, now)
        """,
    )
    assert done.stdout == "True 8 1 8\n"


@needs_callbacks
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_nobody_who_looks_on_changes_a_model(container, monkeypatch):
    """Epochs run together where nobody does."""
    monkeypatch.setattr(_sgd, "EPOCHS_TOGETHER", 10)
    data, y = load_iris(return_X_y=True)
    X, params = container(data * (data > 1.5)), {"lr": 0.1} if container is sparse.csr_array else {}
    plain = _helpers.make(max_iter="auto", **params).fit(X, y)
    _helpers.same_model(plain, _helpers.make(max_iter="auto", **params).fit(X, y, X_val=X, y_val=y))
    watched = _helpers.make(max_iter="auto", **params).set_callbacks(Callback())
    _helpers.same_model(plain, watched.fit(X, y))
