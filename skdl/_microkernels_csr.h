/* The loops of CSR for pieces of WIDTH outputs. */
#define W_JOIN_(f, width) f##_##width
#define W_JOIN(f, width) W_JOIN_(f, width)
#define W(f) NAME(W_JOIN(f, WIDTH))
#define VW W(part)
#if WIDTH < LANES
#define LANES_W WIDTH
#else
#define LANES_W LANES
#endif

typedef REAL VW __attribute__((vector_size(LANES_W * LANE_BYTES), aligned(sizeof(REAL)), may_alias));
typedef INT W(part_int) __attribute__((vector_size(LANES_W * LANE_BYTES), aligned(sizeof(REAL)), may_alias));

/* Steps [since, until) of one feature, which it has not taken since it last occurred: its velocity v decays by m in each and
 * goes on moving it, in all by v * sum_s lr_s m^(s - since) = v (drift[since] - m^(until - since) drift[until]), where
 * drift[s] = lr_s + m drift[s + 1]. The penalty's proximal step is taken once, with the sum of the step sizes. Without a step
 * nothing changes. Adds x times the weights to `sum`. */
INLINE void W(lagged_step)(const skdl_lags *lags, const NAME(feature) * f, REAL *restrict w, int64_t until, double decay,
                           REAL x, VW *sum)
{
    REAL *restrict v = w + WIDTH;
    const int64_t since = f->last_step;
    const REAL displacement = (REAL)(lags->drift[since] - lags->decay[until - since] * lags->drift[until]), m = (REAL)decay;
    const REAL lr = (REAL)(lags->cumulative_lr[until] - lags->cumulative_lr[since]);
    const REAL factor = 1 / (1 + lr * f->l2), threshold = lr * f->l1;
    UNROLLED_FOR (int k = 0; k < WIDTH / LANES_W; k++) {
        const VW vk = *(const VW *)(v + k * LANES_W);
        VW wk = (*(const VW *)(w + k * LANES_W) - displacement * vk) * factor;
        if (lags->has_l1) {
            const VW above = wk - threshold, below = wk + threshold;
            wk = (VW)((W(part_int))above & (above > 0)) + (VW)((W(part_int))below & (below < 0));
        }
        *(VW *)(w + k * LANES_W) = wk;
        *(VW *)(v + k * LANES_W) = vk * m;
        sum[k] += x * wk;
    }
}

/* Brings the features of a chunk in block blk up to date, before its gradient (`until` is the step of its minibatch), and makes
 * partial logits of them. A feature that is up to date takes no step in the same way: a branch would often be mispredicted. */
static void W(sparse_forward)(const skdl_task *t, int64_t start, int64_t n_rows, int64_t blk, int64_t piece, int64_t until)
{
    const int64_t c0 = t->lags.piece[piece], chunk = t->scratch.chunk, n_outputs = t->model.n_outputs;
    REAL *h = NAME(panel)(t, blk, c0), *logits = (REAL *)t->scratch.logits + (blk * n_outputs + c0) * chunk;
    REAL *coef = NAME(weights)(t, c0);
    const REAL *x = (const REAL *)t->data.X;
    NAME(feature) *feature = NAME(features)(t, piece);
    const skdl_lags lags = t->lags;
    const char *indices = t->data.indices;
    const int wide = t->data.index64;
    for (int64_t r = 0; r < n_rows; r++) {
        NAME(fetch_row)(t, start + r + 2 * AHEAD, blk);
        if (start + r + AHEAD < t->n_order) {
            const NAME(row) next = NAME(stored)(t, start + r + AHEAD, blk);
            for (int64_t e = next.begin; e < next.end; e++) {
                const int64_t j = NAME(index)(indices, wide, e);
                __builtin_prefetch(feature + j, 1, 2);
                NAME(fetch_lines)(coef + 2 * j * WIDTH, 2 * WIDTH * LANE_BYTES);
            }
        }
        const NAME(row) row = NAME(stored)(t, start + r, blk);
        VW sum[WIDTH / LANES_W] = {0};
        for (int64_t e = row.begin; e < row.end; e++) {
            const int64_t j = NAME(index)(indices, wide, e);
            NAME(feature) *f = feature + j;
            W(lagged_step)(&lags, f, coef + 2 * j * WIDTH, until, lags.decay[until - f->last_step], x[e] * f->scale, sum);
            f->last_step = (INT)until;
        }
        REAL *hr = h + r % LANES * WIDTH;
        UNROLLED_FOR (int k = 0; k < WIDTH / LANES_W; k++) *(VW *)(hr + k * LANES_W) = sum[k];
#if WIDTH < LANES
        for (int64_t c = 0; c < WIDTH && c < n_outputs; c++) logits[c * chunk + r] = hr[c];
#else
        if (r % LANES < LANES - 1 && r < n_rows - 1) continue;
        for (int64_t c = 0; c < WIDTH; c += LANES) {
            V square[LANES];
            UNROLLED_FOR (int i = 0; i < LANES; i++) square[i] = NAME(load)(h + i * WIDTH + c);
            NAME(transpose)(square);
            UNROLLED_FOR (int i = 0; i < LANES; i++)
                if (c0 + c + i < n_outputs) NAME(store)(logits + (c + i) * chunk + r / LANES * LANES, square[i]);
        }
#endif
    }
}

/* Adds a chunk's gradient to the velocity of block blk, which sparse_forward has decayed. */
static void W(sparse_backward)(const skdl_task *t, int64_t start, int64_t n_rows, int64_t blk, int64_t piece)
{
    const int64_t c0 = t->lags.piece[piece], chunk = t->scratch.chunk, n_outputs = t->model.n_outputs;
    const REAL *residuals = NAME(residuals)(t) + c0 * chunk, *x = (const REAL *)t->data.X;
    REAL *panel = NAME(panel)(t, blk, c0), *velocity = NAME(weights)(t, c0) + WIDTH;
    const NAME(feature) *feature = NAME(features)(t, piece);
    for (int64_t r = 0; r < n_rows; r++) {
        REAL *restrict z = panel + r % LANES * WIDTH;
#if WIDTH < LANES
        for (int64_t c = 0; c < WIDTH; c++) z[c] = c < n_outputs ? residuals[c * chunk + r] : 0;
#else
        if (r % LANES == 0)
            for (int64_t c = 0; c < WIDTH; c += LANES) {
                V square[LANES];
                UNROLLED_FOR (int i = 0; i < LANES; i++)
                    square[i] = c0 + c + i < n_outputs ? NAME(load)(residuals + (c + i) * chunk + r) : (V){0};
                NAME(transpose)(square);
                UNROLLED_FOR (int i = 0; i < LANES; i++) NAME(store)(panel + i * WIDTH + c, square[i]);
            }
#endif
        const NAME(row) row = NAME(stored)(t, start + r, blk);
        for (int64_t e = row.begin; e < row.end; e++) {
            const int64_t j = NAME(index)(t->data.indices, t->data.index64, e);
            const REAL xj = x[e] * feature[j].scale;
            REAL *restrict v = velocity + 2 * j * WIDTH;
            UNROLLED_FOR (int c = 0; c < WIDTH; c += LANES_W) *(VW *)(v + c) += xj * *(const VW *)(z + c);
        }
    }
}

/* The end of an epoch, whose last step is `last`: brings all features of a block up to date and clears the record. */
static void W(finish_lagged)(const skdl_task *t, int64_t blk, int64_t piece, int64_t last)
{
    const int64_t c0 = t->lags.piece[piece];
    NAME(feature) *feature = NAME(features)(t, piece);
    VW sum[WIDTH / LANES_W] = {0};
    for (int64_t j = t->scratch.block[blk]; j < t->scratch.block[blk + 1]; j++) {
        W(lagged_step)(&t->lags, feature + j, NAME(weights)(t, c0) + 2 * j * WIDTH, last + 1,
                       t->lags.decay[last - feature[j].last_step], 0, sum);
        feature[j].last_step = 0;
    }
}

#undef W_JOIN_
#undef W_JOIN
#undef W
#undef VW
#undef LANES_W
#undef WIDTH
