/* The OpenCL kernels. OpenCL C 1.2; needs only single precision, no atomics and no order between groups.
 *
 * Options of the build, each with a default (`_program.py` chooses them)
 *   DOUBLE                  compute in double instead of float: `real` below
 *   STORAGE                 type of the values of X in memory: double, float, half (then HALF is defined as well), uchar, char
 *   SPARSE                  build the kernels for CSR as well
 *   GROUP                   work items of a group: 1 on a CPU, where vectors do the work
 *   TWO_CLASSES             a model has one output: the logit of the second class against 0
 *   VECTOR                  outputs of a vector
 *   ROWS, COLUMNS           a work item's tile of a matrix product: rows, and vectors of outputs
 *   PANEL                   outputs of a panel, a multiple of VECTOR * COLUMNS
 *   ITEMS_PER_SOFTMAX_ROW   work items that make the softmax of a row together, a power of two and a divisor of GROUP
 *   ITEMS_PER_PACKED_ROW    work items that read a row of X together, a divisor of GROUP
 *
 * Layout. The lanes of a vector are outputs: a matrix with a row per output is cut into panels of PANEL outputs, each stored
 * (rows, PANEL). W is (panel, ld, PANEL), with a row per feature, the intercept in row n_features, whose x is always 1, and
 * zeros up to ld; logits and residuals are (panel, ldr, PANEL), with a row per sample. Lanes without an output have the
 * intercept -infinity: their probability is 0, and so are their residual and their gradient.
 *
 * Models that train side by side have panels of their own, one model's behind another's. Of two classes the lanes of a vector
 * are models. Models that share vectors are a bundle: as many as there are lanes, or one. Whatever belongs to a model, such as
 * its step sizes, is (..., n_bundles, BUNDLE).
 *
 * Sums run in an order that depends on options and one model's shapes alone: on one device, the same bits every time, however
 * many models there are. The number of a minibatch is passed as the offset of dimension 1, so that the arguments of a kernel
 * are set once.
 */
#ifndef STORAGE
#define STORAGE float
#endif
#ifndef GROUP
#define GROUP 1
#endif
#ifndef VECTOR
#define VECTOR 4
#endif
#ifndef ROWS
#define ROWS 8
#endif
#ifndef COLUMNS
#define COLUMNS 1
#endif
#ifndef PANEL
#define PANEL (VECTOR * COLUMNS)
#endif
#ifndef ITEMS_PER_SOFTMAX_ROW
#define ITEMS_PER_SOFTMAX_ROW 1
#endif
#ifndef ITEMS_PER_PACKED_ROW
#define ITEMS_PER_PACKED_ROW 1
#endif

#ifdef DOUBLE
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
typedef double real;
#define REAL double
#else
typedef float real;
#define REAL float
#endif

#ifdef HALF
#define LOAD(p, i) ((real)vload_half(i, p))
#else
#define LOAD(p, i) ((real)(p)[i])
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#if VECTOR == 1
typedef real vector;
#define GET(p) (*(p))
#define SET(v, p) (*(p) = (v))
#else
typedef JOIN(REAL, VECTOR) vector;
#define GET(p) JOIN(vload, VECTOR)(0, p)
#define SET(v, p) JOIN(vstore, VECTOR)(v, 0, p)
#endif

/* What belongs to the models of a bundle. OF_MODELS: that of bundle m, in row i. */
#ifdef TWO_CLASSES
#define BUNDLE VECTOR
typedef vector bundle;
#define OF_MODELS(p, i) GET((p) + ((size_t)(i) * n_bundles + m) * BUNDLE)
#else
#define BUNDLE 1
typedef real bundle;
#define OF_MODELS(p, i) (p)[(size_t)(i) * n_bundles + m]
#endif

#if GROUP == 1
#define BARRIER
#else
#define BARRIER barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
#endif
#define KERNEL __kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void

/* Arguments that several kernels share.
 *
 * base < 0: all of X is here, and `order` picks its rows; otherwise X holds the rows that are visited from the base-th on. */
#define ROWS_OF_X __global const STORAGE *restrict X, const long base

/* (ld,) */
#define COORDINATES __global const real *restrict mean, __global const real *restrict scale

/* n_outputs: of a model. ld, n_panels, n_bundles: see Layout. ldr: rows of the scratch. slice: features of a slice, a multiple
 * of ROWS. chunk: rows of a minibatch that are processed together. n_order: rows of an epoch. */
#define SHAPE                                                                                                        \
    const int n_features, const int ld, const int n_outputs, const int n_panels, const int n_bundles, const int ldr, \
        const int slice, const int n_slices, const int chunk, const int batch_size, const long n_order

#define LABELS __global const long *restrict order, __global const int *restrict y, __global const real *restrict weight

/* coef, velocity: like W. l1, l2: (ld, models). step_sizes: (n_batches, models). momentum: (models,). n_stepped: features that
 * take steps, the intercept included if it is fitted. */
#define STEP                                                                                                                \
    __global real *restrict coef, __global real *restrict velocity, __global const real *restrict l1,                       \
        __global const real *restrict l2, __global const real *restrict step_sizes, __global const real *restrict momentum, \
        const int n_stepped

/* Where chunk `part` of a minibatch begins in `order`; rows of a minibatch and of a chunk: none beyond the end. */
long chunk_start(int batch, int part, int batch_size, int chunk) { return (long)batch * batch_size + (long)part * chunk; }

int batch_rows(int batch, int batch_size, long n_order)
{ return (int)min((long)batch_size, n_order - (long)batch * batch_size); }

int chunk_rows(int batch, int part, int batch_size, int chunk, long n_order)
{ return min(chunk, batch_rows(batch, batch_size, n_order) - part * chunk); }

/* Offset of vector v of a row in panels of `rows` rows each. */
size_t vector_offset(int v, int row, int rows)
{
    const int per_panel = PANEL / VECTOR;
    return ((size_t)(v / per_panel) * rows + row) * PANEL + (size_t)(v % per_panel) * VECTOR;
}

/* V := momentum V + g; W := prox(W - lr V), of a vector of outputs of feature j of bundle m; see skdl/_sgd.py. */
void take_step(vector g, int batch, int m, int j, size_t offset, int n_bundles, __global real *coef, __global real *velocity,
               __global const real *l1, __global const real *l2, __global const real *step_sizes, __global const real *momentum,
               int n_stepped)
{
    if (j >= n_stepped) return;
    const bundle lr = OF_MODELS(step_sizes, batch);
    g += OF_MODELS(momentum, 0) * GET(velocity + offset);
    SET(g, velocity + offset);
    const vector w = (GET(coef + offset) - lr * g) * (1 / (1 + lr * OF_MODELS(l2, j))), threshold = lr * OF_MODELS(l1, j);
    SET(w - clamp(w, -threshold, threshold), coef + offset);
}

/* ---- dense ------------------------------------------------------------------------------------------------------- */

/* Converts columns [j0, j1) of the rows first, first + step, ... of a chunk to real, centred and scaled. The items of a row are
 * neighbours. */
void pack(int first, int step, int n_rows, ROWS_OF_X, __global const long *restrict order, long start, int n_features, int j0,
          int j1, COORDINATES, __global real *restrict packed, int ld)
{
    const int last = min(j1, n_features), item = get_local_id(0) % ITEMS_PER_PACKED_ROW;
    for (int r = first; r < n_rows; r += step) {
        const size_t row = base < 0 ? (size_t)order[start + r] : (size_t)(start + r - base);
        __global const STORAGE *restrict x = X + row * n_features;
        __global real *restrict out = packed + (size_t)r * ld;
        for (int j = j0 + item; j < last; j += ITEMS_PER_PACKED_ROW) out[j] = (LOAD(x, j) - mean[j]) * scale[j];
        for (int j = max(j0, n_features) + item; j < j1; j += ITEMS_PER_PACKED_ROW) out[j] = j == n_features ? 1 : 0;
    }
}

/* sums[r][c] = sum over k of a[r][k] b[k][c], with two strides for a, and b a part of a panel. */
void multiply(vector sums[ROWS][COLUMNS], __global const real *restrict a, size_t row_stride, size_t k_stride,
              __global const real *restrict b, int n)
{
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) sums[r][c] = 0;
    for (int k = 0; k < n; k++) {
        vector bk[COLUMNS];
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) bk[c] = GET(b + (size_t)k * PANEL + c * VECTOR);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const real x = a[r * row_stride + k * k_stride];
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) sums[r][c] += x * bk[c];
        }
    }
}

/* The tiles of a product with `n_rows` rows are numbered along the outputs of a panel first, then the rows, then the panels. */
#define TILES_ACROSS (PANEL / (VECTOR * COLUMNS))
int tile_row(int tile, int n_rows) { return tile / TILES_ACROSS % (n_rows / ROWS) * ROWS; }
int tile_panel(int tile, int n_rows) { return tile / TILES_ACROSS / (n_rows / ROWS); }
size_t tile_offset(int tile, int n_rows, int rows)
{
    const int across = tile % TILES_ACROSS;
    return ((size_t)tile_panel(tile, n_rows) * rows + tile_row(tile, n_rows)) * PANEL + across * VECTOR * COLUMNS;
}
int tiles_of(int n_rows, int n_panels) { return n_rows / ROWS * TILES_ACROSS * n_panels; }
int whole_tiles(int n_rows) { return (n_rows + ROWS - 1) / ROWS * ROWS; }

/* One tile of the logits from columns [j0, j1). Rows beyond the last are computed from leftovers in `packed`, and not read. */
void forward_tile(int tile, int n_rows, __global const real *restrict packed, __global const real *restrict coef, int j0,
                  int j1, int ld, int ldr, __global real *restrict logits)
{
    vector sums[ROWS][COLUMNS];
    const int r = tile_row(tile, n_rows);
    const size_t panel = tile_panel(tile, n_rows), across = tile % TILES_ACROSS * VECTOR * COLUMNS;
    multiply(sums, packed + (size_t)r * ld + j0, ld, 1, coef + (panel * ld + j0) * PANEL + across, j1 - j0);
    __global real *out = logits + tile_offset(tile, n_rows, ldr);
    for (int i = 0; i < ROWS; i++)
        for (int c = 0; c < COLUMNS; c++) SET(sums[i][c], out + i * PANEL + c * VECTOR);
}

/* One tile of the gradient of features [j0, j0 + n), summed over rows [r0, r1) in order. */
void backward_tile(vector sums[ROWS][COLUMNS], int tile, int j0, int n, int r0, int r1, __global const real *restrict packed,
                   __global const real *restrict residuals, int ld, int ldr)
{
    const size_t panel = tile_panel(tile, n), across = tile % TILES_ACROSS * VECTOR * COLUMNS;
    multiply(sums, packed + (size_t)r0 * ld + j0 + tile_row(tile, n), 1, ld, residuals + (panel * ldr + r0) * PANEL + across,
             r1 - r0);
}

/* ---- softmax ----------------------------------------------------------------------------------------------------- */

/* softmax_rows turns logits into residuals Z - I_y, weighted and divided by the size of the minibatch, and, where `loss` is
 * given, into the loss of each row. Row r of bundle m has the number m n_rows + r: it does those from `first` on (GROUP /
 * ITEMS_PER_SOFTMAX_ROW at a time), every `step`, as long as they are below `end`. */
#define SOFTMAX_ROWS                                                                                                          \
    int first, int end, int step, int n_rows, long start, int rows_of_batch, int n_outputs, int n_panels, int n_bundles,      \
        int ldr, int n_slices, long n_order, LABELS, __global const real *restrict logits, __global real *restrict residuals, \
        __global real *restrict loss, __local real *scratch

#ifdef TWO_CLASSES
/* One output: the logit of the second class against 0. */
void softmax_rows(SOFTMAX_ROWS)
{
    const size_t slice_size = (size_t)n_panels * ldr * PANEL;
    for (int i = first + (int)get_local_id(0); i < end; i += step) {
        const int m = i / n_rows, r = i % n_rows;
        const long row = order[start + r];
        const size_t offset = vector_offset(m, r, ldr);
        vector h = 0;
        for (int s = 0; s < n_slices; s++) h += GET(logits + s * slice_size + offset);
        const real target = y[row];
        const vector one = 1, zero = 0, e = exp(-fabs(h)), p = (h > zero ? one : e) / (one + e);
        SET((p - target) * (weight[row] / rows_of_batch), residuals + offset);
        if (loss) SET(weight[row] * (log1p(e) + fmax(h, zero) - target * h), loss + (m * n_order + start + r) * BUNDLE);
    }
}
#else
real largest_lane(vector v)
{
    real lane[VECTOR], top;
    SET(v, lane);
    top = lane[0];
    for (int i = 1; i < VECTOR; i++) top = fmax(top, lane[i]);
    return top;
}

real sum_of_lanes(vector v)
{
    real lane[VECTOR], sum = 0;
    SET(v, lane);
    for (int i = 0; i < VECTOR; i++) sum += lane[i];
    return sum;
}

/* The largest, or the sum, over the items of a row. All items of the group call it together. */
real reduce_row(real x, bool largest, __local real *scratch)
{
#if ITEMS_PER_SOFTMAX_ROW > 1
    const int item = get_local_id(0);
    for (int distance = ITEMS_PER_SOFTMAX_ROW / 2; distance > 0; distance /= 2) {
        scratch[item] = x;
        BARRIER;
        const real other = scratch[item ^ distance];
        x = largest ? fmax(x, other) : x + other; /* the same bits on both sides: a + b = b + a */
        BARRIER;
    }
#endif
    return x;
}

void softmax_rows(SOFTMAX_ROWS)
{
    const int item = get_local_id(0) % ITEMS_PER_SOFTMAX_ROW, n_vectors = (n_outputs + VECTOR - 1) / VECTOR;
    const size_t slice_size = (size_t)n_panels * ldr * PANEL;
    for (int group_row = first; group_row < end; group_row += step) {
        const int i = group_row + (int)get_local_id(0) / ITEMS_PER_SOFTMAX_ROW, m = i / n_rows, r = i % n_rows;
        const int v0 = m * (n_panels / n_bundles) * (PANEL / VECTOR), v1 = i < end ? v0 + n_vectors : v0;
        const long row = order[start + r];
        const int label = y[row], label_vector = v0 + label / VECTOR;
        real top = -INFINITY, sum = 0, h_label = 0;
        for (int v = v0 + item; v < v1; v += ITEMS_PER_SOFTMAX_ROW) {
            const size_t offset = vector_offset(v, r, ldr);
            vector h = 0;
            for (int s = 0; s < n_slices; s++) h += GET(logits + s * slice_size + offset);
            SET(h, residuals + offset);
            top = fmax(top, largest_lane(h));
            if (v == label_vector) h_label = residuals[offset + label % VECTOR];
        }
        top = reduce_row(top, true, scratch);
        for (int v = v0 + item; v < v1; v += ITEMS_PER_SOFTMAX_ROW) {
            const size_t offset = vector_offset(v, r, ldr);
            const vector e = exp(GET(residuals + offset) - top);
            SET(e, residuals + offset);
            sum += sum_of_lanes(e);
        }
        sum = reduce_row(sum, false, scratch);
        const real scale = weight[row] / rows_of_batch;
        for (int v = v0 + item; v < v1; v += ITEMS_PER_SOFTMAX_ROW) {
            const size_t offset = vector_offset(v, r, ldr);
            SET(GET(residuals + offset) * (scale / sum), residuals + offset);
            if (v == label_vector) {
                residuals[offset + label % VECTOR] -= scale;
                if (loss) loss[m * n_order + start + r] = weight[row] * (log(sum) + top - h_label);
            }
        }
    }
}
#endif

/* ---- dense: small minibatches, one launch each --------------------------------------------------------------------
 * A group owns a slice of the features and a share of the models. Launch i finishes minibatch i - 1: it adds up the logits of
 * all slices, makes the residuals (each group for itself) and updates its rows of W; then it makes its share of the logits of
 * minibatch i. */
KERNEL minibatch(ROWS_OF_X, SHAPE, LABELS, STEP, COORDINATES,
                 __global real *restrict packed,    /* (n_shares, ldr, ld): rows of a minibatch, kept for the next launch */
                 __global real *restrict logits,    /* (2, n_slices, panels): of this minibatch and the one before */
                 __global real *restrict residuals, /* (n_slices, panels) */
                 __global real *restrict loss)      /* (n_bundles, n_order, BUNDLE) */
{
    __local real scratch[GROUP];
    const int batch = get_global_id(1), s = get_group_id(0) % n_slices, share = get_group_id(0) / n_slices;
    const int n_shares = get_num_groups(0) / n_slices, m0 = n_bundles * share / n_shares,
              m1 = n_bundles * (share + 1) / n_shares;
    const int panels = n_panels / n_bundles, item = get_local_id(0); /* panels of a bundle */
    const int j0 = s * slice, j1 = min(j0 + slice, ld);
    const size_t slice_size = (size_t)n_panels * ldr * PANEL;
    logits += (batch & 1) * n_slices * slice_size;
    residuals += s * slice_size;
    packed += (size_t)share * ldr * ld;
    if (batch > 0) {
        const int n_rows = batch_rows(batch - 1, batch_size, n_order);
        __global const real *before = (batch & 1) ? logits - n_slices * slice_size : logits + n_slices * slice_size;
        softmax_rows(m0 * n_rows, m1 * n_rows, GROUP / ITEMS_PER_SOFTMAX_ROW, n_rows,
                     chunk_start(batch - 1, 0, batch_size, chunk), n_rows, n_outputs, n_panels, n_bundles, ldr, n_slices,
                     n_order, order, y, weight, before, residuals, s ? 0 : loss, scratch);
        BARRIER;
        for (int tile = tiles_of(j1 - j0, m0 * panels) + item; tile < tiles_of(j1 - j0, m1 * panels); tile += GROUP) {
            vector g[ROWS][COLUMNS];
            backward_tile(g, tile, j0, j1 - j0, 0, n_rows, packed, residuals, ld, ldr);
            const size_t offset = tile_offset(tile, j1 - j0, ld) + (size_t)j0 * PANEL;
            for (int i = 0; i < ROWS; i++)
                for (int c = 0; c < COLUMNS; c++)
                    take_step(g[i][c], batch - 1, tile_panel(tile, j1 - j0) / panels, j0 + tile_row(tile, j1 - j0) + i,
                              offset + i * PANEL + c * VECTOR, n_bundles, coef, velocity, l1, l2, step_sizes, momentum,
                              n_stepped);
        }
        BARRIER;
    }
    const int n_rows = max(batch_rows(batch, batch_size, n_order), 0);
    pack(item / ITEMS_PER_PACKED_ROW, GROUP / ITEMS_PER_PACKED_ROW, n_rows, X, base, order,
         chunk_start(batch, 0, batch_size, chunk), n_features, j0, j1, mean, scale, packed, ld);
    BARRIER;
    const int rows = whole_tiles(n_rows);
    for (int tile = tiles_of(rows, m0 * panels) + item; tile < tiles_of(rows, m1 * panels); tile += GROUP)
        forward_tile(tile, rows, packed, coef, j0, j1, ld, ldr, logits + s * slice_size);
}

/* ---- dense: large minibatches, chunk by chunk, with a launch for each step ------------------------------------
 * The offset of dimension 2 is the number of the chunk. */

/* ITEMS_PER_PACKED_ROW items pack a row together. */
KERNEL pack_rows(ROWS_OF_X, SHAPE, __global const long *restrict order, COORDINATES, __global real *restrict packed)
{
    const int batch = get_global_id(1), part = get_global_id(2), n_rows = chunk_rows(batch, part, batch_size, chunk, n_order);
    pack(get_global_id(0) / ITEMS_PER_PACKED_ROW, n_rows, n_rows, X, base, order, chunk_start(batch, part, batch_size, chunk),
         n_features, 0, ld, mean, scale, packed, ld);
}

/* An item makes a tile of the logits of one slice. */
KERNEL forward(SHAPE, __global const real *restrict packed, __global const real *restrict coef, __global real *restrict logits)
{
    const int batch = get_global_id(1), part = get_global_id(2);
    const int n_rows = whole_tiles(chunk_rows(batch, part, batch_size, chunk, n_order));
    const int n_tiles = tiles_of(n_rows, n_panels), s = get_global_id(0) / n_tiles;
    if (s < n_slices)
        forward_tile(get_global_id(0) % n_tiles, n_rows, packed, coef, s * slice, min(s * slice + slice, ld), ld, ldr,
                     logits + (size_t)s * n_panels * ldr * PANEL);
}

KERNEL softmax(SHAPE, LABELS, __global const real *restrict logits, __global real *restrict residuals,
               __global real *restrict loss)
{
    __local real scratch[GROUP];
    const int batch = get_global_id(1), part = get_global_id(2), n_rows = chunk_rows(batch, part, batch_size, chunk, n_order);
    const int end = n_bundles * n_rows;
    softmax_rows(get_group_id(0) * (GROUP / ITEMS_PER_SOFTMAX_ROW), end, end, n_rows,
                 chunk_start(batch, part, batch_size, chunk), batch_rows(batch, batch_size, n_order), n_outputs, n_panels,
                 n_bundles, ldr, n_slices, n_order, order, y, weight, logits, residuals, loss, scratch);
}

/* An item makes a tile of the gradient from its share of the rows, and adds it to that of the chunks before. */
KERNEL backward(SHAPE, __global const real *restrict packed, __global const real *restrict residuals, const int n_shares,
                __global real *restrict gradient) /* (n_shares, like W) */
{
    const int batch = get_global_id(1), part = get_global_id(2), n_rows = chunk_rows(batch, part, batch_size, chunk, n_order);
    const int n_tiles = tiles_of(ld, n_panels), tile = get_global_id(0) % n_tiles, share = get_global_id(0) / n_tiles;
    if (share >= n_shares) return;
    vector g[ROWS][COLUMNS];
    backward_tile(g, tile, 0, ld, (int)((long)n_rows * share / n_shares), (int)((long)n_rows * (share + 1) / n_shares), packed,
                  residuals, ld, ldr);
    gradient += (size_t)share * n_panels * ld * PANEL + tile_offset(tile, ld, ld);
    for (int i = 0; i < ROWS; i++)
        for (int c = 0; c < COLUMNS; c++) {
            __global real *out = gradient + i * PANEL + c * VECTOR;
            SET(part ? GET(out) + g[i][c] : g[i][c], out);
        }
}

/* An item updates a vector of outputs of a feature. */
KERNEL update(SHAPE, STEP, const int n_shares, __global const real *restrict gradient)
{
    const size_t size = (size_t)n_panels * ld * PANEL, offset = get_global_id(0) * VECTOR;
    if (offset >= size) return;
    vector g = 0;
    for (int share = 0; share < n_shares; share++) g += GET(gradient + share * size + offset);
    const int panel = offset / PANEL / ld, j = offset / PANEL % ld;
    take_step(g, get_global_id(1), panel / (n_panels / n_bundles), j, offset, n_bundles, coef, velocity, l1, l2, step_sizes,
              momentum, n_stepped);
}

/* ---- CSR ---------------------------------------------------------------------------------------------------------- */
#ifdef SPARSE
/* A feature takes its steps when it next occurs, all at once: over steps a .. b - 1 its velocity moves it by
 * v (drift[a] - m^(b - a) drift[b]), with drift[s] = lr_s + m drift[s + 1], and one proximal step is taken with the sum of the
 * step sizes. Step 0 is none; minibatch i makes step i + 1. See `lag_tables` in skdl/_backends.py.
 *
 * drift, decay, cumulative_lr: (n_batches + 2, models). last_step: (ld, n_vectors), the first step that is not taken yet. */
#define LAG_TABLES                                                                                                         \
    __global const real *restrict drift, __global const real *restrict decay, __global const real *restrict cumulative_lr, \
        __global int *restrict last_step

/* A vector of outputs of feature j of bundle m after steps since .. until - 1. */
vector lagged_parameters(int m, int j, size_t offset, int since, int until, int n_bundles, __global const real *coef,
                         __global const real *velocity, __global const real *l1, __global const real *l2,
                         __global const real *drift, __global const real *decay, __global const real *cumulative_lr)
{
    const bundle lr = OF_MODELS(cumulative_lr, until) - OF_MODELS(cumulative_lr, since);
    const bundle moved = OF_MODELS(drift, since) - OF_MODELS(decay, until - since) * OF_MODELS(drift, until);
    const vector threshold = lr * OF_MODELS(l1, j);
    vector w = GET(coef + offset) - moved * GET(velocity + offset);
    w *= 1 / (1 + lr * OF_MODELS(l2, j));
    return w - clamp(w, -threshold, threshold);
}

/* An item makes a vector of logits of a row. X has the stored values of the rows that are visited from the base-th on. */
KERNEL sparse_forward(ROWS_OF_X, __global const int *restrict indices, __global const int *restrict indptr, SHAPE, STEP,
                      LAG_TABLES, __global const real *restrict scale, __global real *restrict logits)
{
    const int batch = get_global_id(1), n_vectors = n_panels * (PANEL / VECTOR);
    const int r = get_global_id(0) / n_vectors, v = get_global_id(0) % n_vectors, m = v / (n_vectors / n_bundles);
    if (r >= batch_rows(batch, batch_size, n_order)) return;
    indptr += (long)batch * batch_size + r - base;
    vector h = 0;
    for (int e = indptr[0]; e < indptr[1]; e++) {
        const int j = indices[e];
        h += LOAD(X, e) * scale[j]
             * lagged_parameters(m, j, vector_offset(v, j, ld), last_step[(size_t)j * n_vectors + v], batch + 1, n_bundles,
                                 coef, velocity, l1, l2, drift, decay, cumulative_lr);
    }
    SET(h, logits + vector_offset(v, r, ldr));
}

/* An item brings a vector of outputs of a feature that occurs in the minibatch up to date and adds the gradient to its
 * velocity. The stored values of the minibatch are sorted by feature. */
KERNEL sparse_step(__global const STORAGE *restrict X, const int first_batch, /* that X has values of */
                   __global const int *restrict row,                          /* of each value, within its minibatch */
                   __global const int *restrict batch_begin,                  /* features of each minibatch */
                   __global const int *restrict feature,                      /* their columns */
                   __global const int *restrict feature_begin,                /* values of each */
                   SHAPE, STEP, LAG_TABLES, __global const real *restrict scale, __global const real *restrict residuals)
{
    const int batch = get_global_id(1), n_vectors = n_panels * (PANEL / VECTOR);
    const int u = batch_begin[batch - first_batch] + get_global_id(0) / n_vectors, v = get_global_id(0) % n_vectors;
    if (u >= batch_begin[batch - first_batch + 1] || feature[u] >= n_stepped) return;
    const int j = feature[u], until = batch + 1, m = v / (n_vectors / n_bundles);
    const size_t offset = vector_offset(v, j, ld), k = (size_t)j * n_vectors + v;
    const int since = last_step[k];
    SET(lagged_parameters(m, j, offset, since, until, n_bundles, coef, velocity, l1, l2, drift, decay, cumulative_lr),
        coef + offset);
    vector g = OF_MODELS(decay, until - since) * GET(velocity + offset);
    for (int e = feature_begin[u]; e < feature_begin[u + 1]; e++)
        g += LOAD(X, e) * scale[j] * GET(residuals + vector_offset(v, row[e], ldr));
    SET(g, velocity + offset);
    last_step[k] = until;
}

/* The end of an epoch, whose number of minibatches is the offset: every feature takes the steps by which it lags behind. */
KERNEL finish_lagged(SHAPE, STEP, LAG_TABLES)
{
    const int last = get_global_id(1), n_vectors = n_panels * (PANEL / VECTOR);
    const int j = get_global_id(0) / n_vectors, v = get_global_id(0) % n_vectors, m = v / (n_vectors / n_bundles);
    if (j >= n_stepped) return;
    const size_t offset = vector_offset(v, j, ld), k = (size_t)j * n_vectors + v;
    const int since = last_step[k];
    SET(lagged_parameters(m, j, offset, since, last + 1, n_bundles, coef, velocity, l1, l2, drift, decay, cumulative_lr),
        coef + offset);
    SET(GET(velocity + offset) * OF_MODELS(decay, last - since), velocity + offset);
    last_step[k] = 0;
}
#endif

/* ---- statistics of the columns ------------------------------------------------------------------------------------ */

/* Adds b to a sum, and what rounding takes from it to an error (Knuth's TwoSum). */
void add(real b, __global real *sum, __global real *error)
{
    const real a = *sum, s = a + b, bb = s - a;
    *error += (a - (s - bb)) + (b - bb);
    *sum = s;
}

#define STATISTICS_ROWS 64
#define STRIP (GROUP == 1 ? 16 : 1) /* columns that an item processes together */

/* Adds rows [start, stop) to the totals of `width` columns from j on; few rows, since their sums are plain ones. */
void add_rows(const int width, int j, long start, long stop, ROWS_OF_X, int n_features, __global const long *restrict order,
              __global const real *restrict weight, __global const real *restrict first, __global real *restrict total)
{
    real sum[STRIP], square[STRIP], low[STRIP], high[STRIP], x0[STRIP];
    for (int l = 0; l < width; l++) {
        sum[l] = square[l] = 0;
        low[l] = INFINITY;
        high[l] = -INFINITY;
        x0[l] = first[j + l];
    }
    for (long i = start; i < stop; i++) {
        __global const STORAGE *restrict x = X + (size_t)(base < 0 ? order[i] : i - base) * n_features + j;
        const real w = weight[order[i]];
        for (int l = 0; l < width; l++) {
            const real value = LOAD(x, l), above = value - x0[l];
            sum[l] += w * above;
            square[l] += w * above * above;
            low[l] = fmin(low[l], value);
            high[l] = fmax(high[l], value);
        }
    }
    for (int l = 0; l < width; l++) {
        __global real *t = total + j + l;
        const size_t n = n_features;
        add(sum[l], t, t + n);
        add(square[l], t + 2 * n, t + 3 * n);
        t[4 * n] = fmin(t[4 * n], low[l]);
        t[5 * n] = fmax(t[5 * n], high[l]);
    }
}

/* Of each column over a group's share of the rows: weighted sums of x - first and of its square, each with its rounding error;
 * minimum and maximum. */
KERNEL statistics(ROWS_OF_X, const long row0, const long n_rows, const int n_features, __global const long *restrict order,
                  __global const real *restrict weight, __global const real *restrict first,
                  __global real *restrict total) /* (n_groups, 6, n_features), continued where row0 > 0 */
{
    const size_t n_groups = get_num_groups(0), group = get_group_id(0);
    const long begin = row0 + n_rows * group / n_groups, end = row0 + n_rows * (group + 1) / n_groups;
    total += group * 6 * n_features;
    if (row0 == 0)
        for (int j = get_local_id(0); j < n_features; j += GROUP) {
            for (int i = 0; i < 4; i++) total[i * (size_t)n_features + j] = 0;
            total[4 * (size_t)n_features + j] = INFINITY;
            total[5 * (size_t)n_features + j] = -INFINITY;
        }
    for (long start = begin; start < end; start += STATISTICS_ROWS) {
        const long stop = min(start + STATISTICS_ROWS, end);
        for (int j = get_local_id(0) * STRIP; j < n_features; j += GROUP * STRIP) {
            if (j + STRIP <= n_features) add_rows(STRIP, j, start, stop, X, base, n_features, order, weight, first, total);
            else add_rows(n_features - j, j, start, stop, X, base, n_features, order, weight, first, total);
        }
    }
}
