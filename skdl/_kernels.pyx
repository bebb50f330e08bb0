"""The CPU kernels: what is computed in which order and by which thread.

The functions check nothing, allocate nothing that grows with the data, and hold no GIL; `_openmp.py` prepares their
arguments. The loops inside are the leaves of `_microkernels_isa_real.h`. `real` below is float or double, the type in which a fit
computes; data come as the bytes of their storage type (`STORAGE`) and are converted in registers.

How threads share an epoch. Dense data: a thread owns blocks of columns. For each chunk of a minibatch (usually the
whole of it) it

1. packs its columns of the rows and multiplies them into partial logits;            -- wait for all --
2. makes residuals of some of the rows, all classes (softmax);                       -- wait for all --
3. multiplies the residuals with its columns and updates its columns of W in place.

CSR data: a thread owns some of the classes, in the parameters of every feature. It brings its parameters of a minibatch's
features up to date before 1, and in 3 it adds to their velocity; rows are shared in 2. Each sum runs in one order that
depends on the shapes alone, so every number of threads gives the same bits.

Where an epoch or a prediction takes long, thread 0 looks ten times a second whether the user wants to stop (Ctrl-C).
"""

from cython.parallel cimport parallel
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

ctypedef fused real:
    float
    double

cdef extern from "Python.h":
    int run_signal_handlers "PyErr_CheckSignals"()

cdef extern from "_microkernels.h" nogil:
    const int SKDL_OPENMP
    const int SKDL_FLOAT64, SKDL_FLOAT32, SKDL_FLOAT16, SKDL_UINT8, SKDL_INT8
    const int64_t SKDL_PAD
    int omp_get_thread_num()
    int omp_get_num_threads()
    int omp_get_max_threads()
    double skdl_seconds()

    ctypedef struct skdl_task:
        const char* X
        const char* indices
        const char* indptr
        const int32_t* y
        const void* weight
        const int64_t* order
        int64_t n_order, n_features, n_outputs
        int storage, index64
        const void* mean
        const void* scale
        void* coef
        void* velocity
        void* intercept
        const void* l1
        const void* l2
        double momentum
        int64_t ld
        int fit_intercept
        void* packed
        void* logits
        void* loss
        int64_t chunk, n_blocks
        const int64_t* block
        int64_t n_pieces
        const int64_t* piece
        int32_t* last_step
        const double* drift
        const double* decay
        const double* cumulative_lr
        void* row
        const void* first_row

    ctypedef struct skdl_fetch:
        pass

    ctypedef struct skdl_kernels:
        const char* name
        void (*plan_fetch)(const skdl_task*, skdl_fetch*, int64_t start, int64_t r0, int64_t r1, int64_t n_rows, int64_t blk0, int64_t blk1, int64_t n_outputs) noexcept nogil
        void (*forward)(const skdl_task*, skdl_fetch*, int64_t start, int64_t r0, int64_t r1, int64_t n_rows, int64_t blk) noexcept nogil
        void (*softmax)(const skdl_task*, int64_t start, int64_t r0, int64_t r1, int64_t n_rows, double batch_scale) noexcept nogil
        void (*backward)(const skdl_task*, skdl_fetch*, int64_t n_rows, int64_t blk, int64_t c0, int64_t c1, int first, int last, double lr) noexcept nogil
        void (*step_intercept)(const skdl_task*, int64_t n_rows, int first, int last, double lr) noexcept nogil
        double (*sum_loss)(const skdl_task*, int64_t n_rows) noexcept nogil
        void (*write_logits)(const skdl_task*, int64_t n_rows, void* out) noexcept nogil
        void (*sparse_forward)(const skdl_task*, int64_t start, int64_t n_rows, int64_t c0, int64_t c1) noexcept nogil
        void (*sparse_backward)(const skdl_task*, int64_t start, int64_t n_rows, int64_t c0, int64_t c1) noexcept nogil
        void (*lagged_update)(const skdl_task*, int64_t start, int64_t n_rows, int64_t c0, int64_t c1, int32_t* last_step, int32_t until) noexcept nogil
        void (*finish_lagged)(const skdl_task*, int64_t c0, int64_t c1, int32_t* last_step, int32_t last) noexcept nogil
        void (*statistics)(const skdl_task*, int64_t start, int64_t n_rows, int64_t blk, double* total) noexcept nogil

    ctypedef struct skdl_barrier:
        int stop

    bint skdl_wait(skdl_barrier*, int n_threads)
    void skdl_stop(skdl_barrier*)
    bint skdl_stopped(const skdl_barrier*)
    int skdl_n_isas()
    const skdl_kernels* skdl_select_isa(int isa, int is_double)


STORAGE = {"float64": SKDL_FLOAT64, "float32": SKDL_FLOAT32, "float16": SKDL_FLOAT16, "uint8": SKDL_UINT8,
           "bool": SKDL_UINT8, "int8": SKDL_INT8}
PAD = SKDL_PAD
OPENMP = bool(SKDL_OPENMP)


def max_threads():
    """Number of threads that OpenMP would use now (OMP_NUM_THREADS and threadpoolctl's limits)."""
    return omp_get_max_threads()


def instruction_sets():
    """Names of the instruction sets that this processor has kernels for, from the plainest to the widest."""
    return [skdl_select_isa(isa, 0).name.decode() for isa in range(skdl_n_isas())]


cdef bint interrupted(double* last_poll) noexcept nogil:
    """Whether a signal handler has raised, as Ctrl-C's does; its exception is pending then. Asks at most every 0.1 s."""
    cdef double now = skdl_seconds()
    if now - last_poll[0] < 0.1:
        return False
    last_poll[0] = now
    with gil:
        return run_signal_handlers() != 0


cdef inline void poll_signals(skdl_barrier* barrier, int thread, double* last_poll) noexcept nogil:
    """Thread 0 asks for all, and tells the others."""
    if thread == 0 and interrupted(last_poll):
        skdl_stop(barrier)


cdef int raise_pending(bint stopped) except -1:
    """Raise the exception that `interrupted` has left."""
    return -1 if stopped else 0


cdef inline int64_t n_units(int64_t n, int64_t unit) noexcept nogil:
    """Number of units that hold n things."""
    return (n + unit - 1) // unit


cdef inline int64_t share(int64_t n, int64_t part, int64_t n_pieces) noexcept nogil:
    """Where part `part` begins when n units are shared as evenly as can be."""
    return n * part // n_pieces


cdef inline int64_t share_rows(int64_t n_rows, int64_t part, int64_t n_pieces) noexcept nogil:
    """The same for rows, in groups of SKDL_PAD, the last of which may be smaller."""
    return min(SKDL_PAD * share(n_units(n_rows, SKDL_PAD), part, n_pieces), n_rows)


cdef bint make_residuals(const skdl_kernels* kernels, const skdl_task* t, skdl_barrier* barrier, int64_t begin, int64_t stop,
                         int64_t start, int64_t n_rows, double lr, int thread, int n_threads, double* last_poll,
                         double* loss) noexcept nogil:
    """Step 2, on the chunk at `start` of the minibatch [begin, stop), with both waits; return whether to stop."""
    if skdl_wait(barrier, n_threads):
        return True
    kernels.softmax(t, start, share_rows(n_rows, thread, n_threads), share_rows(n_rows, thread + 1, n_threads), n_rows,
                 1.0 / (stop - begin))
    poll_signals(barrier, thread, last_poll)
    if skdl_wait(barrier, n_threads):
        return True
    if thread == 0:
        loss[0] += kernels.sum_loss(t, n_rows)
        if t.fit_intercept:
            kernels.step_intercept(t, n_rows, start == begin, start + n_rows == stop, lr)
    return False


cdef void train_dense(const skdl_kernels* kernels, const skdl_task* t, skdl_barrier* barrier, int64_t batch_size,
                      const double* step_sizes, int thread, int n_threads, double* loss) noexcept nogil:
    cdef int64_t batch, n_batches = n_units(t.n_order, batch_size), begin, stop, chunk, start, n_rows, blk
    # Threads beyond the number of blocks share a block: its rows in step 1, its classes in step 3.
    cdef int64_t n_groups = min(<int64_t>n_threads, t.n_blocks)
    cdef int64_t n_sharing = n_threads // n_groups
    cdef int64_t group = thread % n_groups, part = thread // n_groups
    cdef int64_t blk0 = share(t.n_blocks, group, n_groups), blk1 = share(t.n_blocks, group + 1, n_groups)
    cdef int64_t c0 = share(t.n_outputs, part, n_sharing), c1 = share(t.n_outputs, part + 1, n_sharing)
    cdef int64_t r0, r1
    cdef int first, last
    cdef double last_poll = skdl_seconds()
    cdef skdl_fetch fetch
    if part >= n_sharing:
        blk1 = blk0
    for batch in range(n_batches):
        begin = batch * batch_size
        stop = min(begin + batch_size, t.n_order)
        for chunk in range(n_units(stop - begin, t.chunk)):
            start = begin + chunk * t.chunk
            n_rows = min(t.chunk, stop - start)
            first, last = start == begin, start + n_rows == stop
            r0, r1 = share_rows(n_rows, part, n_sharing), share_rows(n_rows, part + 1, n_sharing)
            kernels.plan_fetch(t, &fetch, start + n_rows, r0, r1, n_rows, blk0, blk1, c1 - c0)
            for blk in range(blk0, blk1):
                kernels.forward(t, &fetch, start, r0, r1, n_rows, blk)
            if make_residuals(kernels, t, barrier, begin, stop, start, n_rows, step_sizes[batch], thread, n_threads, &last_poll, loss):
                return
            for blk in range(blk0, blk1):
                kernels.backward(t, &fetch, n_rows, blk, c0, c1, first, last, step_sizes[batch])
            # The next chunk reads columns that another thread has just written.
            if n_sharing > 1 and skdl_wait(barrier, n_threads):
                return


cdef void train_sparse(const skdl_kernels* kernels, const skdl_task* t, skdl_barrier* barrier, int64_t batch_size,
                       const double* step_sizes, int thread, int n_threads, double* loss) noexcept nogil:
    cdef int64_t n_batches = n_units(t.n_order, batch_size), begin, stop, chunk, start, n_rows, part
    # A part for each thread, or several: OpenMP may start fewer than it was last_poll for.
    cdef int64_t p0 = share(t.n_pieces, thread, n_threads), p1 = share(t.n_pieces, thread + 1, n_threads)
    cdef int32_t batch
    cdef double last_poll = skdl_seconds()
    for batch in range(n_batches):
        begin = batch * batch_size
        stop = min(begin + batch_size, t.n_order)
        for chunk in range(n_units(stop - begin, t.chunk)):
            start = begin + chunk * t.chunk
            for part in range(p0, p1):
                kernels.lagged_update(t, start, min(t.chunk, stop - start), t.piece[part], t.piece[part + 1],
                            t.last_step + part * t.n_features, batch + 1)
            poll_signals(barrier, thread, &last_poll)
            if skdl_stopped(barrier):
                break
        for chunk in range(n_units(stop - begin, t.chunk)):
            start = begin + chunk * t.chunk
            n_rows = min(t.chunk, stop - start)
            for part in range(p0, p1):
                kernels.sparse_forward(t, start, n_rows, t.piece[part], t.piece[part + 1])
            if make_residuals(kernels, t, barrier, begin, stop, start, n_rows, step_sizes[batch], thread, n_threads, &last_poll, loss):
                return
            for part in range(p0, p1):
                kernels.sparse_backward(t, start, n_rows, t.piece[part], t.piece[part + 1])
    for part in range(p0, p1):
        kernels.finish_lagged(t, t.piece[part], t.piece[part + 1], t.last_step + part * t.n_features, <int32_t>n_batches)


def run_epoch(
    real[:, ::1] coef,                   # INOUT  (n_outputs, ld); CSR: (2 n_features, ld). First, since its type decides `real`
    const unsigned char[:, ::1] X,       # IN     (n_samples, n_features * item size); CSR: (1, nnz * item size)
    const unsigned char[::1] indices,    # IN     CSR's column numbers as bytes; None: X is dense
    const unsigned char[::1] indptr,     # IN     CSR's row ends as bytes; None: X is dense
    int storage,
    bint index64,
    int64_t n_features,
    const int32_t[::1] y,                # IN     (n_samples,) class numbers
    const real[::1] weight,              # IN     (n_samples,) with mean 1, or None
    const int64_t[::1] order,            # IN     (n_order,) rows in the order in which they are visited
    int64_t batch_size,
    const double[::1] step_sizes,        # IN     (n_batches,)
    const real[::1] mean,                # IN     (ld,) or None
    const real[::1] scale,               # IN     (ld,); CSR: (n_features,); or None
    real[:, ::1] velocity,               # INOUT  like coef, or None; CSR: None
    real[:, ::1] intercept,              # INOUT  (2, n_outputs) and its velocity
    bint fit_intercept,
    const real[::1] l1,                  # IN     like scale, or None: penalty on each feature's coefficients
    const real[::1] l2,                  # IN     like l1
    double momentum,
    const int64_t[::1] block,            # IN     (n_blocks + 1,) columns; CSR: one block
    real[::1] packed,                    # OUT    (chunk * ld,) zeros before; CSR: (ld,)
    real[::1] logits,                    # OUT    ((n_blocks + 1) * n_outputs * chunk,)
    real[::1] loss,                      # OUT    (chunk,)
    const int64_t[::1] piece,            # IN     (n_pieces + 1,) classes, CSR only
    int32_t[:, ::1] last_step,               # INOUT  (n_pieces, n_features) zeros before and after, CSR only
    const double[::1] drift,             # IN     (n_batches + 2,), CSR only
    const double[::1] decay,             # IN     (n_batches + 2,) powers of the momentum, CSR only
    const double[::1] cumulative_lr,           # IN     (n_batches + 2,), CSR only
    int n_threads,
    int isa,
):
    """Train one epoch in one parallel region; return the sum over the rows of weight times loss."""
    cdef skdl_task task
    cdef skdl_barrier barrier
    cdef double total = 0
    memset(&task, 0, sizeof(skdl_task))
    memset(&barrier, 0, sizeof(skdl_barrier))
    task.X = <const char*>&X[0, 0]
    if indptr is not None:
        task.indices, task.indptr = <const char*>&indices[0], <const char*>&indptr[0]
        task.piece, task.n_pieces = &piece[0], piece.shape[0] - 1
        task.last_step, task.drift, task.decay, task.cumulative_lr = &last_step[0, 0], &drift[0], &decay[0], &cumulative_lr[0]
        task.row = &packed[0]
    else:
        task.packed = &packed[0]
    task.storage, task.index64 = storage, index64
    task.y, task.order, task.n_order = &y[0], &order[0], order.shape[0]
    task.n_features, task.n_outputs = n_features, intercept.shape[1]
    if weight is not None:
        task.weight = &weight[0]
    if mean is not None:
        task.mean = &mean[0]
    if scale is not None:
        task.scale = &scale[0]
    task.coef, task.ld, task.intercept = &coef[0, 0], coef.shape[1], &intercept[0, 0]
    if velocity is not None:
        task.velocity = &velocity[0, 0]
    task.fit_intercept, task.momentum = fit_intercept, momentum
    if l1 is not None:
        task.l1 = &l1[0]
    if l2 is not None:
        task.l2 = &l2[0]
    task.logits, task.loss, task.chunk = &logits[0], &loss[0], loss.shape[0]
    task.block, task.n_blocks = &block[0], block.shape[0] - 1

    cdef const skdl_kernels* kernels = skdl_select_isa(isa, real is double)
    with nogil, parallel(num_threads=n_threads, use_threads_if=n_threads > 1):
        if task.indptr != NULL:
            train_sparse(kernels, &task, &barrier, batch_size, &step_sizes[0], omp_get_thread_num(),
                         omp_get_num_threads(), &total)
        else:
            train_dense(kernels, &task, &barrier, batch_size, &step_sizes[0], omp_get_thread_num(),
                        omp_get_num_threads(), &total)
    raise_pending(barrier.stop)
    return total


cdef void predict_worker(const skdl_kernels* kernels, const skdl_task* shared, skdl_barrier* barrier, int64_t item_size, char* out,
                 int thread, int n_threads) noexcept nogil:
    cdef skdl_task t = shared[0]
    cdef int64_t start, blk, n_rows, c, n_chunks
    cdef double last_poll = skdl_seconds()
    cdef skdl_fetch fetch
    t.packed = <char*>shared.packed + thread * t.chunk * t.ld * item_size
    t.logits = <char*>shared.logits + thread * t.n_blocks * t.n_outputs * t.chunk * item_size
    n_chunks = n_units(t.n_order, t.chunk)
    for c in range(share(n_chunks, thread, n_threads), share(n_chunks, thread + 1, n_threads)):
        start = c * t.chunk
        n_rows = min(t.chunk, t.n_order - start)
        kernels.plan_fetch(&t, &fetch, start + n_rows, 0, n_rows, 0, 0, t.n_blocks, 0)
        for blk in range(t.n_blocks):
            kernels.forward(&t, &fetch, start, 0, n_rows, n_rows, blk)
        kernels.write_logits(&t, n_rows, out + start * t.n_outputs * item_size)
        poll_signals(barrier, thread, &last_poll)
        if skdl_stopped(barrier):
            return


def decision_function(
    const unsigned char[:, ::1] X,       # IN     (n_samples, n_features * item size)
    int storage,
    int64_t n_features,
    const int64_t[::1] rows,             # IN     (n_rows,) the rows that are last_poll for; None: all
    const real[:, ::1] coef,             # IN     (n_outputs, ld)
    const real[::1] intercept,           # IN     (n_outputs,)
    const int64_t[::1] block,            # IN     (n_blocks + 1,) columns
    int64_t chunk,
    real[::1] packed,                    # OUT    (n_threads * chunk * ld,)
    real[::1] logits,                    # OUT    (n_threads * n_blocks * n_outputs * chunk,)
    real[:, ::1] out,                    # OUT    (n_rows, n_outputs)
    int n_threads,
    int isa,
):
    """Logits X W^T + b of dense rows."""
    cdef skdl_task task
    cdef skdl_barrier barrier
    memset(&task, 0, sizeof(skdl_task))
    memset(&barrier, 0, sizeof(skdl_barrier))
    task.X, task.storage = <const char*>&X[0, 0], storage
    task.n_features, task.n_outputs, task.n_order = n_features, coef.shape[0], out.shape[0]
    if rows is not None:
        task.order = &rows[0]
    task.coef, task.ld, task.intercept = <void*>&coef[0, 0], coef.shape[1], <void*>&intercept[0]
    task.block, task.n_blocks = &block[0], block.shape[0] - 1
    task.packed, task.logits, task.chunk = &packed[0], &logits[0], chunk
    cdef const skdl_kernels* kernels = skdl_select_isa(isa, real is double)
    with nogil, parallel(num_threads=n_threads, use_threads_if=n_threads > 1):
        predict_worker(kernels, &task, &barrier, sizeof(real), <char*>&out[0, 0], omp_get_thread_num(), omp_get_num_threads())
    raise_pending(barrier.stop)


cdef void column_statistics_worker(const skdl_kernels* kernels, const skdl_task* shared, skdl_barrier* barrier, int64_t item_size, int64_t n_pieces,
                   double* total, int thread, int n_threads) noexcept nogil:
    cdef skdl_task t = shared[0]
    cdef int64_t n_chunks = n_units(t.n_order, t.chunk), part, c, blk, start, blk0 = 0, blk1 = t.n_blocks
    cdef int64_t p0 = share(n_pieces, thread, n_threads), p1 = share(n_pieces, thread + 1, n_threads)
    cdef double last_poll = skdl_seconds()
    if n_pieces == 1:
        p0, p1 = 0, 1
        blk0, blk1 = share(t.n_blocks, thread, n_threads), share(t.n_blocks, thread + 1, n_threads)
    else:
        t.packed = <char*>shared.packed + thread * t.chunk * t.ld * item_size
    for part in range(p0, p1):
        t.coef = <char*>shared.coef + part * 2 * t.ld * item_size
        for c in range(share(n_chunks, part, n_pieces), share(n_chunks, part + 1, n_pieces)):
            start = c * t.chunk
            for blk in range(blk0, blk1):
                kernels.statistics(&t, start, min(t.chunk, t.n_order - start), blk, total + part * 2 * t.ld)
            poll_signals(barrier, thread, &last_poll)
            if skdl_stopped(barrier):
                return


def column_statistics(
    const real[::1] first,               # IN     (ld,) some row, about which the sums are taken
    real[:, :, ::1] extremes,            # INOUT  (n_pieces, 2, ld) minimum and maximum; infinity and its opposite before
    real[::1] packed,                    # OUT    (chunk * ld,) zeros before; for each thread where they share the parts
    int64_t chunk,
    const unsigned char[:, ::1] X,       # IN     (n_samples, n_features * item size)
    int storage,
    int64_t n_features,
    const int64_t[::1] rows,             # IN     (n_rows,) the rows that count
    const real[::1] weight,              # IN     (n_samples,) or None
    const int64_t[::1] block,            # IN     (n_blocks + 1,) columns
    double[:, :, ::1] total,             # OUT    (n_pieces, 2, ld) weighted sum and sum of squares of x - first; zeros before
    int n_threads,
    int isa,
):
    """Sums, minimum and maximum of each column of dense rows, for each of n_pieces even parts of the rows.

    Threads share the parts or, where there is one, the blocks of columns.
    """
    cdef skdl_task task
    cdef skdl_barrier barrier
    memset(&task, 0, sizeof(skdl_task))
    memset(&barrier, 0, sizeof(skdl_barrier))
    task.X, task.storage, task.n_features = <const char*>&X[0, 0], storage, n_features
    task.order, task.n_order, task.ld = &rows[0], rows.shape[0], first.shape[0]
    if weight is not None:
        task.weight = &weight[0]
    task.block, task.n_blocks = &block[0], block.shape[0] - 1
    task.first_row, task.coef, task.packed, task.chunk = &first[0], &extremes[0, 0, 0], &packed[0], chunk
    cdef const skdl_kernels* kernels = skdl_select_isa(isa, real is double)
    with nogil, parallel(num_threads=n_threads, use_threads_if=n_threads > 1):
        column_statistics_worker(kernels, &task, &barrier, sizeof(real), total.shape[0], &total[0, 0, 0], omp_get_thread_num(),
                 omp_get_num_threads())
    raise_pending(barrier.stop)


ctypedef fused index:
    int32_t
    int64_t


def sparse_column_statistics(
    const real[::1] data,                # IN     (nnz,)
    const index[::1] indices,            # IN     (nnz,)
    const index[::1] indptr,             # IN     (n_samples + 1,)
    const int64_t[::1] rows,             # IN     (n_rows,) the rows that count
    const double[::1] weight,            # IN     (n_samples,) or None
    double[:, ::1] total,                # OUT    (2, n_features) sum of w x^2, maximum of |x|; zeros before
):
    """Weighted sum of squares and largest magnitude of each column of CSR rows; NaN is kept."""
    cdef int64_t i, row, e
    cdef double x, w, last_poll = skdl_seconds()
    cdef bint stopped = False
    with nogil:
        for i in range(rows.shape[0]):
            if i % 64 == 0 and interrupted(&last_poll):
                stopped = True
                break
            row = rows[i]
            w = 1.0 if weight is None else weight[row]
            for e in range(indptr[row], indptr[row + 1]):
                x = data[e] if data[e] >= 0 else -data[e]
                total[0, indices[e]] += w * x * x
                if not x <= total[1, indices[e]]:
                    total[1, indices[e]] = x
    raise_pending(stopped)


def find_csr_defect(
    const index[::1] indices,            # IN     (nnz,)
    const index[::1] indptr,             # IN     (n_samples + 1,)
    int64_t n_stored,
    int64_t n_features,
):
    """Return (what, where) of the first defect that would lead a kernel out of bounds, or None."""
    cdef int64_t i, n_samples = indptr.shape[0] - 1
    cdef int what = 0
    with nogil:
        if indptr[0] != 0:
            what, i = 1, 0
        else:
            for i in range(n_samples):
                if indptr[i + 1] < indptr[i]:
                    what = 2
                    break
                if indptr[i + 1] > n_stored:
                    what = 3
                    break
            else:
                for i in range(indptr[n_samples]):
                    if indices[i] < 0 or indices[i] >= n_features:
                        what = 4
                        break
    return (what, i) if what else None
