/* The micro-kernels of the CPU backend: one table of functions for each instruction set and real type.
 *
 * _kernels.pyx decides what is computed in which order; the inner loops stand in _microkernels_isa_real.h, which is included
 * below once for each instruction set (baseline, AVX2, AVX-512) and each real type (float, double).
 * Vectors are GCC's and Clang's generic ones, as wide as the registers; so the order of a sum, and with it the rounding,
 * differs between instruction sets (one order for all took seven times as long on AVX2).
 */
#ifndef SKDL_MICROKERNELS_H
#define SKDL_MICROKERNELS_H

#include <float.h>
#include <limits.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifdef _OPENMP
#include <omp.h>
#define SKDL_OPENMP 1
#else
#define SKDL_OPENMP 0
#define omp_get_thread_num() 0
#define omp_get_num_threads() 1
#define omp_get_max_threads() 1
#endif

/* Rows and columns of every scratch array are padded to this many elements, so no inner loop has a tail. */
#define SKDL_PAD 16

enum { SKDL_FLOAT64, SKDL_FLOAT32, SKDL_FLOAT16, SKDL_UINT8, SKDL_INT8 };
static const int64_t skdl_item_size[] = {8, 4, 2, 1, 1};

/* What a prediction is asked for; the result is real (n_rows, n_outputs); twice real (n_rows, n_classes); int64 (n_rows,), the
 * most probable class of each row; double (2, n_rows), its loss and whether its class is that. */
enum { SKDL_LOGITS, SKDL_PROBABILITIES, SKDL_LOG_PROBABILITIES, SKDL_CLASSES, SKDL_LOSSES };

/* What a micro-kernel reads and writes. `real` is float or double, like the table in use.
 * A block is a range of columns [block[blk], block[blk + 1]); a chunk is those rows of a minibatch that are in scratch. */

/* Rows: dense, or CSR where indptr is not NULL. */
typedef struct {
    const char *X;       /* IN    (n_samples, n_features) of `storage`, or the nnz values of CSR */
    const char *indices; /* IN    (nnz,) int32, or int64 where index64 */
    const char *indptr;  /* IN    (n_samples + 1,) like indices; to train (n_samples * n_blocks + 1,): where the values of a
                          *       row in a block begin */
    const int32_t *y;    /* IN    (n_samples,) class numbers; to predict (n_rows,), NULL where no losses are asked for */
    const void *weight;  /* IN    (n_samples,) real, mean 1; NULL: all are 1 */
    int64_t n_features;
    int storage, index64;
} skdl_data;

/* Parameters of models side by side, the coordinates they are for, and how they step. A model sees (x - mean) * scale; for CSR
 * x * scale. There is one model to predict with. */
typedef struct {
    void *coef;               /* INOUT (n_models, n_outputs, ld) real; CSR: in pieces with the velocity, see
                               *       _microkernels_isa_real.h */
    void *velocity;           /* INOUT like coef; NULL for CSR, and where momentum = 0 and a chunk holds a minibatch */
    void *intercept;          /* INOUT (n_models, n_outputs) real, then their velocity, like them */
    const void *mean, *scale; /* IN    (ld,) real; CSR: NULL, (n_features,); both NULL: x as it is */
    const void *l1, *l2;      /* IN    (n_models, ld) real; NULL for CSR, and where there is no such penalty */
    const double *momentum;   /* IN    (n_models,) */
    int64_t n_models, n_outputs, ld;
    int fit_intercept;
} skdl_model;

typedef struct {
    void *packed; /* (chunk, ld) real, block after block, zeros before; CSR: (n_blocks, SKDL_PAD, ld) */
    void *logits; /* (n_blocks + 1, n_models, n_outputs, chunk) real; the last are the residuals */
    void *loss;   /* (n_models, chunk) real */
    int64_t chunk, n_blocks;
    const int64_t *block; /* (n_blocks + 1,) columns */
} skdl_scratch;

/* CSR: the steps that a feature has not taken, since it takes them when it next occurs. Step 0 stands for the decay of the
 * velocity with which an epoch begins. */
typedef struct {
    int64_t n_pieces;
    const int64_t *piece; /* IN    (n_pieces + 1,) lanes */
    void *feature;        /* INOUT (n_pieces, n_features) see _microkernels_isa_real.h; last_step is 0 before and after
                                  *       an epoch */
    int has_l1;
    int64_t n_lanes;     /* 1 for one model; else a power of two: lane n_lanes * c + m is output c of model m */
    const void *l1, *l2; /* IN    (n_features, SKDL_PAD) real, of the first n_lanes lanes, over and over; NULL for one model,
                          *       and where there is no such penalty */
    /* (n_batches + 2,) or, for several models, (n_batches + 2, SKDL_PAD) like l1 */
    const double *drift;         /* IN    sums of the step sizes from a step on, decayed: see lagged_step */
    const double *decay;         /* IN    powers of the momentum */
    const double *cumulative_lr; /* IN    sums of the step sizes before a step */
} skdl_lags;

typedef struct {
    skdl_data data;
    skdl_model model;
    skdl_scratch scratch;
    skdl_lags lags;
    const int64_t *order; /* IN    (n_order,) rows in the order in which they are visited; to predict also NULL: 0, 1, 2, ... */
    int64_t n_order;
    /* prediction of CSR only */
    const int32_t
        *place; /* IN    (n_features,) the row of coef of each feature that occurs; NULL: row j is that of feature j */
    /* statistics only */
    const void *first_row; /* IN    (ld,) real */
    void *extremes;        /* INOUT (2, ld) real, minimum and maximum */
} skdl_task;

/* A thread's prefetch of its columns of the next chunk's rows into L2. Rows come in random order, so the processor cannot
 * guess them; and it stalls when too many are requested at once, so the requests are spread over all products of the
 * current chunk: `rate` / 256 cache lines for each step of an inner loop. */
typedef struct {
    const skdl_task *task;
    int64_t position, end;   /* in `order` */
    int64_t column, n_bytes; /* first column, and what follows it in each row */
    int64_t offset, credit, rate;
    const char *row;
} skdl_fetch;

typedef struct {
    const char *name;
    void (*plan_fetch)(const skdl_task *, skdl_fetch *, int64_t start, int64_t r0, int64_t r1, int64_t n_rows, int64_t blk0,
                       int64_t blk1, int64_t n_outputs);
    void (*forward)(const skdl_task *, skdl_fetch *, int64_t start, int64_t r0, int64_t r1, int64_t n_rows, int64_t blk);
    void (*softmax)(const skdl_task *, int64_t start, int64_t r0, int64_t r1, int64_t n_rows, double batch_scale);
    void (*backward)(const skdl_task *, skdl_fetch *, int64_t n_rows, int64_t blk, int64_t c0, int64_t c1, int first, int last,
                     const double *lr);
    void (*step_intercept)(const skdl_task *, int64_t n_rows, int first, int last, const double *lr);
    double (*sum_loss)(const skdl_task *, int64_t n_rows, int64_t model);
    int (*finish)(const skdl_task *, int output, int64_t start, int64_t n_rows, void *result);
    void (*sparse_forward)(const skdl_task *, int64_t start, int64_t n_rows, int64_t blk, int64_t piece, int64_t until);
    void (*sparse_backward)(const skdl_task *, int64_t start, int64_t n_rows, int64_t blk, int64_t piece);
    void (*finish_lagged)(const skdl_task *, int64_t j0, int64_t j1, int64_t piece, int64_t last);
    void (*sparse_logits)(const skdl_task *, int64_t start, int64_t n_rows);
    void (*statistics)(const skdl_task *, int64_t start, int64_t n_rows, int64_t blk, double *total);
    void (*products)(const void *rows, int64_t n_rows, int64_t width, int64_t ld, const void *vectors, int64_t n, double *out);
    void (*transposed_products)(const void *rows, int64_t n_rows, int64_t ld, const void *vectors, int64_t n, double *out);
} skdl_kernels;

static inline double skdl_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A barrier that spins for a while, then yields, then sleeps on a futex: with more threads than
 * cores the thread that is waited for needs this core, and a yield alone may not give it.
 * `stop` asks all threads to end their work: at once, or after the minibatch. A wait returns what had been asked before the
 * last thread arrived, so all threads get the same answer. */
enum { SKDL_GO_ON, SKDL_STOP, SKDL_LEAVE };
typedef struct { int arrived, round, asleep, stop, stopping; } skdl_barrier;

/* Sleeps until another round has begun. */
static inline void skdl_sleep(skdl_barrier *b, int round)
{
#if defined(__linux__)
    __atomic_add_fetch(&b->asleep, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &b->round, FUTEX_WAIT_PRIVATE, round, NULL, NULL, 0);
    __atomic_sub_fetch(&b->asleep, 1, __ATOMIC_SEQ_CST);
#else
    (void)b, (void)round;
    sched_yield();
#endif
}

static inline void skdl_wake(skdl_barrier *b)
{
#if defined(__linux__)
    if (__atomic_load_n(&b->asleep, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &b->round, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
#else
    (void)b;
#endif
}

static inline void skdl_ask(skdl_barrier *b, int stop) { __atomic_store_n(&b->stop, stop, __ATOMIC_RELAXED); }
static inline int skdl_asked(const skdl_barrier *b) { return __atomic_load_n(&b->stop, __ATOMIC_RELAXED); }

/* How long a wait spins: several times the length of a phase, since a thread that has gone to sleep comes back so late that the
 * others go to sleep in the next phase, too; and how often it looks at the clock. */
#define SPIN_SECONDS 100e-6
#define SPINS_PER_LOOK 32

/* Adds the seconds of a long wait, one that does not end while it spins, to `waited`. */
static inline int skdl_wait(skdl_barrier *b, int n_threads, double *waited)
{
    if (n_threads == 1) return b->stop;
    const int round = __atomic_load_n(&b->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&b->arrived, 1, __ATOMIC_ACQ_REL) == n_threads) {
        b->stopping = skdl_asked(b);
        __atomic_store_n(&b->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&b->round, round + 1, __ATOMIC_SEQ_CST); /* before `asleep` is read: no sleeper is missed */
        skdl_wake(b);
        return b->stopping;
    }
    double since = 0, now = 0;
    int yields = 0;
    for (int spins = 0; __atomic_load_n(&b->round, __ATOMIC_ACQUIRE) == round; spins++) {
        if (spins % SPINS_PER_LOOK == SPINS_PER_LOOK - 1) {
            now = skdl_seconds();
            if (since == 0) since = now;
        }
        if (now - since < SPIN_SECONDS) {
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        } else if (yields++ < 10) sched_yield();
        else skdl_sleep(b, round);
    }
    if (yields > 0) *waited += skdl_seconds() - since;
    return b->stopping;
}

/* The next number of a count that threads share. */
static inline int64_t skdl_claim(int64_t *count) { return __atomic_fetch_add(count, 1, __ATOMIC_RELAXED); }

/* Lanes of two vectors a and b in a new order: lane i of a is i, of b it is i + the number of lanes. */
#if defined(__clang__)
#define SHUFFLE(a, b, mask_type, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, mask_type, ...) __builtin_shuffle(a, b, (mask_type){__VA_ARGS__})
#endif

#define SKDL_JOIN_(f, isa, real) skdl_##f##_##isa##_##real
#define SKDL_JOIN(f, isa, real) SKDL_JOIN_(f, isa, real)
#define NAME(f) SKDL_JOIN(f, ISA, REAL)
#define DOUBLE(f) SKDL_JOIN(f, ISA, double)
#define SKDL_STRING_(...) #__VA_ARGS__
#define SKDL_STRING(...) SKDL_STRING_(__VA_ARGS__)

/* Functions between these may use the instructions of `features`. Only GCC must be told to use whole vectors of AVX-512. */
#define SKDL_PRAGMA(...) _Pragma(SKDL_STRING_(__VA_ARGS__))
#if defined(__clang__)
#define TARGET_BEGIN(features) SKDL_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define TARGET_END SKDL_PRAGMA(clang attribute pop)
#define WHOLE_VECTORS
#else
#define TARGET_BEGIN(features) SKDL_PRAGMA(GCC push_options) SKDL_PRAGMA(GCC target(features))
#define TARGET_END SKDL_PRAGMA(GCC pop_options)
#define WHOLE_VECTORS ",prefer-vector-width=512"
#endif

/* Register tiles: the sums and the operands of a tile must fit into 16 or 32 registers. Tiles have up to 6 outputs. */
#define FORWARD_ROWS 4
/* From so many outputs on, the forward pass transposes the rows, in panels of so many columns. */
#define WIDE_OUTPUTS 32
#define PANEL_COLUMNS 128
#define COLUMN_TILE 4
/* Columns and rows of a panel of products of a few rows and vectors. */
#define PRODUCT_COLUMNS 512
#define PRODUCT_ROWS 128

#define ISA baseline
#define VECTOR_BYTES 16
#if defined(__aarch64__)
#define FORWARD_OUTPUTS 5
#define BACKWARD_OUTPUTS 6
#define BACKWARD_VECTORS 4
#else
#if defined(__x86_64__)
#define X86(f) _mm_##f
#endif
#define FORWARD_OUTPUTS 2
#define BACKWARD_OUTPUTS 4
#define BACKWARD_VECTORS 2
#endif
#include "_microkernels_isa.h"

#if defined(__x86_64__)
#define ISA avx2
#define VECTOR_BYTES 32
#define X86(f) _mm256_##f
#define FORWARD_OUTPUTS 2
#define BACKWARD_OUTPUTS 6
#define BACKWARD_VECTORS 2
TARGET_BEGIN("avx2,fma,f16c")
#include "_microkernels_isa.h"
TARGET_END

#define ISA avx512
#define VECTOR_BYTES 64
#define X86(f) _mm512_##f
#define FORWARD_OUTPUTS 6
#define BACKWARD_OUTPUTS 6
#define BACKWARD_VECTORS 4
TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c" WHOLE_VECTORS)
#include "_microkernels_isa.h"
TARGET_END
#endif

/* The number of instruction sets (ISAs) that this processor has; they are numbered from the plainest. Every processor with
 * AVX2 and FMA has F16C, which older compilers cannot ask for. */
static inline int skdl_n_isas(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return 1;
    const int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
                       && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return avx512 ? 3 : 2;
#else
    return 1;
#endif
}

static inline const skdl_kernels *skdl_select_isa(int isa, int is_double)
{
#if defined(__x86_64__)
    if (isa == 2) return is_double ? &skdl_kernels_avx512_double : &skdl_kernels_avx512_float;
    if (isa == 1) return is_double ? &skdl_kernels_avx2_double : &skdl_kernels_avx2_float;
#else
    (void)isa;
#endif
    return is_double ? &skdl_kernels_baseline_double : &skdl_kernels_baseline_float;
}
#endif
