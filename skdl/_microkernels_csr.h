/* The loops of CSR for pieces of WIDTH outputs: of one model (PERIOD 1), or of models whose step sizes and penalties repeat
 * themselves after PERIOD lanes. */
#define W_JOIN_(f, width, period) f##_##width##_##period
#define W_JOIN(f, width, period) W_JOIN_(f, width, period)
#define W(f) NAME(W_JOIN(f, WIDTH, PERIOD))
#define P_JOIN_(f, period) f##_##period
#define P_JOIN(f, period) P_JOIN_(f, period)
#define P(f) NAME(P_JOIN(f, PERIOD))
#define VW W(part)
#if WIDTH < LANES
#define LANES_W WIDTH
#else
#define LANES_W LANES
#endif
/* What belongs to the lanes of a vector from lane k on. */
#if PERIOD == 1
#define FROM(of_period, k) (*(of_period))
#else
#define FROM(of_period, k) (*(const VW *)((of_period) + (k) % PERIOD))
#endif

#if WIDTH == 1 /* a scalar, since GCC 10 fuses no product of a vector of one with a sum, and would round it otherwise */
typedef REAL VW __attribute__((may_alias));
#define WHERE(condition, x) ((condition) ? (x) : 0)
#else
typedef REAL VW __attribute__((vector_size(LANES_W * LANE_BYTES), aligned(sizeof(REAL)), may_alias));
typedef INT W(part_int) __attribute__((vector_size(LANES_W * LANE_BYTES), aligned(sizeof(REAL)), may_alias));
#define WHERE(condition, x) (VW)((W(part_int))(x) & (condition))
#endif

/* Lets a feature take the steps that it lags behind; adds x times the weights to `sum`. */
INLINE void W(take_steps)(const P(lagged_steps) * step, int has_l1, REAL *restrict w, REAL x, VW *sum)
{
    REAL *restrict v = w + WIDTH;
    UNROLLED_FOR (int k = 0; k < WIDTH; k += LANES_W) {
        const VW vk = *(const VW *)(v + k);
        VW wk = (*(const VW *)(w + k) - FROM(step->displacement, k) * vk) * FROM(step->factor, k);
        if (has_l1) {
            VW threshold = (VW){0} + FROM(step->threshold, k), rounded = wk; /* a variable of its own: it goes to memory */
            ROUNDED(threshold);
            ROUNDED(rounded);
            const VW above = rounded - threshold, below = rounded + threshold;
            wk = WHERE(above > 0, above) + WHERE(below < 0, below);
        }
        *(VW *)(w + k) = wk;
        *(VW *)(v + k) = vk * FROM(step->decay, k);
        sum[k / LANES_W] += x * wk;
    }
}

/* Brings the features of a chunk in block blk up to date, before its gradient (`until` is the step of its minibatch), and makes
 * partial logits of them. A feature that is up to date takes no step in the same way: a branch would often be mispredicted. */
static void W(sparse_forward)(const skdl_task *t, int64_t start, int64_t n_rows, int64_t blk, int64_t piece, int64_t until)
{
    const int64_t c0 = t->lags.piece[piece], chunk = t->scratch.chunk;
    REAL *h = NAME(panel)(t, blk, c0), *logits = (REAL *)t->scratch.logits + blk * NAME(n_all)(t) * chunk;
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
#if PERIOD > 1
                if (lags.l1) NAME(fetch_lines)((const REAL *)lags.l1 + j * PERIOD, PERIOD * LANE_BYTES);
                if (lags.l2) NAME(fetch_lines)((const REAL *)lags.l2 + j * PERIOD, PERIOD * LANE_BYTES);
#endif
            }
        }
        const NAME(row) row = NAME(stored)(t, start + r, blk);
        VW sum[WIDTH / LANES_W] = {0};
        for (int64_t e = row.begin; e < row.end; e++) {
            const int64_t j = NAME(index)(indices, wide, e);
            NAME(feature) *f = feature + j;
            const P(lagged_steps) step = P(lag)(&lags, feature, j, until, until - f->last_step);
            W(take_steps)(&step, lags.has_l1, coef + 2 * j * WIDTH, x[e] * f->scale, sum);
            f->last_step = (INT)until;
        }
        REAL *hr = h + r % LANES * WIDTH;
        UNROLLED_FOR (int k = 0; k < WIDTH / LANES_W; k++) *(VW *)(hr + k * LANES_W) = sum[k];
#if WIDTH < LANES
        for (int64_t c = 0; c < WIDTH; c++) {
            const int64_t at = P(output)(t, c);
            if (at >= 0) logits[at * chunk + r] = hr[c];
        }
#else
        if (r % LANES < LANES - 1 && r < n_rows - 1) continue;
        for (int64_t c = 0; c < WIDTH; c += LANES) {
            V square[LANES];
            UNROLLED_FOR (int i = 0; i < LANES; i++) square[i] = NAME(load)(h + i * WIDTH + c);
            NAME(transpose)(square);
            UNROLLED_FOR (int i = 0; i < LANES; i++) {
                const int64_t at = P(output)(t, c0 + c + i);
                if (at >= 0) NAME(store)(logits + at * chunk + r / LANES * LANES, square[i]);
            }
        }
#endif
    }
}

/* Adds a chunk's gradient to the velocity of block blk, which sparse_forward has decayed. */
static void W(sparse_backward)(const skdl_task *t, int64_t start, int64_t n_rows, int64_t blk, int64_t piece)
{
    const int64_t c0 = t->lags.piece[piece], chunk = t->scratch.chunk;
    const REAL *residuals = NAME(residuals)(t), *x = (const REAL *)t->data.X;
    REAL *panel = NAME(panel)(t, blk, c0), *velocity = NAME(weights)(t, c0) + WIDTH;
    const NAME(feature) *feature = NAME(features)(t, piece);
    for (int64_t r = 0; r < n_rows; r++) {
        REAL *restrict z = panel + r % LANES * WIDTH;
#if WIDTH < LANES
        for (int64_t c = 0; c < WIDTH; c++) {
            const int64_t at = P(output)(t, c);
            z[c] = at >= 0 ? residuals[at * chunk + r] : 0;
        }
#else
        if (r % LANES == 0)
            for (int64_t c = 0; c < WIDTH; c += LANES) {
                V square[LANES];
                UNROLLED_FOR (int i = 0; i < LANES; i++) {
                    const int64_t at = P(output)(t, c0 + c + i);
                    square[i] = at >= 0 ? NAME(load)(residuals + at * chunk + r) : (V){0};
                }
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

/* The end of an epoch, whose last step is `last`: brings features [j0, j1) up to date and clears their record. */
static void W(finish_lagged)(const skdl_task *t, int64_t j0, int64_t j1, int64_t piece, int64_t last)
{
    const int64_t c0 = t->lags.piece[piece];
    NAME(feature) *feature = NAME(features)(t, piece);
    VW sum[WIDTH / LANES_W] = {0};
    for (int64_t j = j0; j < j1; j++) {
        const P(lagged_steps) step = P(lag)(&t->lags, feature, j, last + 1, last - feature[j].last_step);
        W(take_steps)(&step, t->lags.has_l1, NAME(weights)(t, c0) + 2 * j * WIDTH, 0, sum);
        feature[j].last_step = 0;
    }
}

#undef W_JOIN_
#undef W_JOIN
#undef W
#undef P_JOIN_
#undef P_JOIN
#undef P
#undef VW
#undef LANES_W
#undef FROM
#undef WHERE
#undef WIDTH
#undef PERIOD
