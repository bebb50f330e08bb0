"""The CPU kernels: what is computed in which order and by which thread.

The kernels check nothing but types and contiguity (CSR is checked before, by `find_csr_defect`), allocate nothing that grows
with the data, and hold no GIL; `skdl.openmp` prepares their arguments. The inner loops are the micro-kernels of
`_microkernels_isa_real.h`, in one version for each instruction set and for float and double: `real` below is the one in
which a fit computes. Data stay in their storage type (`STORAGE`) and are converted in registers.

How threads share an epoch. Dense data: a thread owns blocks of columns. For each chunk of a minibatch (usually the
whole of it) it

1. packs its columns of the rows and multiplies them into partial logits;            -- wait for all --
2. makes residuals of some of the rows, all outputs (softmax);                       -- wait for all --
3. multiplies the residuals with its columns and updates its columns of W in place.

CSR data: a thread owns blocks of features, each in a piece of the outputs. In 1 it brings its parameters of a minibatch's
features up to date, and in 3 it adds to their velocity; rows are shared in 2. Each sum runs in one order that depends on the
shapes and, for CSR, on the data alone, so every number of threads gives the same bits.

Threads wait for each other several times a minibatch, and where others hold a core, one that waits for its turn there makes
all wait for milliseconds. So thread 0 looks whether the waits cost more than the threads bring (`Pace`); if they do, it goes
on alone for a while and then tries again. Where an epoch or a prediction takes long, it also looks ten times a second whether
the user wants to stop (Ctrl-C).
"""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cython.parallel cimport parallel
from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memset

import numpy as np

ctypedef fused real:
    float
    double

ctypedef fused index:
    int32_t
    int64_t

cdef extern from "Python.h":
    int run_signal_handlers "PyErr_CheckSignals"()

cdef extern from "_microkernels.h" nogil:
    const int SKDL_OPENMP
    const int SKDL_FLOAT64, SKDL_FLOAT32, SKDL_FLOAT16, SKDL_UINT8, SKDL_INT8
    const int SKDL_LOGITS, SKDL_PROBABILITIES, SKDL_LOG_PROBABILITIES, SKDL_CLASSES, SKDL_LOSSES
    const int64_t SKDL_PAD
    int omp_get_thread_num()
    int omp_get_num_threads()
    int omp_get_max_threads()
    double skdl_seconds()

    ctypedef struct skdl_data:
        const char* X
        const char* indices
        const char* indptr
        const int32_t* y
        const void* weight
        int64_t n_features
        int storage, index64

    ctypedef struct skdl_model:
        void* coef
        void* velocity
        void* intercept
        const void* mean
        const void* scale
        const void* l1
        const void* l2
        const double* momentum
        int64_t n_models, n_outputs, ld
        int fit_intercept

    ctypedef struct skdl_scratch:
        void* packed
        void* logits
        void* loss
        int64_t chunk, n_blocks
        const int64_t* block

    ctypedef struct skdl_lags:
        int64_t n_pieces
        const int64_t* piece
        void* feature
        int has_l1
        int64_t n_lanes
        const void* l1
        const void* l2
        const double* drift
        const double* decay
        const double* cumulative_lr

    ctypedef struct skdl_task:
        skdl_data data
        skdl_model model
        skdl_scratch scratch
        skdl_lags lags
        const int64_t* order
        int64_t n_order
        const int32_t* place
        const void* first_row
        void* extremes

    ctypedef struct skdl_fetch:
        pass

    ctypedef struct skdl_kernels:
        const char* name
        void (*plan_fetch)(const skdl_task*, skdl_fetch*, int64_t start, int64_t r0, int64_t r1, int64_t n_rows,
                           int64_t blk0, int64_t blk1, int64_t n_outputs) noexcept nogil
        void (*forward)(const skdl_task*, skdl_fetch*, int64_t start, int64_t r0, int64_t r1, int64_t n_rows,
                        int64_t blk) noexcept nogil
        void (*softmax)(const skdl_task*, int64_t start, int64_t r0, int64_t r1, int64_t n_rows,
                        double batch_scale) noexcept nogil
        void (*backward)(const skdl_task*, skdl_fetch*, int64_t n_rows, int64_t blk, int64_t c0, int64_t c1, int first,
                         int last, const double* lr) noexcept nogil
        void (*step_intercept)(const skdl_task*, int64_t n_rows, int first, int last, const double* lr) noexcept nogil
        double (*sum_loss)(const skdl_task*, int64_t n_rows, int64_t model) noexcept nogil
        int (*finish)(const skdl_task*, int output, int64_t start, int64_t n_rows, void* result) noexcept nogil
        void (*sparse_forward)(const skdl_task*, int64_t start, int64_t n_rows, int64_t blk, int64_t piece,
                               int64_t until) noexcept nogil
        void (*sparse_backward)(const skdl_task*, int64_t start, int64_t n_rows, int64_t blk, int64_t piece) noexcept nogil
        void (*finish_lagged)(const skdl_task*, int64_t j0, int64_t j1, int64_t piece, int64_t last) noexcept nogil
        void (*sparse_logits)(const skdl_task*, int64_t start, int64_t n_rows) noexcept nogil
        void (*statistics)(const skdl_task*, int64_t start, int64_t n_rows, int64_t blk, double* total) noexcept nogil
        void (*products)(const void* rows, int64_t n_rows, int64_t width, int64_t ld, const void* vectors, int64_t n,
                         double* out) noexcept nogil
        void (*transposed_products)(const void* rows, int64_t n_rows, int64_t ld, const void* vectors, int64_t n,
                                    double* out) noexcept nogil

    ctypedef struct skdl_barrier:
        int stop

    int64_t skdl_claim(int64_t*)
    const int SKDL_STOP, SKDL_LEAVE
    int skdl_wait(skdl_barrier*, int n_threads, double* waited)
    void skdl_ask(skdl_barrier*, int stop)
    int skdl_asked(const skdl_barrier*)
    int skdl_n_isas()
    const skdl_kernels* skdl_select_isa(int isa, int is_double)


STORAGE = {np.dtype(np.float64): SKDL_FLOAT64, np.dtype(np.float32): SKDL_FLOAT32, np.dtype(np.float16): SKDL_FLOAT16,
           np.dtype(np.uint8): SKDL_UINT8, np.dtype(np.bool_): SKDL_UINT8, np.dtype(np.int8): SKDL_INT8}
OUTPUTS = {"logits": SKDL_LOGITS, "probabilities": SKDL_PROBABILITIES, "log_probabilities": SKDL_LOG_PROBABILITIES,
           "classes": SKDL_CLASSES, "losses": SKDL_LOSSES}
PAD = SKDL_PAD
OPENMP = bool(SKDL_OPENMP)
INT32, INT64, FLOAT64 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.float64)


def max_threads():
    """Number of threads that OpenMP would use now (OMP_NUM_THREADS and threadpoolctl's limits)."""
    return omp_get_max_threads()


def instruction_sets():
    """Names of the instruction sets that this processor has kernels for, from the plainest to the widest."""
    return [skdl_select_isa(isa, 0).name.decode() for isa in range(skdl_n_isas())]


# ---- what the kernels work on

cdef const void* address(array, dtype, list kept, bint writable=False) except? NULL:
    """The address of a C-contiguous array of this type, which `kept` keeps alive; NULL for None."""
    cdef Py_buffer buffer
    if array is None:
        return NULL
    if array.dtype != dtype:
        raise TypeError(f"expected an array of {dtype}, got {array.dtype}")
    PyObject_GetBuffer(array, &buffer, PyBUF_C_CONTIGUOUS | (PyBUF_WRITABLE if writable else 0))  # an error, if it is not
    kept.append(array)
    PyBuffer_Release(&buffer)  # an array stays where it is for as long as it lives
    return buffer.buf


cdef class Data:
    """Rows to train on or to predict: dense, or CSR where there are indices and indptr."""

    cdef skdl_data c
    cdef list kept
    cdef object dtype

    def __init__(
        self,
        values,          # IN     (n_samples, n_features), a type of STORAGE; CSR: (nnz,) float32 or float64
        n_features,
        y=None,          # IN     (n_samples,) int32 class numbers
        weight=None,     # IN     (n_samples,) real, mean 1; None: all are 1
        indices=None,    # IN     (nnz,) int32 or int64
        indptr=None,     # IN     (n_samples * n_blocks + 1,) like indices: where each row begins in each block of features
    ):
        self.kept, self.dtype = [], None if weight is None else weight.dtype
        self.c.X = <const char*>address(values, values.dtype, self.kept)
        self.c.storage, self.c.n_features = STORAGE[values.dtype], n_features
        self.c.y = <const int32_t*>address(y, INT32, self.kept)
        self.c.weight = address(weight, self.dtype, self.kept)
        if indptr is not None:
            self.c.index64 = indptr.dtype == INT64
            index_type = INT64 if self.c.index64 else INT32
            self.c.indices = <const char*>address(indices, index_type, self.kept)
            self.c.indptr = <const char*>address(indptr, index_type, self.kept)


cdef class Model:
    """Parameters of models side by side, the coordinates they are for, and how they step. The type of coef is `real`.

    There is one to predict with.
    """

    cdef skdl_model c
    cdef list kept
    cdef object dtype

    def __init__(
        self,
        coef,               # INOUT  (n_models * n_outputs, ld); CSR: (2 n_features, ld), see _microkernels_isa_real.h
        intercept,          # INOUT  (2, n_models, n_outputs) and its velocity; to predict (1, 1, n_outputs)
        velocity=None,      # INOUT  like coef; None for CSR, and where momentum = 0 and a chunk holds a minibatch
        mean=None,          # IN     (ld,) or None; CSR: None
        scale=None,         # IN     (ld,) or None; CSR: (n_features,)
        l1=None,            # IN     (n_models, ld) or None: penalty on each feature's coefficients; CSR: None
        l2=None,            # IN     like l1
        momentum=None,      # IN     (n_models,) float64; None to predict
        fit_intercept=True,
        trains=True,        # False: only read, so read-only arrays will do
    ):
        self.kept, self.dtype = [], coef.dtype
        self.c.coef = <void*>address(coef, self.dtype, self.kept, trains)
        self.c.intercept = <void*>address(intercept, self.dtype, self.kept, trains)
        self.c.velocity = <void*>address(velocity, self.dtype, self.kept, True)
        self.c.mean, self.c.scale = address(mean, self.dtype, self.kept), address(scale, self.dtype, self.kept)
        self.c.l1, self.c.l2 = address(l1, self.dtype, self.kept), address(l2, self.dtype, self.kept)
        self.c.momentum = <const double*>address(momentum, FLOAT64, self.kept)
        _, self.c.n_models, self.c.n_outputs = intercept.shape
        self.c.ld, self.c.fit_intercept = coef.shape[1], fit_intercept


cdef class Scratch:
    """Where a chunk of rows is worked on. The type of packed is `real`."""

    cdef skdl_scratch c
    cdef list kept
    cdef object dtype
    cdef int64_t n_packed, n_logits, n_losses

    def __init__(
        self,
        chunk,           # rows of a chunk
        block,           # IN     (n_blocks + 1,) int64 columns
        packed,          # OUT    (chunk * ld,) zeros before; CSR: (n_blocks * PAD * ld,)
        logits=None,     # OUT    ((n_blocks + 1) * n_models * n_outputs * chunk,); None for statistics
        loss=None,       # OUT    (n_models * chunk,); None to predict and for statistics
    ):
        self.kept, self.dtype = [], packed.dtype
        self.c.chunk, self.c.n_blocks = chunk, len(block) - 1
        self.c.block = <const int64_t*>address(block, INT64, self.kept)
        self.c.packed = <void*>address(packed, self.dtype, self.kept, True)
        self.c.logits = <void*>address(logits, self.dtype, self.kept, True)
        self.c.loss = <void*>address(loss, self.dtype, self.kept, True)
        self.n_packed = len(packed)
        self.n_logits, self.n_losses = 0 if logits is None else len(logits), 0 if loss is None else len(loss)

    cdef int check(self, int64_t packed, int64_t logits=0, int64_t losses=0) except -1:
        """An error in place of a kernel that writes out of bounds."""
        if packed > self.n_packed or logits > self.n_logits or losses > self.n_losses:
            raise ValueError(
                f"scratch of {self.n_packed}, {self.n_logits}, {self.n_losses} numbers: expected {packed}, {logits}, {losses}"
            )
        return 0


cdef class Lags:
    """CSR's record of the steps that features have not taken."""

    cdef skdl_lags c
    cdef list kept, kept_tables

    def __init__(
        self,
        piece,           # IN     (n_pieces + 1,) int64: lanes [piece[i], piece[i + 1]) have a piece of memory of their own
        feature,         # INOUT  (n_pieces, n_features) of feature_dtype; last_step is 0 before and after an epoch
        n_lanes=1,       # 1 for one model; else a power of two: lane n_lanes * c + m is output c of model m
        l1=None,         # IN     (n_features, PAD) real, of lanes, over and over; None for one model, or where there is none
        l2=None,         # IN     like l1
    ):
        self.kept, self.kept_tables = [], []
        self.c.n_lanes = n_lanes
        dtype = feature.dtype["scale"]
        self.c.l1, self.c.l2 = address(l1, dtype, self.kept), address(l2, dtype, self.kept)
        self.c.n_pieces = len(piece) - 1
        self.c.piece = <const int64_t*>address(piece, INT64, self.kept)
        self.c.feature = <void*>address(feature, feature.dtype, self.kept, True)

    def set_l1(self, bint has_l1):
        """Whether features have an l1 that is not 0."""
        self.c.has_l1 = has_l1

    def set_tables(self, drift, decay, cumulative_lr):
        """Those of the next epoch, `skdl._backends.lag_tables`: (n_batches + 2,), of several models (n_batches + 2, PAD)."""
        self.kept_tables = []
        self.c.drift = <const double*>address(drift, FLOAT64, self.kept_tables)
        self.c.decay = <const double*>address(decay, FLOAT64, self.kept_tables)
        self.c.cumulative_lr = <const double*>address(cumulative_lr, FLOAT64, self.kept_tables)


cdef const skdl_kernels* select_kernels(int isa, dtype, other_dtype=None) except NULL:
    """The micro-kernels for arrays of this type."""
    if other_dtype is not None and other_dtype != dtype:
        raise TypeError(f"expected arrays of one type, got {dtype} and {other_dtype}")
    return skdl_select_isa(isa, dtype == FLOAT64)


# ---- threads

# What the threads of this process have lately brought and cost in epochs, as seen by thread 0: seconds in which it worked, and
# in which it waited for long. And until when it works alone, and for how long it does.
cdef struct Pace:
    double worked, waited, alone_until, alone

# Threads cost more than they bring where the others make thread 0 wait for longer than WORTH of the time that each of them
# saves it: alone it also has more of its core. They begin with a credit of work, since any machine takes a core away at times.
# Half of what was seen in MEMORY seconds is forgotten. Thread 0 works alone for SOLO_PER_LOSS times the loss, but for no longer
# than FIRST_SOLO, since a long loss mostly comes alone; for twice as long whenever the next try fails, up to LONGEST_SOLO.
cdef double WORTH = 0.5, CREDIT = 5e-3, MEMORY = 0.1, SOLO_PER_LOSS = 10, FIRST_SOLO = 0.1, LONGEST_SOLO = 1.0

# Written with the GIL held, since fits in several Python threads share it.
cdef Pace process_pace = Pace(CREDIT, 0, 0, 0)


# A thread of a parallel region.
cdef struct Worker:
    skdl_barrier* barrier
    int thread, n_threads, asked
    double began, waited, last_poll


cdef inline Worker this_worker(skdl_barrier* barrier) noexcept nogil:
    cdef double now = skdl_seconds()
    return Worker(barrier, omp_get_thread_num(), omp_get_num_threads(), 0, now, 0, now)


cdef inline bint wait(Worker* me) noexcept nogil:
    """Wait for all threads; return whether to stop at once."""
    me.asked = skdl_wait(me.barrier, me.n_threads, &me.waited)
    return me.asked == SKDL_STOP


cdef bint interrupted(double* last_poll) noexcept nogil:
    """Whether a signal handler has raised, as Ctrl-C's does; its exception is pending then. Looks at most every 0.1 s."""
    cdef double now = skdl_seconds()
    if now - last_poll[0] < 0.1:
        return False
    last_poll[0] = now
    with gil:
        return run_signal_handlers() != 0


cdef inline void poll_signals(Worker* me) noexcept nogil:
    """Thread 0 looks for all, and tells the others."""
    if me.thread == 0 and interrupted(&me.last_poll):
        skdl_ask(me.barrier, SKDL_STOP)


cdef inline bint costs_more(const Pace* pace, int n_threads) noexcept nogil:
    """Whether the threads cost more than they bring."""
    return pace.waited > WORTH * (n_threads - 1) * pace.worked


cdef inline Pace with_worker(const Pace* pace, const Worker* me, double now) noexcept nogil:
    """What is known now, to thread 0."""
    return Pace(pace.worked + now - me.began - me.waited, pace.waited + me.waited, pace.alone_until, pace.alone)


cdef inline void look_around(Worker* me, const Pace* pace) noexcept nogil:
    """Thread 0 looks for signals, and whether another number of threads would be faster from the next minibatch on."""
    cdef double now
    cdef Pace known
    poll_signals(me)
    if me.thread != 0 or me.barrier.stop:
        return
    now = skdl_seconds()
    if me.n_threads > 1:
        known = with_worker(pace, me, now)
        if costs_more(&known, me.n_threads):
            skdl_ask(me.barrier, SKDL_LEAVE)
    elif pace.alone_until > 0 and now > pace.alone_until:
        skdl_ask(me.barrier, SKDL_LEAVE)


cdef void remember(Pace* pace, Pace known, int n_threads, double now) noexcept:
    """Keep what thread 0 has seen in a parallel region of so many threads, and draw the conclusion."""
    pace.worked, pace.waited = known.worked, known.waited
    if costs_more(pace, n_threads):
        pace.alone = min(LONGEST_SOLO, max(min(SOLO_PER_LOSS * pace.waited, FIRST_SOLO), 2 * pace.alone))
        pace.alone_until = now + pace.alone
        pace.worked, pace.waited = CREDIT, 0
        return
    if now - pace.alone_until > max(MEMORY, pace.alone):
        pace.alone = 0
    if pace.worked + pace.waited > MEMORY:
        pace.worked, pace.waited = pace.worked / 2, pace.waited / 2


cpdef int threads_now(int n_threads) noexcept:
    """How many threads to start now where there is work for so many: one, where they have lately cost more than they bring."""
    return 1 if skdl_seconds() < process_pace.alone_until else n_threads


cdef int raise_pending(bint stopped) except -1:
    """Raise the exception that `interrupted` has left."""
    return -1 if stopped else 0


cdef inline int64_t n_units(int64_t n, int64_t unit) noexcept nogil:
    """Number of units that hold n things."""
    return (n + unit - 1) // unit


cdef inline int64_t share(int64_t n, int64_t i, int64_t n_shares) noexcept nogil:
    """Where share i begins when n things are shared as evenly as possible."""
    return n * i // n_shares


cdef inline int64_t share_rows(int64_t n_rows, int64_t i, int64_t n_shares) noexcept nogil:
    """The same for rows, in groups of SKDL_PAD, the last of which may be smaller."""
    return min(SKDL_PAD * share(n_units(n_rows, SKDL_PAD), i, n_shares), n_rows)


# ---- training

# Epochs over `order`, which holds the n_rows of each epoch after those of the one before; a step is one minibatch. Step sizes
# are (n_steps, n_models), losses (n_epochs, n_models).
cdef struct Course:
    const skdl_task* task
    int64_t batch_size, n_rows, n_batches, n_steps
    const double* step_sizes
    int64_t next_step
    double* loss


# A chunk [start, start + n_rows) of the minibatch [begin, stop), positions in `order`.
cdef struct Chunk:
    int64_t begin, stop, start, n_rows
    int first, last
    const double* lr
    double* loss


cdef inline Chunk minibatch(const Course* course, int64_t step) noexcept nogil:
    """The minibatch of a step, no chunk of which has begun."""
    cdef int64_t epoch = step // course.n_batches
    cdef int64_t begin = epoch * course.n_rows + (step - epoch * course.n_batches) * course.batch_size
    cdef int64_t stop = min(begin + course.batch_size, (epoch + 1) * course.n_rows)
    return Chunk(begin, stop, begin, 0, 1, 0, course.step_sizes + step * course.task.model.n_models,
                 course.loss + epoch * course.task.model.n_models)


cdef inline bint next_chunk(Chunk* chunk, int64_t size) noexcept nogil:
    """Move on to the next chunk of the minibatch; return whether there is one."""
    chunk.start += chunk.n_rows
    chunk.n_rows = min(size, chunk.stop - chunk.start)
    chunk.first, chunk.last = chunk.start == chunk.begin, chunk.start + chunk.n_rows == chunk.stop
    return chunk.n_rows > 0


cdef bint make_residuals(const skdl_kernels* kernels, const Course* course, const Chunk* chunk, Worker* me,
                         const Pace* pace) noexcept nogil:
    """Step 2, with both waits; return whether to stop at once."""
    cdef const skdl_task* t = course.task
    cdef int64_t n_rows = chunk.n_rows, m
    if wait(me):
        return True
    kernels.softmax(t, chunk.start, share_rows(n_rows, me.thread, me.n_threads),
                    share_rows(n_rows, me.thread + 1, me.n_threads), n_rows, 1.0 / (chunk.stop - chunk.begin))
    look_around(me, pace)
    if wait(me):
        return True
    if me.thread == 0:
        if t.model.fit_intercept:
            kernels.step_intercept(t, n_rows, chunk.first, chunk.last, chunk.lr)
        for m in range(t.model.n_models):
            chunk.loss[m] += kernels.sum_loss(t, n_rows, m)
    return False


cdef void train_dense(const skdl_kernels* kernels, Course* course, Worker* me, const Pace* pace) noexcept nogil:
    cdef const skdl_task* t = course.task
    cdef Chunk chunk
    cdef int64_t step = course.next_step, blk, n_blocks = t.scratch.n_blocks
    cdef int64_t n_outputs = t.model.n_models * t.model.n_outputs
    # Threads beyond the number of blocks share a block: its rows in step 1, its outputs in step 3.
    cdef int64_t n_groups = min(<int64_t>me.n_threads, n_blocks)
    cdef int64_t n_sharing = me.n_threads // n_groups
    cdef int64_t group = me.thread % n_groups, rank = me.thread // n_groups
    cdef int64_t blk0 = share(n_blocks, group, n_groups), blk1 = share(n_blocks, group + 1, n_groups)
    cdef int64_t c0 = share(n_outputs, rank, n_sharing), c1 = share(n_outputs, rank + 1, n_sharing)
    cdef int64_t r0, r1
    cdef skdl_fetch fetch
    if rank >= n_sharing:
        blk1 = blk0
    for step in range(course.next_step, course.n_steps):
        chunk = minibatch(course, step)
        while next_chunk(&chunk, t.scratch.chunk):
            r0, r1 = share_rows(chunk.n_rows, rank, n_sharing), share_rows(chunk.n_rows, rank + 1, n_sharing)
            kernels.plan_fetch(t, &fetch, chunk.start + chunk.n_rows, r0, r1, chunk.n_rows, blk0, blk1, c1 - c0)
            for blk in range(blk0, blk1):
                kernels.forward(t, &fetch, chunk.start, r0, r1, chunk.n_rows, blk)
            if make_residuals(kernels, course, &chunk, me, pace):
                return
            for blk in range(blk0, blk1):
                kernels.backward(t, &fetch, chunk.n_rows, blk, c0, c1, chunk.first, chunk.last, chunk.lr)
            # The next chunk reads columns that another thread has just written.
            if n_sharing > 1 and wait(me):
                return
        if me.asked == SKDL_LEAVE:
            break
    if not wait(me) and me.thread == 0:
        course.next_step = step + 1


cdef inline int64_t next_unit(int64_t unit, int n_threads) noexcept nogil:
    """The next unit of a thread where they are dealt out to and fro: with two threads, one has 0, 3, 4, the other 1, 2, 5.

    All blocks hold about as many values. But features are often sorted by frequency; then the values of the first block belong
    to few features, which stay in the caches, and those of the last to almost as many features, which do not.
    """
    return 2 * n_threads * (unit // n_threads + 1) - 1 - unit


cdef void train_sparse(const skdl_kernels* kernels, Course* course, Worker* me, const Pace* pace) noexcept nogil:
    cdef const skdl_task* t = course.task
    cdef Chunk chunk
    cdef int64_t step = course.next_step, n_blocks = t.scratch.n_blocks, n_pieces = t.lags.n_pieces, u, piece
    # The blocks of each piece are units. OpenMP may start fewer threads than it was asked for.
    cdef int64_t end = n_pieces * n_blocks
    for step in range(course.next_step, course.n_steps):
        chunk = minibatch(course, step)
        while next_chunk(&chunk, t.scratch.chunk):
            u = me.thread
            while u < end:
                kernels.sparse_forward(t, chunk.start, chunk.n_rows, u % n_blocks, u // n_blocks, step + 1)
                u = next_unit(u, me.n_threads)
            if make_residuals(kernels, course, &chunk, me, pace):
                return
            u = me.thread
            while u < end:
                kernels.sparse_backward(t, chunk.start, chunk.n_rows, u % n_blocks, u // n_blocks)
                u = next_unit(u, me.n_threads)
        if me.asked == SKDL_LEAVE:
            break
    if wait(me):
        return
    if step + 1 == course.n_steps:
        for piece in range(n_pieces):
            kernels.finish_lagged(t, share(t.data.n_features, me.thread, me.n_threads),
                                  share(t.data.n_features, me.thread + 1, me.n_threads), piece, course.n_steps)
    if not wait(me) and me.thread == 0:
        course.next_step = step + 1


cdef void train(const skdl_kernels* kernels, skdl_barrier* barrier, Course* course, Pace* pace) noexcept nogil:
    """What a thread does; thread 0 leaves in `pace` what it has seen."""
    cdef Worker me = this_worker(barrier)
    cdef Pace before = pace[0]
    if course.task.data.indptr != NULL:
        train_sparse(kernels, course, &me, &before)
    else:
        train_dense(kernels, course, &me, &before)
    if me.thread == 0:
        pace[0] = with_worker(&before, &me, skdl_seconds())


def run_epochs(
    Data data not None,
    Model model not None,
    Scratch scratch not None,
    Lags lags,                                # CSR only
    const int64_t[:, ::1] order not None,     # IN     (n_epochs, n_rows) rows in the order in which they are visited
    const double[:, :, ::1] step_sizes not None,  # IN     (n_epochs, n_batches, n_models)
    int64_t batch_size,
    int n_threads,
    int isa,
):
    """Train some epochs; return the sum over the rows of weight times loss of each, (n_epochs, n_models) float64."""
    cdef const skdl_kernels* kernels = select_kernels(isa, model.dtype, data.dtype)
    cdef skdl_task task
    cdef skdl_barrier barrier
    cdef Pace pace
    cdef int n_now
    cdef int64_t n_models = model.c.n_models, n_batches = n_units(order.shape[1], batch_size)
    losses = np.zeros((order.shape[0], n_models))
    cdef double[:, ::1] loss = losses
    cdef Course course = Course(&task, batch_size, order.shape[1], n_batches, order.shape[0] * n_batches,
                                &step_sizes[0, 0, 0], 0, &loss[0, 0])
    memset(&task, 0, sizeof(skdl_task))
    task.data, task.model, task.scratch = data.c, model.c, scratch.c
    task.order, task.n_order = &order[0, 0], order.shape[0] * order.shape[1]
    if step_sizes.shape[0] != order.shape[0] or step_sizes.shape[1] != n_batches or step_sizes.shape[2] != n_models:
        raise ValueError(
            f"{step_sizes.shape[0]} x {step_sizes.shape[1]} x {step_sizes.shape[2]} step sizes: expected one for each "
            f"minibatch of {batch_size} of {order.shape[0]} x {order.shape[1]} rows, for each of {n_models} models"
        )
    scratch.check(
        task.model.ld * (task.scratch.n_blocks * SKDL_PAD if lags is not None else task.scratch.chunk),
        (task.scratch.n_blocks + 1) * n_models * task.model.n_outputs * task.scratch.chunk,
        n_models * task.scratch.chunk,
    )
    if lags is not None:
        task.lags = lags.c
    while course.next_step < course.n_steps:
        pace, n_now = process_pace, threads_now(n_threads)
        if n_now == n_threads:
            pace.alone_until = 0  # and is not looked at
        memset(&barrier, 0, sizeof(skdl_barrier))
        with nogil, parallel(num_threads=n_now, use_threads_if=n_now > 1):
            train(kernels, &barrier, &course, &pace)
        raise_pending(barrier.stop == SKDL_STOP)
        if n_now > 1:
            remember(&process_pace, pace, n_now, skdl_seconds())
    return losses


def lag_drift(const double[::1] step_sizes, double momentum):
    """Sums of the step sizes from each step on, each step's decayed by the momentum once more; and 0 for none."""
    drift = np.zeros(step_sizes.shape[0] + 1)
    cdef double[::1] sums = drift
    cdef int64_t s
    for s in range(step_sizes.shape[0] - 1, -1, -1):
        sums[s] = step_sizes[s] + momentum * sums[s + 1]
    return drift


# ---- prediction

# What the threads of a prediction share: the next chunk that nobody has claimed, and whether all logits so far are finite.
cdef struct Prediction:
    skdl_barrier barrier
    int64_t n_claimed
    int output, finite
    char* result


cdef void predict_worker(const skdl_kernels* kernels, const skdl_task* shared, Prediction* p, int64_t item_size) noexcept nogil:
    """Chunk after chunk that no other thread has claimed, so that a thread that is held up holds up no other."""
    cdef Worker me = this_worker(&p.barrier)
    cdef skdl_task t = shared[0]
    cdef skdl_scratch* scratch = &t.scratch
    cdef int64_t n_rows, n_outputs = t.model.n_outputs
    cdef int64_t start = skdl_claim(&p.n_claimed) * scratch.chunk, following
    cdef skdl_fetch fetch
    if t.data.indptr == NULL:
        scratch.packed = <char*>scratch.packed + me.thread * scratch.chunk * t.model.ld * item_size
    scratch.logits = <char*>scratch.logits + me.thread * n_outputs * (scratch.chunk + SKDL_PAD) * item_size
    while start < t.n_order:
        following = skdl_claim(&p.n_claimed) * scratch.chunk
        n_rows = min(scratch.chunk, t.n_order - start)
        if t.data.indptr != NULL:
            kernels.sparse_logits(&t, start, n_rows)
        else:
            kernels.plan_fetch(&t, &fetch, following, 0, n_rows, n_rows, 0, 1, 0)
            kernels.forward(&t, &fetch, start, 0, n_rows, n_rows, 0)
        if not kernels.finish(&t, p.output, start, n_rows, p.result):
            p.finite = False
        poll_signals(&me)
        if skdl_asked(&p.barrier):
            return
        start = following


def predict(
    Data data not None,
    Model model not None,
    Scratch scratch not None,            # one block; for each thread: logits (n_outputs * (chunk + PAD),), and, where X is
                                         #        dense, packed (chunk * ld,)
    const int64_t[::1] rows,             # IN     (n_rows,) the rows to predict; None: all
    const int32_t[::1] place,            # IN     CSR: (n_features,) which row of coef belongs to a feature; None: as many
    str output not None,                 # one of OUTPUTS
    int64_t n_rows,
    result not None,                     # OUT    of the type and shape that _microkernels.h says
    int n_threads,
    int isa,
):
    """What is asked for of the logits X W^T + b; return whether all of these are finite. For CSR, W^T is given for W."""
    cdef const skdl_kernels* kernels = select_kernels(isa, model.dtype, scratch.dtype)
    cdef skdl_task task
    cdef Prediction p
    cdef int64_t item_size = scratch.dtype.itemsize
    cdef list kept = []
    memset(&task, 0, sizeof(skdl_task))
    memset(&p, 0, sizeof(Prediction))
    task.data, task.model, task.scratch = data.c, model.c, scratch.c
    task.n_order = n_rows
    scratch.check(
        0 if task.data.indptr != NULL else n_threads * task.scratch.chunk * task.model.ld,
        n_threads * task.model.n_outputs * (task.scratch.chunk + SKDL_PAD),
    )
    if rows is not None:
        task.order = &rows[0]
    if place is not None:
        task.place = &place[0]
    p.output, p.finite, p.result = OUTPUTS[output], True, <char*>address(result, result.dtype, kept, True)
    n_threads = threads_now(n_threads)
    with nogil, parallel(num_threads=n_threads, use_threads_if=n_threads > 1):
        predict_worker(kernels, &task, &p, item_size)
    raise_pending(p.barrier.stop == SKDL_STOP)
    return bool(p.finite)


def mark_features(
    const index[::1] indices,            # IN     (nnz,)
    const index[::1] indptr,             # IN     (n_samples + 1,)
    const int64_t[::1] rows,             # IN     (n_rows,); None: all
    uint8_t[::1] occurs,                 # OUT    (n_features,) 1 where these rows have a value stored; zeros before
):
    """Find the features that occur in CSR rows."""
    cdef int64_t i, row, e, n_rows = indptr.shape[0] - 1 if rows is None else rows.shape[0]
    cdef double last_poll = skdl_seconds()
    cdef bint stopped = False
    with nogil:
        for i in range(n_rows):
            if i % 64 == 0 and interrupted(&last_poll):
                stopped = True
                break
            row = i if rows is None else rows[i]
            for e in range(indptr[row], indptr[row + 1]):
                occurs[indices[e]] = 1
    raise_pending(stopped)


cdef void gather_worker(const real[:, ::1] coef, const int64_t[::1] features, real[:, ::1] out,
                        skdl_barrier* barrier) noexcept nogil:
    cdef Worker me = this_worker(barrier)
    cdef int64_t group, i, c, n_places = out.shape[0], n_groups = n_units(n_places, SKDL_PAD)
    for group in range(share(n_groups, me.thread, me.n_threads), share(n_groups, me.thread + 1, me.n_threads)):
        for c in range(coef.shape[0]):  # a few features at a time, whose rows of `out` stay in L1
            for i in range(group * SKDL_PAD, min((group + 1) * SKDL_PAD, n_places)):
                out[i, c] = coef[c, i if features is None else features[i]]
        poll_signals(&me)
        if skdl_asked(barrier):
            return


def gather_coefficients(
    const real[:, ::1] coef not None,    # IN     (n_outputs, n_features)
    const int64_t[::1] features,         # IN     (n_places,) ascending; None: all
    real[:, ::1] out not None,           # OUT    (n_places, ld); what is beyond n_outputs stays
    int n_threads,
):
    """Transpose the coefficients of some features."""
    cdef skdl_barrier barrier
    memset(&barrier, 0, sizeof(skdl_barrier))
    n_threads = threads_now(n_threads)
    with nogil, parallel(num_threads=n_threads, use_threads_if=n_threads > 1):
        gather_worker(coef, features, out, &barrier)
    raise_pending(barrier.stop == SKDL_STOP)


# ---- statistics

cdef void column_statistics_worker(const skdl_kernels* kernels, const skdl_task* shared, skdl_barrier* barrier,
                                   int64_t item_size, int64_t n_row_parts, double* total) noexcept nogil:
    cdef Worker me = this_worker(barrier)
    cdef skdl_task t = shared[0]
    cdef int64_t chunk = t.scratch.chunk, ld = t.model.ld, n_chunks = n_units(t.n_order, chunk), part, i, blk, start
    cdef int64_t part0 = share(n_row_parts, me.thread, me.n_threads)
    cdef int64_t part1 = share(n_row_parts, me.thread + 1, me.n_threads)
    cdef int64_t blk0 = 0, blk1 = t.scratch.n_blocks
    if n_row_parts == 1:
        part0, part1 = 0, 1
        blk0, blk1 = share(blk1, me.thread, me.n_threads), share(blk1, me.thread + 1, me.n_threads)
    else:
        t.scratch.packed = <char*>t.scratch.packed + me.thread * chunk * ld * item_size
    for part in range(part0, part1):
        t.extremes = <char*>shared.extremes + part * 2 * ld * item_size
        for i in range(share(n_chunks, part, n_row_parts), share(n_chunks, part + 1, n_row_parts)):
            start = i * chunk
            for blk in range(blk0, blk1):
                kernels.statistics(&t, start, min(chunk, t.n_order - start), blk, total + part * 2 * ld)
            poll_signals(&me)
            if skdl_asked(barrier):
                return


def column_statistics(
    Data data not None,
    Scratch scratch not None,                # packed (chunk * ld,), for each thread where they share the parts of the rows
    const int64_t[::1] rows not None,        # IN     (n_rows,) the rows that count
    const real[::1] first_row not None,      # IN     (ld,) x0, about which the sums are taken
    real[:, :, ::1] extremes not None,       # INOUT  (n_row_parts, 2, ld) minimum and maximum; inf and -inf before
    double[:, :, ::1] total not None,        # INOUT  (n_row_parts, 2, ld) sums of w (x - x0), w (x - x0)^2; zeros before
    int n_threads,
    int isa,
):
    """Sums, minimum and maximum of each column of dense rows, for each of n_row_parts even parts of the rows.

    Threads share these parts or, where there is one, the blocks of columns.
    """
    cdef const skdl_kernels* kernels = select_kernels(isa, scratch.dtype, data.dtype)
    cdef skdl_task task
    cdef skdl_barrier barrier
    memset(&task, 0, sizeof(skdl_task))
    memset(&barrier, 0, sizeof(skdl_barrier))
    task.data, task.scratch, task.model.ld = data.c, scratch.c, first_row.shape[0]
    task.order, task.n_order = &rows[0], rows.shape[0]
    task.first_row, task.extremes = &first_row[0], &extremes[0, 0, 0]
    scratch.check((n_threads if total.shape[0] > 1 else 1) * task.scratch.chunk * task.model.ld)
    n_threads = threads_now(n_threads)
    with nogil, parallel(num_threads=n_threads, use_threads_if=n_threads > 1):
        column_statistics_worker(kernels, &task, &barrier, sizeof(real), total.shape[0], &total[0, 0, 0])
    raise_pending(barrier.stop == SKDL_STOP)


def row_products(
    const real[:, :, ::1] U not None,        # IN     (n_batches, n_rows, ld) padded with zeros to multiples of PAD
    const real[:, :, ::1] vectors not None,  # IN     (n_batches, n, ld) likewise or, transposed, (n_batches, n, n_rows)
    double[:, :, ::1] out not None,          # INOUT  (n_batches, n, n_rows) or, transposed, (n_batches, n, ld); zeros before
    bint transposed,
    int isa,
):
    """Products of all rows with a few vectors: v U^T or, transposed, p U."""
    cdef int64_t batch
    cdef const skdl_kernels* kernels = skdl_select_isa(isa, sizeof(real) == 8)
    with nogil:
        for batch in range(U.shape[0] if vectors.shape[1] > 0 else 0):
            if transposed:
                kernels.transposed_products(&U[batch, 0, 0], U.shape[1], U.shape[2], &vectors[batch, 0, 0], vectors.shape[1],
                                            &out[batch, 0, 0])
            else:
                kernels.products(&U[batch, 0, 0], U.shape[1], U.shape[2], U.shape[2], &vectors[batch, 0, 0],
                                 vectors.shape[1], &out[batch, 0, 0])


def sparse_row_products(
    const real[::1] data,                # IN     (nnz,) CSC, sorted
    const index[::1] indices,            # IN     (nnz,)
    const index[::1] indptr,             # IN     (n_features + 1,)
    double[:, ::1] K,                    # INOUT  (n_rows, n_rows) upper triangle; zeros before
):
    """Products of all rows with each other."""
    cdef int64_t j, e, f
    cdef double value
    cdef double* row
    with nogil:
        for j in range(indptr.shape[0] - 1):
            for e in range(indptr[j], indptr[j + 1]):
                value, row = data[e], &K[indices[e], 0]
                for f in range(e, indptr[j + 1]):
                    row[indices[f]] += value * data[f]


def cholesky(
    double[:, ::1] K,                    # INOUT  (n, n) its upper triangle becomes L^T; n is a multiple of PAD
    const double[::1] smallest,          # IN     (n,)
    real[:, ::1] L,                      # OUT    (n, n) zeros before
    double[::1] product,                 # SCRATCH (PAD * n,)
    int isa,
):
    """L of K = L L^T, lower triangular, its columns 0 where the pivot is not larger than `smallest`.

    A panel of rows of L^T at a time, less what the rows above it explain (the left-looking variant).
    """
    cdef const skdl_kernels* kernels = skdl_select_isa(isa, sizeof(real) == 8)
    cdef int64_t n = K.shape[0], panel, a, i, j, r
    cdef double x
    with nogil:
        for panel in range(n // SKDL_PAD):
            a = panel * SKDL_PAD
            memset(&product[0], 0, SKDL_PAD * (n - a) * sizeof(double))
            kernels.products(&L[a, 0], n - a, a, n, &L[a, 0], SKDL_PAD, &product[0])
            for j in range(a, a + SKDL_PAD):
                for r in range(j, n):
                    K[j, r] -= product[(j - a) * (n - a) + r - a]
                for i in range(a, j):
                    x = K[i, j]
                    for r in range(j, n):
                        K[j, r] -= x * K[i, r]
                x = 1 / sqrt(K[j, j]) if K[j, j] > smallest[j] else 0.0
                for r in range(j, n):
                    K[j, r] *= x
                    L[r, j] = <real>K[j, r]


def solve_triangular(
    const real[:, ::1] M,                # IN     (n, n) triangular
    double[:, ::1] x,                    # INOUT  (n_vectors, n)
    bint lower,                          # which triangle of M it is; the other is not read
):
    """For each vector b the x of x M = b, 0 where the diagonal of M is."""
    cdef int64_t c, step, i, k, n = M.shape[0]
    cdef double factor
    with nogil:
        for c in range(x.shape[0]):
            for step in range(n):
                i = n - 1 - step if lower else step
                factor = x[c, i] / M[i, i] if M[i, i] > 0 else 0.0
                x[c, i] = factor
                for k in range(0 if lower else i + 1, i if lower else n):
                    x[c, k] -= factor * M[i, k]


def sparse_column_statistics(
    const real[::1] data,                # IN     (nnz,)
    const index[::1] indices,            # IN     (nnz,)
    const index[::1] indptr,             # IN     (n_samples + 1,)
    const int64_t[::1] rows,             # IN     (n_rows,) the rows that count
    const double[::1] weight,            # IN     (n_samples,) or None
    double[:, ::1] total,                # OUT    (n_features, 4) sum of w x^2, of w |x|, and of w where x is not 0; number of
                                         #        stored x; zeros before
):
    """Weighted sums of the stored values of each column of CSR rows; NaN is kept.

    Returns the smallest and the largest sum of squares of a row that is not 0; infinity and 0 where there is none.
    """
    cdef int64_t i, row, e, j
    cdef double x, w, square, shortest = INFINITY, longest = 0, last_poll = skdl_seconds()
    cdef bint stopped = False
    with nogil:
        for i in range(rows.shape[0]):
            if i % 64 == 0 and interrupted(&last_poll):
                stopped = True
                break
            row = rows[i]
            w = 1.0 if weight is None else weight[row]
            square = 0
            for e in range(indptr[row], indptr[row + 1]):
                x = data[e] if data[e] >= 0 else -data[e]
                j = indices[e]
                square += x * x
                total[j, 0] += w * x * x
                total[j, 1] += w * x
                if x != 0:
                    total[j, 2] += w
                total[j, 3] += 1
            if square > 0:
                shortest = min(shortest, square)
            longest = max(longest, square)
    raise_pending(stopped)
    return shortest, longest


def split_rows(
    const index[::1] indices,            # IN     (nnz,) sorted in each row
    const index[::1] indptr,             # IN     (n_samples + 1,)
    const int64_t[::1] block,            # IN     (n_blocks + 1,) features
    index[::1] split,                    # OUT    (n_samples * n_blocks + 1,) where each row begins in each block of features
):
    """Where the blocks of features begin in each row of CSR."""
    cdef int64_t n_blocks = block.shape[0] - 1, row, blk, begin, end, middle
    with nogil:
        for row in range(indptr.shape[0] - 1):
            begin = indptr[row]
            for blk in range(n_blocks):
                end = indptr[row + 1]
                while begin < end:
                    middle = (begin + end) // 2
                    if indices[middle] < block[blk]:
                        begin = middle + 1
                    else:
                        end = middle
                split[row * n_blocks + blk] = <index>begin
        split[split.shape[0] - 1] = indptr[indptr.shape[0] - 1]


def find_csr_defect(
    const index[::1] indices,            # IN     (nnz,)
    const index[::1] indptr,             # IN     (n_samples + 1,)
    int64_t n_stored,
    int64_t n_features,
):
    """What is first found that would lead a kernel out of bounds, as a sentence, or None."""
    cdef int64_t i, e, n_samples = indptr.shape[0] - 1
    if indptr[0] != 0:
        return "indptr must begin with 0"
    with nogil:
        for i in range(n_samples):
            if indptr[i + 1] < indptr[i] or indptr[i + 1] > n_stored:
                break
        else:
            i = n_samples
    if i < n_samples:
        if indptr[i + 1] < indptr[i]:
            return f"indptr decreases after position {i}"
        return f"indptr at position {i + 1} is larger than the number of stored values"
    with nogil:
        for e in range(indptr[n_samples]):
            if indices[e] < 0 or indices[e] >= n_features:
                break
        else:
            e = indptr[n_samples]
    if e < indptr[n_samples]:
        return f"the index at position {e} is not in 0..{n_features - 1}"
    return None
