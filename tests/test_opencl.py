"""What only the OpenCL backend has: devices, drivers that fail, data larger than a buffer, processes and threads."""

import gc
import pickle
import re
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.resources import files

import _helpers
import numpy as np
import pyopencl as cl
import pytest
from _helpers import Problem, same_model
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

import skdl
from skdl._convergence import Monitor
from skdl.opencl import __main__, _device, _layout, _memory, _program

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS = DIGITS.astype(np.float32)


SETUP = """
    import numpy as np
    from sklearn.datasets import load_digits
    from skdl import SoftmaxRegressionClassifier
    X, y = load_digits(return_X_y=True)
    model = SoftmaxRegressionClassifier(backend="opencl", max_iter=3, random_state=0)
"""

make = partial(_helpers.make, backend="opencl")
run = partial(_helpers.run, SETUP, check=False, timeout=60)  # some of these programs are to fail


# ---- devices


@pytest.fixture
def no_memory_of_devices():
    """What a process remembers about devices is forgotten, before and after."""
    caches = _device._choose, _device.defect
    for each in caches:
        each.cache_clear()
    yield
    for each in caches:
        each.cache_clear()


@pytest.fixture
def second_driver(monkeypatch, no_memory_of_devices):
    """Two platforms, the first of which is listed and cannot build a program."""
    (_, device), *_ = _device.all_devices()

    class OtherPlatform:
        name = "Elsewhere"  # no part of the real one's names, whatever those are

    class Broken:
        name, platform, type, version = "Broken One", OtherPlatform, cl.device_type.GPU, "OpenCL 1.2"

    broken = Broken()
    monkeypatch.setattr(_device, "all_devices", lambda: [("0:0", broken), ("1:0", device)])
    return device


def test_a_broken_device_is_not_chosen_unasked(second_driver, monkeypatch):
    monkeypatch.delenv("PYOPENCL_CTX", raising=False)
    assert _device.choose() == second_driver
    for asked in ("0:0", "broken"):
        with pytest.raises(RuntimeError, match=rf"device='{asked}'.*'Broken One' does not work: .+"):
            make(device=asked).fit(DIGITS, LABELS)


def test_a_device_is_named_by_indices_or_by_a_part_of_a_name(second_driver, monkeypatch):
    name, platform = second_driver.name.strip(), second_driver.platform.name
    for spec in ("1:0", f"1:{name[:5]}", f"{platform[:6]}:{name[-5:].upper()}", name[2:8].lower()):
        assert _device.choose(spec) == second_driver
    assert [_device._is_meant("1", indices, second_driver) for indices in ("0:1", "1:0")] == [False, True]
    monkeypatch.setenv("PYOPENCL_CTX", "1:0")
    assert _device.choose() == second_driver
    monkeypatch.setenv("PYOPENCL_CTX", "7:0")
    assert _device.choose("1:0") == second_driver
    with pytest.raises(ValueError, match=r"PYOPENCL_CTX='7:0' is not an OpenCL device: .*0:0 'Broken One'"):
        _device.choose()


@pytest.mark.parametrize("device", ["9:0", "0:9", "abacus", ""])
def test_an_unknown_device_gets_a_list_of_those_there_are(device):
    with pytest.raises(ValueError, match=rf"device='{device}' is not an OpenCL device: .* there are 0:0 '"):
        make(device=device).fit(DIGITS, LABELS)


def test_the_reason_of_a_build_that_fails_is_told(no_memory_of_devices, monkeypatch):
    monkeypatch.setattr(_device, "_PROBE", "__kernel void probe(__global float *x) { undeclared(x); }")
    with pytest.raises(RuntimeError, match=r"does not work: .*undeclared"):
        _device.choose("0:0")
    monkeypatch.delenv("PYOPENCL_CTX", raising=False)
    with pytest.raises(RuntimeError, match=r"no OpenCL device that works: there are 0:0 .*python -m skdl\.opencl"):
        make().fit(DIGITS, LABELS)


def test_a_device_that_computes_wrongly_does_not_work(no_memory_of_devices, monkeypatch):
    monkeypatch.setattr(_device, "_PROBE", _device._PROBE.replace("+=", "-="))
    with pytest.raises(RuntimeError, match="does not work: a small program gave a wrong answer"):
        _device.choose("0:0")


def test_no_device_at_all(tmp_path):
    done = run("model.fit(X, y)", OCL_ICD_VENDORS=str(tmp_path), OPENCL_VENDOR_PATH=str(tmp_path), PYOPENCL_CTX="")
    assert "RuntimeError: backend='opencl' found no OpenCL device: install a driver" in done.stderr


def test_a_fitted_model_predicts_without_pyopencl(tmp_path):
    """Where it is deployed, say. A fit there is an error, as below."""
    model = make(device="0:0").fit(DIGITS, LABELS)
    (tmp_path / "model").write_bytes(pickle.dumps(model))
    program = f"""
        import pickle, sys
        sys.modules["pyopencl"] = None
        with open({str(tmp_path / "model")!r}, "rb") as file:
            print(pickle.load(file).score(X.astype("f4"), y))
    """
    assert float(run(program).stdout) == model.score(DIGITS, LABELS)


@pytest.mark.parametrize("call", ["fit(X, y)", "partial_fit(X, y, classes=range(10))"])
def test_without_pyopencl(call):
    done = run(f"import sys; sys.modules['pyopencl'] = None; model.{call}")
    assert "ImportError: backend='opencl' needs PyOpenCL: pip install 'skdl[opencl]'." in done.stderr


def test_show_versions(capsys, monkeypatch):
    (indices, device), *_ = _device.all_devices()
    skdl.show_versions()
    assert re.search(rf"^OpenCL +{indices} {re.escape(device.name.strip())}", capsys.readouterr().out, re.MULTILINE)
    monkeypatch.setattr(_device, "all_devices", list)
    skdl.show_versions()
    assert re.search("^OpenCL +no: PyOpenCL finds no device$", capsys.readouterr().out, re.MULTILINE)
    shown = run("import sys, skdl; sys.modules['pyopencl'] = None; skdl.show_versions()").stdout
    assert re.search(
        "^OpenCL +no: backend='opencl' needs PyOpenCL: pip install 'skdl\\[opencl\\]'.$", shown, re.MULTILINE
    )


def test_the_program_without_pyopencl():
    program = "import sys, runpy; sys.modules['pyopencl'] = None; runpy.run_module('skdl.opencl', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "backend='opencl' needs PyOpenCL: pip install 'skdl[opencl]'.\n"


def test_a_trial_says_whether_a_device_works(second_driver, monkeypatch):
    monkeypatch.setattr(__main__, "N_ROWS", 500)
    assert re.fullmatch(
        r"does not work: device='0:0': OpenCL device 'Broken One' does not work: .+", __main__.trial("0:0")
    )
    assert re.match(r"works: \d+\.\d+ s for 5 epochs of 500 x 784 bytes", __main__.trial("1:0"))
    predictions = iter([np.zeros(500), np.ones(500), np.ones(500)])
    monkeypatch.setattr(__main__, "timed_fit", lambda X, y, **params: (next(predictions), 0.0))
    assert "trains another model" in __main__.trial("1:0")


def test_a_driver_that_ends_the_process_is_listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", "false")
    __main__.main([])
    assert re.search(r"^device='0:0': .*\n    does not work: its driver ended the process: ", capsys.readouterr().out)


def test_the_list_as_a_program():
    done = subprocess.run([sys.executable, "-m", "skdl.opencl"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^device='0:0': .*\n    works: ", done.stdout, re.MULTILINE)


# ---- precision


def test_a_device_without_double_precision_says_so_once(monkeypatch, recwarn):
    monkeypatch.setattr(_device, "has_double", lambda device: False)
    X = DIGITS.astype(np.float64)
    single = make(early_stopping=True).fit(X, LABELS)
    told = [str(w.message) for w in recwarn if "double precision" in str(w.message)]
    assert len(told) == 1 and "computing in float32" in told[0]
    assert single.coef_.dtype == single.decision_function(X).dtype == np.float32
    for container in (np.asarray, sparse.csr_array):
        with pytest.warns(UserWarning, match="double precision"):
            model = make(lr=1e-3).fit(container(X), LABELS)
        same_model(model, make(lr=1e-3).fit(container(DIGITS), LABELS))


# ---- memory


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint8"])
def test_data_larger_than_a_buffer(dtype, monkeypatch):
    """Streamed block by block, it gives the same bits; where minibatches are chunked, too."""
    X = DIGITS.astype(dtype)
    whole = make(batch_size=100).fit(X, LABELS)
    monkeypatch.setattr(_memory, "LARGEST_X", 0)
    for staging in (1, 50_000):
        monkeypatch.setattr(_memory, "STAGING_BYTES", staging)
        streamed = make(batch_size=100).fit(X, LABELS)
        same_model(streamed, whole)
        assert_array_equal(streamed.predict_proba(X), whole.predict_proba(X))


def test_statistics_of_data_larger_than_a_buffer(monkeypatch):
    p = Problem(500, 37, 3, backend="opencl", storage="float32")
    whole = p.backend().statistics(p.block, p.order[:400])
    monkeypatch.setattr(_memory, "LARGEST_X", 0)
    monkeypatch.setattr(_memory, "STAGING_BYTES", 100 * 4 * 37)
    streamed = p.backend().statistics(p.block, p.order[:400])
    for got, expected in zip(streamed, whole, strict=True):
        # sums of 64 products of order 1 and more, in float32
        assert_allclose(got, expected, rtol=0, atol=64 * np.finfo(np.float32).eps * abs(p.X).max() ** 2)


def test_no_block_is_written_where_the_device_still_reads(monkeypatch):
    """The host waits for what was enqueued on a block before it gathers the next but one into the same memory."""
    log, marker, take = [], cl.enqueue_marker, np.take

    class Marker:
        def __init__(self, queue):
            self.number, self.event = sum(step == "marker" for step, _ in log), marker(queue)
            log.append(("marker", self.number))

        def wait(self):
            self.event.wait()
            log.append(("free", self.number))

    def gather(*args, **kwargs):
        log.append(("gather", sum(step == "gather" for step, _ in log)))
        return take(*args, **kwargs)

    monkeypatch.setattr(_memory, "LARGEST_X", 0)
    monkeypatch.setattr(_memory, "STAGING_BYTES", 100 * 4 * 64)
    monkeypatch.setattr(Monitor, "advice", lambda *args, **kwargs: None)  # which looks at all rows again
    model = make(lr=1e-3, alpha=0, max_iter=1, batch_size=100)
    monkeypatch.setattr(cl, "enqueue_marker", Marker)
    monkeypatch.setattr(np, "take", gather)
    model.fit(DIGITS, LABELS)
    gathered = [number for step, number in log if step == "gather"]
    assert gathered == list(range(18))
    for number in gathered[2:]:
        assert log.index(("free", number - 2)) < log.index(("gather", number))


@pytest.mark.parametrize("held_out", [True, False])
def test_a_gpu_gets_x_once(held_out, monkeypatch):
    """In a whole fit: the rows that are held out lie in the same X, and X_val is placed once as well."""
    monkeypatch.setattr(_device, "is_cpu", lambda device: False)
    sent, Buffer, enqueue_copy = [], cl.Buffer, cl.enqueue_copy

    def buffer(*args, hostbuf=None, **kwargs):
        sent.append(0 if hostbuf is None else hostbuf.nbytes)
        return Buffer(*args, hostbuf=hostbuf, **kwargs)

    def copy(queue, dest, src, **kwargs):
        sent.append(src.nbytes if isinstance(dest, Buffer) else 0)
        return enqueue_copy(queue, dest, src, **kwargs)

    monkeypatch.setattr(cl, "Buffer", buffer)
    monkeypatch.setattr(cl, "enqueue_copy", copy)
    X, X_val = DIGITS[:1000], DIGITS[1000:]
    validation = {} if held_out else {"X_val": X_val, "y_val": LABELS[1000:]}
    make(early_stopping=held_out, max_iter=4).fit(X, LABELS[:1000], **validation)
    assert sent.count(X.nbytes) == 1
    assert sent.count(X_val.nbytes) == (not held_out)
    assert all(n_bytes < X_val.nbytes for n_bytes in sent if n_bytes not in (X.nbytes, X_val.nbytes))


def test_what_is_placed_counts_as_memory(monkeypatch):
    """As long as anyone holds it."""
    monkeypatch.setattr(_device, "is_cpu", lambda device: False)
    memory = _memory.Memory(_device.choose())
    X, X_val = DIGITS[:1000], DIGITS[1000:]
    held = [memory.place(X), memory.place(X_val), memory.place(X)]
    assert held[0] is held[2] and memory.allocated == X.nbytes + X_val.nbytes
    del held[1]
    assert memory.allocated == X.nbytes


@pytest.mark.parametrize("csr", [False, True])
def test_what_a_training_reserves_it_gives_back(csr):
    """As soon as it is dropped: while a fit goes on the way to its optimum is measured by short ones."""
    p = Problem(60, 40, 10, backend="opencl", storage="float32", csr=csr)
    backend = p.backend()
    memory = backend.memory
    before = memory.allocated

    def started(n_models):
        training = backend.start(None, None, mean=None, scale=None, l1=None, l2=None, momentum=np.zeros(n_models),
                                 fit_intercept=True, batch_size=20)  # fmt: skip
        training.run(p.block, p.order[np.newaxis], np.full((n_models, 1, 3), 0.1))
        return training

    gc.disable()
    try:
        one = started(1)
        of_one = memory.allocated - before
        several = started(5)
        assert of_one > 0 and memory.allocated > before + 3 * of_one
        del several
        assert memory.allocated == before + of_one
        predict = backend.predictor(p.X)
        predict(one.parameters())
        assert memory.allocated > before + of_one
        del one, predict
        assert memory.allocated == before
    finally:
        gc.enable()


def test_csr_larger_than_a_buffer(monkeypatch):
    X = sparse.csr_array(DIGITS)
    whole = make(batch_size=100).fit(X, LABELS)
    monkeypatch.setattr(_memory, "STAGING_BYTES", 100_000)
    same_model(make(batch_size=100).fit(X, LABELS), whole)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("n", "d", "n_logits", "batch_size"), [(90, 100, 10, 64), (64, 40, 17, 64), (40, 20, 1, 33), (50, 30, 150, 50)]
)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_chunks_of_minibatches(n, d, n_logits, batch_size, momentum, kind, stream, monkeypatch):
    """The way of large minibatches, chunk by chunk, gives the twin's result."""
    monkeypatch.setattr(_layout, "FUSED_LOGITS", 0)
    monkeypatch.setattr(_layout, "CHUNK_BYTES", {kind: 10 * 8 * 112})  # ten rows of the first
    monkeypatch.setattr(_device, "is_cpu", lambda device: kind == "cpu")
    if stream:
        monkeypatch.setattr(_memory, "LARGEST_X", 0)
        monkeypatch.setattr(_memory, "STAGING_BYTES", 30 * 8 * d)
    p = Problem(n, d, n_logits, backend="opencl")
    step_sizes = np.full(-(-n // batch_size), 0.3)
    settings = {
        "momentum": momentum,
        "l1": np.full(d, 0.01),
        "l2": np.full(d, 0.01),
        "coordinates": True,
        "n_epochs": 2,
    }
    loss, W, b, _ = p.run_twin(step_sizes, batch_size, **settings)
    got_loss, got_W, got_b, _ = p.run(step_sizes, batch_size, **settings)
    assert got_loss == pytest.approx(loss, rel=1e-11)
    assert_allclose(got_W, W, rtol=1e-9, atol=1e-12)
    assert_allclose(got_b, b, rtol=1e-9, atol=1e-12)


def test_a_linear_probe(monkeypatch):
    """1000 classes of float16: the same model as the OpenMP backend's, to float32's rounding."""
    rng = np.random.default_rng(0)
    y = np.arange(4000) % 1000
    X = (rng.normal(size=(1000, 96))[y] + 0.5 * rng.normal(size=(4000, 96))).astype(np.float16)
    ours, theirs = (make(backend=name, batch_size=500, max_iter=2).fit(X, y) for name in ("opencl", "openmp"))
    assert ours.loss_curve_ == pytest.approx(theirs.loss_curve_, rel=1e-5)
    # 16 steps whose logits are sums of 96 products, each rounded to 6e-8 of its order
    scale = abs(theirs.coef_).max()
    assert_allclose(ours.coef_, theirs.coef_, atol=16 * 96 * np.finfo(np.float32).eps * scale)
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y), abs=1e-3)


def test_what_cannot_fit_is_refused_before_anything_is_allocated(monkeypatch):
    model = make().fit(sparse.csr_array(DIGITS), LABELS)
    before = dict(vars(model))
    n_features = 10**11 // 10
    X = sparse.csr_array((np.ones(10), (np.arange(10), np.arange(10))), shape=(10, n_features))
    monkeypatch.setattr(cl, "Buffer", None)
    too_little = (
        r"too little memory: \d+\.\d MB needed in all, of \d+\.\d MB; the largest buffer \(coefficients\) needs"
    )
    with pytest.raises(MemoryError, match=too_little):
        model.fit(X, np.arange(10))
    assert vars(model) == before


@pytest.mark.parametrize(
    ("raised", "error", "words"),
    [(cl.MemoryError, MemoryError, "is out of memory: enqueue"), (cl.RuntimeError, RuntimeError, "failed: enqueue")],
)
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_a_device_that_fails_on_the_way(raised, error, words, container, monkeypatch):
    X = container(DIGITS)
    model = make().fit(X, LABELS)
    before = dict(vars(model))
    enqueue, calls = cl.enqueue_nd_range_kernel, []

    def fail(*args):
        calls.append(args)
        if len(calls) > 20:
            raise raised("enqueue")
        return enqueue(*args)

    with monkeypatch.context() as patched:
        patched.setattr(cl, "enqueue_nd_range_kernel", fail)
        with pytest.raises(error, match=words) as caught:
            model.fit(X, LABELS)
        assert isinstance(caught.value.__cause__, raised)
    assert vars(model) == before
    same_model(model.fit(X, LABELS), make().fit(X, LABELS))


def test_an_error_of_the_driver_itself(monkeypatch):
    """A buffer of more than a device allows, where nobody looked before."""
    monkeypatch.setattr(_memory.Memory, "check", lambda self, **n_bytes: None)
    memory = _memory.Memory(_device.choose())
    with (
        pytest.raises((MemoryError, RuntimeError), match=r"OpenCL device '.*BUFFER_SIZE|out of memory"),
        memory.errors(),
    ):
        memory.scratch(memory, np.dtype(np.float32), too_much=(1 << 50,))


def test_the_rows_to_train_on_are_placed_first(monkeypatch):
    """They have the first claim to a device's memory."""
    placed, place = [], _memory.Memory.place
    monkeypatch.setattr(_memory.Memory, "place", lambda self, X: placed.append(len(X)) or place(self, X))
    make().fit(DIGITS[:900], LABELS[:900], X_val=DIGITS[1000:], y_val=LABELS[1000:])
    assert placed[0] == 900
    assert placed.count(797) == 1


@pytest.mark.parametrize("method", ["fit", "predict"])
def test_nothing_keeps_X_alive(method):
    """Not even until the garbage collector comes: on a GPU it would be device memory."""
    model = make(early_stopping=True).fit(DIGITS, LABELS)
    X = DIGITS.copy()
    died = weakref.ref(X)
    gc.disable()
    try:
        model.fit(X, LABELS) if method == "fit" else model.predict(X)
        del X
        assert died() is None
    finally:
        gc.enable()


# ---- programs, processes, threads


def test_a_model_of_a_device_predicts_without_it():
    model = make(device="0:0").fit(DIGITS, LABELS)
    expected = model.predict(DIGITS)
    assert_array_equal(model.set_params(backend="openmp").predict(DIGITS), expected)


def test_a_program_is_built_once(monkeypatch):
    make().fit(DIGITS, LABELS).predict(DIGITS)
    monkeypatch.setattr(cl, "Program", None)
    make().fit(DIGITS, LABELS).predict(DIGITS)


@pytest.mark.parametrize("options", [[], ["-DDOUBLE", "-DSPARSE"]])
def test_the_kernels_compile_by_themselves(options):
    """Every size and type has a default."""
    source = (files("skdl.opencl") / "softmax.cl").read_text()
    cl.Program(_device.context_of(_device.choose()), source).build(options)


def test_the_same_bits_again():
    for X in (DIGITS, sparse.csr_array(DIGITS)):
        same_model(make().fit(X, LABELS), make().fit(X, LABELS))


def test_grid_search_in_processes():
    """Workers have contexts of their own, and models come back as arrays."""
    grid = {"batch_size": [32, 256], "lr": ["auto", 1e-3]}
    alone, parallel = (GridSearchCV(make(), grid, cv=2, n_jobs=n_jobs).fit(DIGITS, LABELS) for n_jobs in (1, 2))
    assert_array_equal(alone.cv_results_["mean_test_score"], parallel.cv_results_["mean_test_score"])
    same_model(alone.best_estimator_, parallel.best_estimator_)


def test_threads_that_fit_at_once():
    alone = make(max_iter=20).fit(DIGITS, LABELS)
    with ThreadPoolExecutor(4) as pool:
        for model in pool.map(lambda _: make(max_iter=20).fit(DIGITS, LABELS), range(8)):
            same_model(model, alone)


def test_a_forked_child_is_told():
    done = run("""
        import os
        model.fit(X, y)
        if os.fork() == 0:
            try:
                model.fit(X, y)
            except RuntimeError as error:
                print(error, flush=True)
            os._exit(0)
        os.wait()
    """)
    assert "forked from one that had used OpenCL" in done.stdout, done.stderr


def test_a_child_forked_before_works():
    done = run("""
        import os
        from skdl.opencl import _backend  # imported, not used
        if os.fork() == 0:
            print(model.fit(X, y).score(X, y) > 0.8, flush=True)
            os._exit(0)
        os.wait()
    """)
    assert done.stdout == "True\n", done.stderr


def test_interrupt():
    """Control-C ends a long fit soon, and the model stays as it was."""
    program = """
        import os, signal, threading, time
        from skdl.opencl import _backend
        X = np.tile(X.astype(np.float32), (100, 10))
        y = np.tile(y, 100)
        model.fit(X, y)
        before = model.coef_
        sent = []

        def interrupt():
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        threading.Timer(0.3, interrupt).start()
        try:
            model.set_params(max_iter=10**6).fit(X, y)
        except KeyboardInterrupt:
            print(model.coef_ is before, time.perf_counter() - sent[0])
    """
    unchanged, seconds = run(program).stdout.split()
    assert unchanged == "True" and float(seconds) < 0.5


def test_work_ahead_is_bounded(monkeypatch):
    """However long an epoch, few launches are on their way: the host hears an interrupt between them."""
    monkeypatch.setattr(_program, "WINDOW_LAUNCHES", 4)
    unfinished, most = [], 0
    enqueue = cl.enqueue_nd_range_kernel

    def watch(*args):
        nonlocal most, unfinished
        unfinished = [e for e in unfinished if e.command_execution_status != cl.command_execution_status.COMPLETE]
        unfinished.append(enqueue(*args))
        most = max(most, len(unfinished))
        return unfinished[-1]

    monkeypatch.setattr(cl, "enqueue_nd_range_kernel", watch)
    make(batch_size=10, max_iter=1).fit(DIGITS, LABELS)
    assert 1 <= most <= 8
