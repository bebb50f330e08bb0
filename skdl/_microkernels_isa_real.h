/* The micro-kernels of one instruction set and one real type; _microkernels.h says what the names mean.
 *
 * Needs: REAL and LANE_BYTES, its size (both are undefined at the end), ISA and VECTOR_BYTES, and the register tiles
 * FORWARD_ROWS x FORWARD_OUTPUTS and BACKWARD_OUTPUTS x BACKWARD_VECTORS. NAME(f) makes f's name unique to all this.
 */
#if LANE_BYTES == 4
#define INT int32_t
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define LOG2_HIGH 0.693145751953125
#define LOG2_LOW 1.428606765330187e-06
#define EXP_DEGREE 7
#define LOG_TERMS 5
#else
#define INT int64_t
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define LOG2_HIGH 0.693147180369123816490
#define LOG2_LOW 1.90821492927058770002e-10
#define EXP_DEGREE 13
#define LOG_TERMS 10
#endif
/* Added and subtracted again, it rounds to a whole number. */
#define ROUNDING (1.5 * (double)((int64_t)1 << MANTISSA_BITS))
#define LANES (VECTOR_BYTES / LANE_BYTES)
#define UNROLLED_FOR _Pragma("GCC unroll 16") for
#define INLINE static inline __attribute__((always_inline))
#define V NAME(vector)
#define VI NAME(vector_int)

typedef REAL V __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
typedef INT VI __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

INLINE V NAME(load)(const REAL *p) { return *(const V *)p; }
INLINE void NAME(store)(REAL *p, V v) { *(V *)p = v; }
INLINE V NAME(select)(VI mask, V a, V b) { return (V)((mask & (VI)a) | (~mask & (VI)b)); }
/* a where a > b, else b, as the instructions treat NaN too (GCC 12 does not find them by itself). */
#if defined(X86) && LANE_BYTES == 4
INLINE V NAME(maximum)(V a, V b) { return (V)X86(max_ps)(a, b); }
INLINE V NAME(minimum)(V a, V b) { return (V)X86(min_ps)(a, b); }
#elif defined(X86)
INLINE V NAME(maximum)(V a, V b) { return (V)X86(max_pd)(a, b); }
INLINE V NAME(minimum)(V a, V b) { return (V)X86(min_pd)(a, b); }
#else
INLINE V NAME(maximum)(V a, V b) { return NAME(select)(a > b, a, b); }
INLINE V NAME(minimum)(V a, V b) { return NAME(select)(a < b, a, b); }
#endif

/* Sums of the lanes of four vectors, each in the same order: first within each 16 bytes, then over them. */
INLINE void NAME(horizontal_sums)(V v0, V v1, V v2, V v3, REAL *out)
{
#if LANE_BYTES == 4
#if VECTOR_BYTES == 64
#define LOW(a, b) SHUFFLE(a, b, VI, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define HIGH(a, b) SHUFFLE(a, b, VI, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define LOW_PAIRS(a, b) SHUFFLE(a, b, VI, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define HIGH_PAIRS(a, b) SHUFFLE(a, b, VI, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#elif VECTOR_BYTES == 32
#define LOW(a, b) SHUFFLE(a, b, VI, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH(a, b) SHUFFLE(a, b, VI, 2, 10, 3, 11, 6, 14, 7, 15)
#define LOW_PAIRS(a, b) SHUFFLE(a, b, VI, 0, 1, 8, 9, 4, 5, 12, 13)
#define HIGH_PAIRS(a, b) SHUFFLE(a, b, VI, 2, 3, 10, 11, 6, 7, 14, 15)
#else
#define LOW(a, b) SHUFFLE(a, b, VI, 0, 4, 1, 5)
#define HIGH(a, b) SHUFFLE(a, b, VI, 2, 6, 3, 7)
#define LOW_PAIRS(a, b) SHUFFLE(a, b, VI, 0, 1, 4, 5)
#define HIGH_PAIRS(a, b) SHUFFLE(a, b, VI, 2, 3, 6, 7)
#endif
    const V a = LOW(v0, v1) + HIGH(v0, v1), b = LOW(v2, v3) + HIGH(v2, v3);
    const V c = LOW_PAIRS(a, b) + HIGH_PAIRS(a, b); /* four sums in each 16 bytes */
    typedef REAL Quarter __attribute__((vector_size(16)));
    Quarter parts[VECTOR_BYTES / 16];
    memcpy(parts, &c, VECTOR_BYTES);
    for (int n = VECTOR_BYTES / 32; n > 0; n /= 2)
        for (int i = 0; i < n; i++) parts[i] += parts[i + n];
    memcpy(out, parts, 16);
#else
#if VECTOR_BYTES == 64
#define LOW(a, b) SHUFFLE(a, b, VI, 0, 8, 2, 10, 4, 12, 6, 14)
#define HIGH(a, b) SHUFFLE(a, b, VI, 1, 9, 3, 11, 5, 13, 7, 15)
#elif VECTOR_BYTES == 32
#define LOW(a, b) SHUFFLE(a, b, VI, 0, 4, 2, 6)
#define HIGH(a, b) SHUFFLE(a, b, VI, 1, 5, 3, 7)
#else
#define LOW(a, b) SHUFFLE(a, b, VI, 0, 2)
#define HIGH(a, b) SHUFFLE(a, b, VI, 1, 3)
#endif
    typedef REAL Pair __attribute__((vector_size(16)));
    const V ab[2] = {LOW(v0, v1) + HIGH(v0, v1), LOW(v2, v3) + HIGH(v2, v3)}; /* two sums in each 16 bytes */
    for (int k = 0; k < 2; k++) {
        Pair parts[VECTOR_BYTES / 16];
        memcpy(parts, &ab[k], VECTOR_BYTES);
        for (int n = VECTOR_BYTES / 32; n > 0; n /= 2)
            for (int i = 0; i < n; i++) parts[i] += parts[i + n];
        memcpy(out + 2 * k, parts, 16);
    }
#endif
#undef LOW
#undef HIGH
#undef LOW_PAIRS
#undef HIGH_PAIRS
}

/* v[i][l] becomes v[l][i], by log2(LANES) perfect shuffles: each moves the first bit of (i, l) to its end. */
INLINE void NAME(transpose)(V *v)
{
#if LANES == 16
#define LOW(a, b) SHUFFLE(a, b, VI, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH(a, b) SHUFFLE(a, b, VI, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif LANES == 8
#define LOW(a, b) SHUFFLE(a, b, VI, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH(a, b) SHUFFLE(a, b, VI, 4, 12, 5, 13, 6, 14, 7, 15)
#elif LANES == 4
#define LOW(a, b) SHUFFLE(a, b, VI, 0, 4, 1, 5)
#define HIGH(a, b) SHUFFLE(a, b, VI, 2, 6, 3, 7)
#else
#define LOW(a, b) SHUFFLE(a, b, VI, 0, 2)
#define HIGH(a, b) SHUFFLE(a, b, VI, 1, 3)
#endif
    V shuffled[LANES];
    UNROLLED_FOR (int n = 1; n < LANES; n *= 2) {
        UNROLLED_FOR (int i = 0; i < LANES / 2; i++) {
            shuffled[2 * i] = LOW(v[i], v[i + LANES / 2]);
            shuffled[2 * i + 1] = HIGH(v[i], v[i + LANES / 2]);
        }
        UNROLLED_FOR (int i = 0; i < LANES; i++) v[i] = shuffled[i];
    }
#undef LOW
#undef HIGH
}

/* exp: x = n log 2 + r with |r| <= log(2) / 2, Taylor series in r, 2^n put into the exponent bits.
 * For x <= 0 (softmax subtracts the maximum); x below the logarithm of the smallest normal number counts as that. */
INLINE V NAME(exponential)(V x)
{
    const REAL lowest = (REAL)(-0.6931471805599453 * (EXPONENT_BIAS - 1));
    x = NAME(maximum)(x, (V){0} + lowest);
    const V shifted = x * (REAL)1.4426950408889634 + (REAL)ROUNDING;
    const V n = shifted - (REAL)ROUNDING;
    const V r = (x - n * (REAL)LOG2_HIGH) - n * (REAL)LOG2_LOW;
    REAL inverse_factorial[EXP_DEGREE + 1];
    inverse_factorial[0] = 1;
    for (int i = 1; i <= EXP_DEGREE; i++) inverse_factorial[i] = inverse_factorial[i - 1] / i;
    V p = (V){0} + inverse_factorial[EXP_DEGREE];
    UNROLLED_FOR (int i = EXP_DEGREE - 1; i >= 0; i--) p = p * r + inverse_factorial[i];
    return p * (V)(((VI)shifted + EXPONENT_BIAS) << MANTISSA_BITS);
}

/* log of a normal number >= 1: x = 2^e m with m in [sqrt(1/2), sqrt(2)), log m = 2 atanh((m - 1) / (m + 1)). */
INLINE V NAME(logarithm)(V x)
{
    const VI one = (VI)((V){0} + (REAL)1);
    VI e = ((VI)x >> MANTISSA_BITS) - EXPONENT_BIAS;
    V m = (V)(((VI)x & (((INT)1 << MANTISSA_BITS) - 1)) | one);
    const VI large = m > (REAL)1.4142135623730951;
    m = NAME(select)(large, m * (REAL)0.5, m);
    e -= large;
    const V s = (m - (REAL)1) / (m + (REAL)1), s2 = s * s;
    V p = (V){0} + (REAL)(1.0 / (2 * LOG_TERMS + 1));
    UNROLLED_FOR (int i = LOG_TERMS - 1; i >= 0; i--) p = p * s2 + (REAL)(1.0 / (2 * i + 1));
    return __builtin_convertvector(e, V) * (REAL)0.6931471805599453 + 2 * s * p;
}

/* ---- dense ---------------------------------------------------------------------------------------------------- */

/* IEEE half to float, exactly: the bits are moved, and a product corrects the exponent. */
INLINE float NAME(half)(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } x = {(uint32_t)(h & 0x7fff) << 13}, power = {0x77800000u}; /* 2^112 */
    x.f *= power.f;
    x.u |= (uint32_t)(h & 0x8000) << 16 | ((h & 0x7c00) == 0x7c00 ? 0x7f800000u : 0); /* infinity and NaN stay */
    return x.f;
}

/* Vectors of a narrow storage type, where there is an instruction (GCC 12's vector conversions go byte by byte). */
#if LANE_BYTES == 4 && VECTOR_BYTES == 64
#define WIDENS
INLINE V NAME(load_half)(const void *p) { return (V)_mm512_cvtph_ps(_mm256_loadu_si256(p)); }
INLINE VI NAME(load_int_of_uint8)(const void *p) { return (VI)_mm512_cvtepu8_epi32(_mm_loadu_si128(p)); }
INLINE VI NAME(squared)(VI x) { return (VI)_mm512_madd_epi16((__m512i)x, (__m512i)x); } /* of 16 bits at most */
INLINE VI NAME(smaller)(VI a, VI b) { return (VI)_mm512_min_epi32((__m512i)a, (__m512i)b); }
INLINE VI NAME(larger)(VI a, VI b) { return (VI)_mm512_max_epi32((__m512i)a, (__m512i)b); }
INLINE V NAME(load_uint8)(const void *p) { return (V)_mm512_cvtepi32_ps((__m512i)NAME(load_int_of_uint8)(p)); }
INLINE V NAME(load_int8)(const void *p) { return (V)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p))); }
#elif LANE_BYTES == 4 && VECTOR_BYTES == 32
#define WIDENS
INLINE V NAME(load_half)(const void *p) { return (V)_mm256_cvtph_ps(_mm_loadu_si128(p)); }
INLINE VI NAME(load_int_of_uint8)(const void *p) { return (VI)_mm256_cvtepu8_epi32(_mm_loadl_epi64(p)); }
INLINE VI NAME(squared)(VI x) { return (VI)_mm256_madd_epi16((__m256i)x, (__m256i)x); } /* of 16 bits at most */
INLINE VI NAME(smaller)(VI a, VI b) { return (VI)_mm256_min_epi32((__m256i)a, (__m256i)b); }
INLINE VI NAME(larger)(VI a, VI b) { return (VI)_mm256_max_epi32((__m256i)a, (__m256i)b); }
INLINE V NAME(load_uint8)(const void *p) { return (V)_mm256_cvtepi32_ps((__m256i)NAME(load_int_of_uint8)(p)); }
INLINE V NAME(load_int8)(const void *p) { return (V)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p))); }
#endif

#define PACK_VECTORS(TYPE, LOAD)                                                                    \
    do {                                                                                            \
        const TYPE *x = (const TYPE *)source;                                                       \
        if (mean)                                                                                   \
            for (; j + LANES <= n; j += LANES)                                                      \
                NAME(store)(out + j, (LOAD(x + j) - NAME(load)(mean + j)) * NAME(load)(scale + j)); \
        else                                                                                        \
            for (; j + LANES <= n; j += LANES) NAME(store)(out + j, LOAD(x + j));                   \
    } while (0)

#define PACK_SCALARS(TYPE, CONVERT)                                                 \
    do {                                                                            \
        const TYPE *restrict x = (const TYPE *)source;                              \
        if (mean)                                                                   \
            for (; j < n; j++) out[j] = ((REAL)CONVERT(x[j]) - mean[j]) * scale[j]; \
        else                                                                        \
            for (; j < n; j++) out[j] = (REAL)CONVERT(x[j]);                        \
    } while (0)

/* Some columns of a row to REAL, centred and scaled. */
INLINE void NAME(pack_row)(int storage, const char *source, const REAL *mean, const REAL *scale, int64_t n, REAL *restrict out)
{
    int64_t j = 0;
#ifdef WIDENS
    switch (storage) {
    case SKDL_FLOAT16: PACK_VECTORS(uint16_t, NAME(load_half)); break;
    case SKDL_UINT8: PACK_VECTORS(uint8_t, NAME(load_uint8)); break;
    case SKDL_INT8: PACK_VECTORS(int8_t, NAME(load_int8)); break;
    }
#endif
    switch (storage) {
    case SKDL_FLOAT64: PACK_SCALARS(double, ); break;
    case SKDL_FLOAT32: PACK_SCALARS(float, ); break;
    case SKDL_FLOAT16: PACK_SCALARS(uint16_t, NAME(half)); break;
    case SKDL_UINT8: PACK_SCALARS(uint8_t, ); break;
    case SKDL_INT8: PACK_SCALARS(int8_t, ); break;
    }
}

static const char *NAME(row_address)(const skdl_task *t, int64_t i, int64_t j)
{ return t->data.X + ((t->order ? t->order[i] : i) * t->data.n_features + j) * skdl_item_size[t->data.storage]; }

/* Rows [r0, r1) of a chunk that begins at order[start], columns of block blk: converted, centred, scaled. The
 * columns beyond the last feature stay 0. */
INLINE void NAME(pack)(const skdl_task *t, int64_t start, int64_t r0, int64_t r1, int64_t n_rows, int64_t blk)
{
    const int64_t j0 = t->scratch.block[blk], width = t->scratch.block[blk + 1] - j0;
    const int64_t n = (t->scratch.block[blk + 1] < t->data.n_features ? t->scratch.block[blk + 1] : t->data.n_features) - j0;
    const REAL *mean = t->model.mean ? (const REAL *)t->model.mean + j0 : NULL;
    const REAL *scale = t->model.mean ? (const REAL *)t->model.scale + j0 : NULL;
    REAL *out = (REAL *)t->scratch.packed + t->scratch.chunk * j0 + r0 * width;
    for (int64_t r = r0; r < r1 && r < n_rows; r++, out += width)
        NAME(pack_row)(t->data.storage, NAME(row_address)(t, start + r, j0), mean, scale, n, out);
}

/* Outputs of all models. */
INLINE int64_t NAME(n_all)(const skdl_task *t) { return t->model.n_models * t->model.n_outputs; }

/* Whether rows are transposed to compute logits: the order of a sum follows from one model, however many lie side by side. */
INLINE int NAME(is_wide)(const skdl_task *t) { return t->model.n_outputs >= WIDE_OUTPUTS; }

/* Tiles of at most `most` outputs, as even as possible. */
INLINE int64_t NAME(n_tiles)(int64_t n_outputs, int64_t most) { return (n_outputs + most - 1) / most; }

/* Plans the prefetch of rows [r0, r1) of the chunk at `start`, columns of blocks [blk0, blk1), while a chunk of n_rows is
 * computed, in whose backward pass the thread has n_outputs. */
static void NAME(plan_fetch)(const skdl_task *t, skdl_fetch *fetch, int64_t start, int64_t r0, int64_t r1, int64_t n_rows,
                             int64_t blk0, int64_t blk1, int64_t n_outputs)
{
    const int64_t j0 = t->scratch.block[blk0], j1 = t->scratch.block[blk1], size = skdl_item_size[t->data.storage];
    const int64_t end = start + r1 < t->n_order ? start + r1 : t->n_order,
                  n = (j1 < t->data.n_features ? j1 : t->data.n_features) - j0;
    const int64_t n_vectors = (j1 - j0) / LANES;
    const int64_t n_forward =
        NAME(is_wide)(t) ? (r1 - r0) * NAME(n_tiles)(NAME(n_all)(t), BACKWARD_OUTPUTS) / (BACKWARD_VECTORS * COLUMN_TILE)
                         : (r1 - r0) * NAME(n_tiles)(NAME(n_all)(t), FORWARD_OUTPUTS) / FORWARD_ROWS;
    const int64_t n_steps = n_vectors * (n_forward + n_rows * NAME(n_tiles)(n_outputs, BACKWARD_OUTPUTS) / BACKWARD_VECTORS);
    *fetch = (skdl_fetch){.task = t, .position = start + r0, .end = end, .column = j0, .n_bytes = n * size};
    if (fetch->position >= end || n_steps == 0) return;
    fetch->row = NAME(row_address)(t, fetch->position, j0);
    fetch->rate = 1 + (end - fetch->position) * (1 + n * size / 64) * 256 / n_steps;
}

INLINE void NAME(fetch_some)(skdl_fetch *fetch)
{
    for (fetch->credit += fetch->rate; fetch->credit >= 256; fetch->credit -= 256) {
        __builtin_prefetch(fetch->row + fetch->offset, 0, 2);
        fetch->offset += 64;
        if (fetch->offset >= fetch->n_bytes) {
            fetch->offset = 0;
            if (++fetch->position >= fetch->end) fetch->rate = fetch->credit = 0;
            else fetch->row = NAME(row_address)(fetch->task, fetch->position, fetch->column);
        }
    }
}

/* The products of FORWARD_ROWS rows and some outputs; `fetch` may be NULL. */
INLINE void NAME(forward_tile)(const int n_outputs, skdl_fetch *fetch, const REAL *x, int64_t ldx, const REAL *w, int64_t width,
                               int64_t ld, REAL *out, int64_t ldo)
{
    V sum[FORWARD_ROWS][FORWARD_OUTPUTS] = {0};
    for (int64_t j = 0; j < width; j += LANES) {
        if (fetch) NAME(fetch_some)(fetch);
        V xj[FORWARD_ROWS];
        UNROLLED_FOR (int r = 0; r < FORWARD_ROWS; r++) xj[r] = NAME(load)(x + r * ldx + j);
        UNROLLED_FOR (int c = 0; c < n_outputs; c++) {
            const V wj = NAME(load)(w + c * ld + j);
            UNROLLED_FOR (int r = 0; r < FORWARD_ROWS; r++) sum[r][c] += xj[r] * wj;
        }
    }
    UNROLLED_FOR (int c = 0; c < n_outputs; c++)
        NAME(horizontal_sums)(sum[0][c], sum[1][c], sum[2][c], sum[3][c], out + c * ldo);
}

/* TILE(outputs) with a constant. */
#define FORWARD_TILES(N_OUTPUTS) \
    switch (N_OUTPUTS) {         \
    case 1: TILE(1); break;      \
    case 2: TILE(2); break;      \
    case 3: TILE(3); break;      \
    case 4: TILE(4); break;      \
    case 5: TILE(5); break;      \
    case 6: TILE(6); break;      \
    }
/* TILE(outputs, vectors) with constants for both. */
#define OUTPUT_TILES(N_OUTPUTS, VECTORS) \
    switch (N_OUTPUTS) {                 \
    case 1: TILE(1, VECTORS); break;     \
    case 2: TILE(2, VECTORS); break;     \
    case 3: TILE(3, VECTORS); break;     \
    case 4: TILE(4, VECTORS); break;     \
    case 5: TILE(5, VECTORS); break;     \
    case 6: TILE(6, VECTORS); break;     \
    }
#define BACKWARD_TILES(N_OUTPUTS, N_VECTORS)           \
    do {                                               \
        if (N_VECTORS == 1) OUTPUT_TILES(N_OUTPUTS, 1) \
        else OUTPUT_TILES(N_OUTPUTS, BACKWARD_VECTORS) \
    } while (0)

INLINE void NAME(wide_forward_tile)(const int n_outputs, const int n_vectors, skdl_fetch *fetch, int64_t n_columns, const V *x,
                                    const REAL *w, int64_t ld, int first, REAL *out, int64_t ldo)
{
    V sum[BACKWARD_OUTPUTS][BACKWARD_VECTORS] = {0};
    for (int64_t j = 0; j < n_columns; j += COLUMN_TILE, x += COLUMN_TILE * n_vectors) {
        NAME(fetch_some)(fetch);
        UNROLLED_FOR (int i = 0; i < COLUMN_TILE; i++)
            UNROLLED_FOR (int c = 0; c < n_outputs; c++) {
                const REAL wj = w[c * ld + j + i];
                UNROLLED_FOR (int k = 0; k < n_vectors; k++) sum[c][k] += x[i * n_vectors + k] * wj;
            }
    }
    UNROLLED_FOR (int c = 0; c < n_outputs; c++)
        UNROLLED_FOR (int k = 0; k < n_vectors; k++) {
            REAL *o = out + c * ldo + k * LANES;
            if (!first) sum[c][k] += NAME(load)(o);
            NAME(store)(o, sum[c][k]);
        }
}

/* The partial logits of packed rows [r0, r1) where there are many outputs. Lanes are rows, which spares the sums over lanes:
 * a panel of rows is transposed, stays in L1, and meets all outputs, whose coefficients of these columns stay in L2. Apart from `forward`, whose registers it would spill. */
static __attribute__((noinline)) void NAME(wide_forward)(const skdl_task *t, skdl_fetch *fetch, int64_t r0, int64_t r1,
                                                         int64_t blk)
{
    const int64_t j0 = t->scratch.block[blk], width = t->scratch.block[blk + 1] - j0, n_outputs = NAME(n_all)(t);
    const int64_t ld = t->model.ld, ldo = t->scratch.chunk, n_tiles = NAME(n_tiles)(n_outputs, BACKWARD_OUTPUTS);
    REAL *out = (REAL *)t->scratch.logits + blk * n_outputs * ldo;
    V panel[PANEL_COLUMNS * BACKWARD_VECTORS] __attribute__((aligned(VECTOR_BYTES)));
    for (int64_t j = 0; j < width; j += PANEL_COLUMNS) {
        const int64_t n_columns = width - j < PANEL_COLUMNS ? width - j : PANEL_COLUMNS;
        for (int64_t r = r0; r < r1;) {
            const int64_t n_vectors = r + BACKWARD_VECTORS * LANES <= r1 ? BACKWARD_VECTORS : 1;
            const REAL *x = (const REAL *)t->scratch.packed + t->scratch.chunk * j0 + r * width + j;
            for (int64_t k = 0; k < n_vectors; k++)
                for (int64_t i = 0; i < n_columns; i += LANES) {
                    V v[LANES];
                    UNROLLED_FOR (int l = 0; l < LANES; l++) v[l] = NAME(load)(x + (k * LANES + l) * width + i);
                    NAME(transpose)(v);
                    UNROLLED_FOR (int l = 0; l < LANES; l++) panel[(i + l) * n_vectors + k] = v[l];
                }
            for (int64_t tile = 0; tile < n_tiles; tile++) {
                const int64_t c0 = n_outputs * tile / n_tiles, c1 = n_outputs * (tile + 1) / n_tiles;
                const REAL *w = (const REAL *)t->model.coef + c0 * ld + j0 + j;
                REAL *o = out + c0 * ldo + r;
#define TILE(C, VECTORS) \
    NAME(wide_forward_tile)(C <= BACKWARD_OUTPUTS ? C : 1, VECTORS, fetch, n_columns, panel, w, ld, j == 0, o, ldo)
                BACKWARD_TILES(c1 - c0, n_vectors);
#undef TILE
            }
            r += n_vectors * LANES;
        }
    }
}

/* Packs rows [r0, r1) and computes their partial logits from the columns of block blk, a whole row tile at a time. Where W
 * stays in L1, a group of rows is a tile; where it does not, it is as many rows as do, to amortise streaming W from L2. */
static void NAME(forward)(const skdl_task *t, skdl_fetch *fetch, int64_t start, int64_t r0, int64_t r1, int64_t n_rows,
                          int64_t blk)
{
    const int64_t j0 = t->scratch.block[blk], width = t->scratch.block[blk + 1] - j0, n_outputs = NAME(n_all)(t);
    const REAL *x = (const REAL *)t->scratch.packed + t->scratch.chunk * j0;
    REAL *out = (REAL *)t->scratch.logits + blk * n_outputs * t->scratch.chunk;
    if (NAME(is_wide)(t)) {
        NAME(pack)(t, start, r0, r1, n_rows, blk);
        NAME(wide_forward)(t, fetch, r0, r1, blk);
        return;
    }
    const int64_t n_tiles = NAME(n_tiles)(n_outputs, FORWARD_OUTPUTS);
    const int64_t fitting = 24576 / (width * LANE_BYTES) / FORWARD_ROWS * FORWARD_ROWS;
    const int64_t group = n_outputs * width * LANE_BYTES <= 16384 || fitting < FORWARD_ROWS ? FORWARD_ROWS : fitting;
    for (int64_t g = r0; g < r1; g += group) {
        NAME(pack)(t, start, g, g + group < r1 ? g + group : r1, n_rows, blk);
        for (int64_t tile = 0; tile < n_tiles; tile++) {
            const int64_t c0 = n_outputs * tile / n_tiles, c1 = n_outputs * (tile + 1) / n_tiles;
            const REAL *w = (const REAL *)t->model.coef + c0 * t->model.ld + j0;
            for (int64_t r = g; r < g + group && r < r1; r += FORWARD_ROWS) {
                const REAL *xr = x + r * width;
                REAL *o = out + c0 * t->scratch.chunk + r;
#define TILE(C) NAME(forward_tile)(C <= FORWARD_OUTPUTS ? C : 1, fetch, xr, width, w, width, t->model.ld, o, t->scratch.chunk)
                FORWARD_TILES(c1 - c0)
#undef TILE
            }
        }
    }
}

/* The residuals have memory of their own behind the logits: threads that are ahead write the next chunk's logits while
 * others still read these. */
INLINE REAL *NAME(residuals)(const skdl_task *t)
{ return (REAL *)t->scratch.logits + t->scratch.n_blocks * NAME(n_all)(t) * t->scratch.chunk; }

/* Logits to residuals, softmax minus one-hot label, weighted and divided by the batch size; and the loss of each row. Lanes
 * are rows. One output means two classes: the single logit is that of the second class. */
static void NAME(softmax)(const skdl_task *t, int64_t start, int64_t r0, int64_t r1, int64_t n_rows, double batch_scale)
{
    const int64_t n_outputs = t->model.n_outputs, ldc = t->scratch.chunk, of_block = NAME(n_all)(t) * ldc;
    const REAL *weight = (const REAL *)t->data.weight;
    for (int64_t r = r0; r < r1; r += LANES) {
        REAL s[LANES], z_y[LANES];
        int32_t y[LANES];
        V target;
        for (int64_t i = 0; i < LANES; i++) { /* rows beyond the last one get weight 0 */
            const int inside = r + i < n_rows;
            const int64_t row = inside ? t->order[start + r + i] : 0;
            y[i] = inside ? t->data.y[row] : 0;
            s[i] = !inside ? 0 : weight ? weight[row] : 1;
            target[i] = y[i];
        }
        const V w = NAME(load)(s), scale = w * (REAL)batch_scale;
        for (int64_t m = 0; m < t->model.n_models; m++) {
            const REAL *logits = (const REAL *)t->scratch.logits + m * n_outputs * ldc + r;
            const REAL *b = (const REAL *)t->model.intercept + m * n_outputs;
            REAL *z = NAME(residuals)(t) + m * n_outputs * ldc + r, *loss = (REAL *)t->scratch.loss + m * ldc + r;
            V top = {0};
            for (int64_t c = 0; c < n_outputs; c++) {
                V h = (V){0} + b[c];
                for (int64_t blk = 0; blk < t->scratch.n_blocks; blk++) h += NAME(load)(logits + blk * of_block + c * ldc);
                NAME(store)(z + c * ldc, h);
                top = c ? NAME(maximum)(top, h) : h;
            }
            if (n_outputs == 1) {
                const V zero = {0}, h = NAME(load)(z), e = NAME(exponential)(NAME(minimum)(h, -h));
                const V p = NAME(select)(h > zero, (V){0} + (REAL)1, e) / ((REAL)1 + e);
                NAME(store)(z, (p - target) * scale);
                NAME(store)(loss, w * (NAME(logarithm)((REAL)1 + e) + NAME(maximum)(h, zero) - target * h));
                continue;
            }
            for (int64_t i = 0; i < LANES; i++) z_y[i] = z[y[i] * ldc + i];
            V sum = {0};
            for (int64_t c = 0; c < n_outputs; c++) {
                const V e = NAME(exponential)(NAME(load)(z + c * ldc) - top);
                NAME(store)(z + c * ldc, e);
                sum += e;
            }
            const V factor = scale / sum;
            for (int64_t c = 0; c < n_outputs; c++) NAME(store)(z + c * ldc, NAME(load)(z + c * ldc) * factor);
            for (int64_t i = 0; i < LANES; i++) z[y[i] * ldc + i] -= s[i] * (REAL)batch_scale;
            NAME(store)(loss, w * (NAME(logarithm)(sum) + top - NAME(load)(z_y)));
        }
    }
}

/* One step of the parameters of some outputs, which follow each other, in a tile of columns from j:
 * V := momentum V + g; W := prox(W - lr V). The gradient of a minibatch arrives in chunks: the first decays the velocity, the
 * last takes the step. */
INLINE void NAME(take_step)(const int n_outputs, const int n_vectors, const skdl_task *t, V g[][BACKWARD_VECTORS],
                            int64_t output, int64_t j, int first, int last, const double *lr)
{
    const int64_t ld = t->model.ld;
    REAL *w = (REAL *)t->model.coef + output * ld + j;
    REAL *v = t->model.velocity ? (REAL *)t->model.velocity + output * ld + j : NULL;
    int64_t m = output / t->model.n_outputs, next = output % t->model.n_outputs;
    const V zero = {0};
    V shrinkage[BACKWARD_VECTORS], threshold[BACKWARD_VECTORS];
    REAL step = 0, momentum = 0;
    UNROLLED_FOR (int c = 0; c < n_outputs; c++) {
        if (c == 0 || next == t->model.n_outputs) { /* the first output of a model here */
            if (next == t->model.n_outputs) m++, next = 0;
            step = (REAL)lr[m];
            momentum = first ? (REAL)t->model.momentum[m] : 1;
            UNROLLED_FOR (int k = 0; k < n_vectors; k++) {
                const int64_t at = m * ld + j + k * LANES;
                if (last && t->model.l2) shrinkage[k] = (REAL)1 / ((REAL)1 + step * NAME(load)((const REAL *)t->model.l2 + at));
                if (last && t->model.l1) threshold[k] = step * NAME(load)((const REAL *)t->model.l1 + at);
            }
        }
        next++;
        UNROLLED_FOR (int k = 0; k < n_vectors; k++) {
            const int64_t at = c * ld + k * LANES;
            V gk = g[c][k];
            if (v) {
                gk += momentum * NAME(load)(v + at);
                NAME(store)(v + at, gk);
            }
            if (!last) continue;
            V x = NAME(load)(w + at) - step * gk;
            if (t->model.l2) x *= shrinkage[k];
            if (t->model.l1) x = NAME(maximum)(x - threshold[k], zero) + NAME(minimum)(x + threshold[k], zero);
            NAME(store)(w + at, x);
        }
    }
}

INLINE void NAME(backward_tile)(const int n_outputs, const int n_vectors, const skdl_task *t, skdl_fetch *fetch, int64_t n_rows,
                                const REAL *x, int64_t width, int64_t output, int64_t j, int first, int last, const double *lr)
{
    const int64_t chunk = t->scratch.chunk;
    const REAL *z = NAME(residuals)(t) + output * chunk;
    V g[BACKWARD_OUTPUTS][BACKWARD_VECTORS] = {0};
    for (int64_t r = 0; r < n_rows; r++) {
        V xj[BACKWARD_VECTORS];
        NAME(fetch_some)(fetch);
        UNROLLED_FOR (int k = 0; k < n_vectors; k++) xj[k] = NAME(load)(x + r * width + k * LANES);
        UNROLLED_FOR (int c = 0; c < n_outputs; c++) {
            const REAL zc = z[c * chunk + r];
            UNROLLED_FOR (int k = 0; k < n_vectors; k++) g[c][k] += xj[k] * zc;
        }
    }
    NAME(take_step)(n_outputs, n_vectors, t, g, output, j, first, last, lr);
}

/* Gradient of the columns of block blk for outputs [c0, c1) of all models, and their step: each sum runs over the rows in
 * order. */
static void NAME(backward)(const skdl_task *t, skdl_fetch *fetch, int64_t n_rows, int64_t blk, int64_t c0, int64_t c1,
                           int first, int last, const double *lr)
{
    const int64_t j0 = t->scratch.block[blk], width = t->scratch.block[blk + 1] - j0;
    const REAL *x = (const REAL *)t->scratch.packed + t->scratch.chunk * j0;
    const int64_t n_tiles = NAME(n_tiles)(c1 - c0, BACKWARD_OUTPUTS);
    for (int64_t j = 0; j < width;) {
        const int64_t left = (width - j) / LANES, n_vectors = left >= BACKWARD_VECTORS ? BACKWARD_VECTORS : 1;
        for (int64_t tile = 0; tile < n_tiles; tile++) {
            const int64_t a = c0 + (c1 - c0) * tile / n_tiles, b = c0 + (c1 - c0) * (tile + 1) / n_tiles;
#define TILE(C, VECTORS) \
    NAME(backward_tile)(C <= BACKWARD_OUTPUTS ? C : 1, VECTORS, t, fetch, n_rows, x + j, width, a, j0 + j, first, last, lr)
            BACKWARD_TILES(b - a, n_vectors);
#undef TILE
        }
        j += n_vectors * LANES;
    }
}

static void NAME(step_intercept)(const skdl_task *t, int64_t n_rows, int first, int last, const double *lr)
{
    REAL *b = (REAL *)t->model.intercept, *v = b + NAME(n_all)(t);
    for (int64_t c = 0; c < NAME(n_all)(t); c++) {
        const int64_t m = c / t->model.n_outputs;
        const REAL *z = NAME(residuals)(t) + c * t->scratch.chunk;
        V sum = {0};
        for (int64_t r = 0; r < n_rows; r += LANES) sum += NAME(load)(z + r); /* residuals beyond n_rows are 0 */
        REAL lanes[LANES], g = 0;
        NAME(store)(lanes, sum);
        for (int i = 0; i < LANES; i++) g += lanes[i];
        v[c] = (first ? (REAL)t->model.momentum[m] * v[c] : v[c]) + g;
        if (last) b[c] -= (REAL)lr[m] * v[c];
    }
}

static double NAME(sum_loss)(const skdl_task *t, int64_t n_rows, int64_t model)
{
    const REAL *loss = (const REAL *)t->scratch.loss + model * t->scratch.chunk;
    double sum = 0;
    for (int64_t r = 0; r < n_rows; r++) sum += loss[r];
    return sum;
}

/* ---- prediction ------------------------------------------------------------------------------------------------ */

/* Lanes are rows here too. What is made of the logits is computed in double, DOUBLE_LANES rows at a time. */
#define DOUBLE_LANES (VECTOR_BYTES / 8)
#define D DOUBLE(vector)
#define DI DOUBLE(vector_int)
#if LANE_BYTES == 4
typedef REAL NAME(half_vector) __attribute__((vector_size(VECTOR_BYTES / 2), aligned(sizeof(REAL)), may_alias));
INLINE D NAME(load_double)(const REAL *p) { return __builtin_convertvector(*(const NAME(half_vector) *)p, D); }
INLINE void NAME(store_double)(REAL *p, D x) { *(NAME(half_vector) *)p = __builtin_convertvector(x, NAME(half_vector)); }
#else
INLINE D NAME(load_double)(const REAL *p) { return NAME(load)(p); }
INLINE void NAME(store_double)(REAL *p, D x) { NAME(store)(p, x); }

/* exp(x) for x <= 0: 0 where that is not a normal number. */
INLINE D NAME(exp_or_zero)(D x)
{
    const D lowest = (D){0} - 0.6931471805599453 * (EXPONENT_BIAS - 1);
    return NAME(select)(x < lowest, (D){0}, NAME(exponential)(x));
}

/* log(1 + e) for 0 <= e <= 1, precise where 1 + e is rounded to 1, too (Goldberg 1991, theorem 4). */
INLINE D NAME(log_of_one_and)(D e)
{
    const D sum = 1.0 + e, rounded = sum - 1.0;
    return NAME(select)(rounded == 0.0, e, NAME(logarithm)(sum) * (e / NAME(select)(rounded == 0.0, sum, rounded)));
}
#endif

/* Adds the intercept to the logits of LANES rows, in place. Sets the largest of each row and its class, the first of equals;
 * returns 0 in the lanes of rows whose logits are all finite, else NaN. */
INLINE V NAME(finish_logits)(const skdl_task *t, REAL *z, V *largest, VI *best)
{
    const REAL *b = (const REAL *)t->model.intercept;
    V top = {0}, defect = {0};
    VI at = {0};
    for (int64_t c = 0; c < t->model.n_outputs; c++) {
        const V h = NAME(load)(z + c * t->scratch.chunk) + b[c];
        NAME(store)(z + c * t->scratch.chunk, h);
        defect += h - h;
        const VI larger = c == 0 ? (h == h) | (h != h) : h > top;
        top = NAME(select)(larger, h, top);
        at = (larger & (VI)((VI){0} + (INT)c)) | (~larger & at);
    }
    *largest = top, *best = at;
    return defect;
}

/* Logits of LANES rows, of which there are n, to rows of out. */
INLINE void NAME(write_logits)(const skdl_task *t, const REAL *z, int64_t n, REAL *out)
{
    const int64_t n_outputs = t->model.n_outputs, ldz = t->scratch.chunk;
    int64_t c = 0;
    for (; c + LANES <= n_outputs; c += LANES) {
        V v[LANES];
        UNROLLED_FOR (int i = 0; i < LANES; i++) v[i] = NAME(load)(z + (c + i) * ldz);
        NAME(transpose)(v);
        for (int64_t i = 0; i < n; i++) NAME(store)(out + i * n_outputs + c, v[i]);
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = c; k < n_outputs; k++) out[i * n_outputs + k] = z[k * ldz + i];
}

/* exp(h - top) of DOUBLE_LANES rows for all classes, to e unless that is NULL; returns their sum, compensated (Kahan). */
INLINE D NAME(sum_exponentials)(const skdl_task *t, const REAL *z, D top, D *e)
{
    D sum = {0}, carry = {0};
    for (int64_t c = 0; c < t->model.n_outputs; c++) {
        const D x = DOUBLE(exp_or_zero)(NAME(load_double)(z + c * t->scratch.chunk) - top);
        if (e) e[c] = x;
        const D term = x - carry, total = sum + term;
        carry = (total - sum) - term;
        sum = total;
    }
    return sum;
}

/* Probabilities or their logarithms of DOUBLE_LANES rows, of which there are n, to rows of out. */
INLINE void NAME(write_probabilities)(const skdl_task *t, int logarithms, const REAL *z, D top, int64_t n, REAL *out)
{
    const int64_t n_outputs = t->model.n_outputs, ldz = t->scratch.chunk;
    const D lowest = (D){0} - (LANE_BYTES == 4 ? FLT_MAX : DBL_MAX);
    if (n_outputs == 1) {
        const D h = NAME(load_double)(z), zero = {0}, size = DOUBLE(maximum)(h, -h), e = DOUBLE(exp_or_zero)(-size);
        D rare = e / (1.0 + e), other = 1.0 / (1.0 + e);
        if (logarithms) {
            other = -DOUBLE(log_of_one_and)(e);
            rare = DOUBLE(maximum)(other - size, lowest);
        }
        REAL pair[2][DOUBLE_LANES];
        NAME(store_double)(pair[0], DOUBLE(select)(h > zero, rare, other));
        NAME(store_double)(pair[1], DOUBLE(select)(h > zero, other, rare));
        for (int64_t i = 0; i < n; i++) out[2 * i] = pair[0][i], out[2 * i + 1] = pair[1][i];
        return;
    }
    D *e = (D *)((REAL *)t->scratch.logits + n_outputs * ldz);
    const D sum = NAME(sum_exponentials)(t, z, top, logarithms ? NULL : e), factor = 1.0 / sum;
    const D log_sum = DOUBLE(logarithm)(sum);
    int64_t c = 0;
    for (; c < n_outputs; c += DOUBLE_LANES) {
        const int64_t n_columns = n_outputs - c < DOUBLE_LANES ? n_outputs - c : DOUBLE_LANES;
        D v[DOUBLE_LANES] = {0};
        for (int64_t i = 0; i < n_columns; i++)
            if (logarithms) v[i] = DOUBLE(maximum)(NAME(load_double)(z + (c + i) * ldz) - top - log_sum, lowest);
            else v[i] = e[c + i] * factor;
        DOUBLE(transpose)(v);
        for (int64_t i = 0; i < n; i++) {
            REAL row[DOUBLE_LANES], *o = out + i * n_outputs + c;
            if (n_columns == DOUBLE_LANES) NAME(store_double)(o, v[i]);
            else {
                NAME(store_double)(row, v[i]);
                for (int64_t k = 0; k < n_columns; k++) o[k] = row[k];
            }
        }
    }
}

/* Cross-entropy of DOUBLE_LANES rows with classes y. */
INLINE D NAME(losses)(const skdl_task *t, const REAL *z, D top, const int32_t *y, int64_t n)
{
    double of_y[DOUBLE_LANES] = {0};
    D h;
    for (int64_t i = 0; i < n; i++)
        of_y[i] = t->model.n_outputs > 1 ? z[y[i] * t->scratch.chunk + i] : y[i] == 1 ? z[i] : -z[i];
    memcpy(&h, of_y, sizeof h);
    if (t->model.n_outputs > 1) return DOUBLE(logarithm)(NAME(sum_exponentials)(t, z, top, NULL)) + (top - h);
    const D zero = {0};
    return DOUBLE(log_of_one_and)(DOUBLE(exp_or_zero)(DOUBLE(minimum)(h, -h))) + DOUBLE(maximum)(-h, zero);
}

/* What is asked for of the chunk of n_rows at `start`, from its sums of products, to the rows from `start` of the result;
 * returns whether all logits are finite. */
static int NAME(finish)(const skdl_task *t, int output, int64_t start, int64_t n_rows, void *result)
{
    const int64_t n_outputs = t->model.n_outputs, n_classes = n_outputs == 1 ? 2 : n_outputs;
    REAL defects[LANES], tops[LANES];
    int finite = 1;
    for (int64_t r = 0; r < n_rows; r += LANES) {
        REAL *z = (REAL *)t->scratch.logits + r;
        const int64_t n = n_rows - r < LANES ? n_rows - r : LANES, row = start + r;
        V largest;
        VI best;
        NAME(store)(defects, NAME(finish_logits)(t, z, &largest, &best));
        NAME(store)(tops, largest);
        INT numbers[LANES];
        if (n_outputs == 1) best = (largest > (V){0}) & 1;
        memcpy(numbers, &best, sizeof best);
        for (int64_t i = 0; i < n; i++) finite &= defects[i] == 0;
        if (output == SKDL_LOGITS) NAME(write_logits)(t, z, n, (REAL *)result + row * n_outputs);
        else if (output == SKDL_CLASSES)
            for (int64_t i = 0; i < n; i++) ((int64_t *)result)[row + i] = numbers[i];
        else
            for (int64_t i = 0; i < n; i += DOUBLE_LANES) {
                const int64_t m = n - i < DOUBLE_LANES ? n - i : DOUBLE_LANES;
                const D top = NAME(load_double)(tops + i);
                if (output == SKDL_LOSSES) {
                    const int32_t *y = t->data.y + row + i;
                    const D loss = NAME(losses)(t, z + i, top, y, m);
                    double *losses = (double *)result + row + i, *correct = losses + t->n_order;
                    for (int64_t l = 0; l < m; l++) losses[l] = loss[l], correct[l] = numbers[i + l] == y[l];
                } else {
                    REAL *out = (REAL *)result + (row + i) * n_classes;
                    if (output == SKDL_PROBABILITIES) NAME(write_probabilities)(t, 0, z + i, top, m, out);
                    else NAME(write_probabilities)(t, 1, z + i, top, m, out);
                }
            }
    }
    return finite;
}

/* ---- CSR ------------------------------------------------------------------------------------------------------- */
/* A thread owns some features in some outputs: their parameters, which no other thread reads or writes. Outputs, or lanes, where
 * there are several models, [c0, c1) have a piece of memory of their own: (n_features, 2, c1 - c0), weights and velocity side by
 * side, since a feature that occurs needs both. The pieces follow each other; lanes are padded to ld, a power of two below
 * SKDL_PAD and a multiple of SKDL_PAD above. The features of a block follow each other too, so few cache lines travel between
 * two cores. */

/* Of each feature, once for each piece. */
typedef struct {
    INT last_step;      /* the minibatch that last updated it: the first step that it has not taken */
    REAL scale, l1, l2; /* as those of skdl_model; 1, 0, 0 where there is none; the penalties are those of one model */
} NAME(feature);

INLINE NAME(feature) * NAME(features)(const skdl_task *t, int64_t piece)
{ return (NAME(feature) *)t->lags.feature + piece * t->data.n_features; }

INLINE REAL *NAME(weights)(const skdl_task *t, int64_t c0) { return (REAL *)t->model.coef + 2 * t->data.n_features * c0; }

/* Scratch of a block and a piece: SKDL_PAD rows of logits or of residuals. */
INLINE REAL *NAME(panel)(const skdl_task *t, int64_t blk, int64_t c0)
{ return (REAL *)t->scratch.packed + SKDL_PAD * (blk * t->model.ld + c0); }

/* Which of the outputs of all models, one model after the other, a lane is, of one model or of several; -1 for padding. */
INLINE int64_t NAME(output_1)(const skdl_task *t, int64_t lane) { return lane < t->model.n_outputs ? lane : -1; }

INLINE int64_t NAME(output_16)(const skdl_task *t, int64_t lane)
{
    const int64_t model = lane & (t->lags.n_lanes - 1), output = lane >> __builtin_ctzll((uint64_t)t->lags.n_lanes);
    return model < t->model.n_models && output < t->model.n_outputs ? model * t->model.n_outputs + output : -1;
}

INLINE int64_t NAME(index)(const char *p, int wide, int64_t i)
{ return wide ? ((const int64_t *)p)[i] : ((const int32_t *)p)[i]; }

/* The stored values of one row in one block. */
typedef struct { int64_t begin, end; } NAME(row);

INLINE NAME(row) NAME(stored)(const skdl_task *t, int64_t i, int64_t blk)
{
    const int64_t at = t->order[i] * t->scratch.n_blocks + blk;
    return (NAME(row)){NAME(index)(t->data.indptr, t->data.index64, at), NAME(index)(t->data.indptr, t->data.index64, at + 1)};
}

/* Rows by which parameters are fetched ahead. */
#define AHEAD 4

/* Rows are random and each stored value has its parameters elsewhere in memory, so prefetch ahead: row bounds, then values,
 * then parameters. Into L2, which holds more outstanding requests than L1 (10 % of an epoch). After 512 bytes the processor
 * prefetches by itself. */
INLINE void NAME(fetch_lines)(const void *p, int64_t n_bytes)
{
    for (int64_t i = 0; i < n_bytes && i < 512; i += 64) __builtin_prefetch((const char *)p + i, 1, 2);
}

INLINE void NAME(fetch_row)(const skdl_task *t, int64_t i, int64_t blk)
{
    const int index_size = t->data.index64 ? 8 : 4;
    if (i + AHEAD < t->n_order)
        __builtin_prefetch(t->data.indptr + (t->order[i + AHEAD] * t->scratch.n_blocks + blk) * index_size);
    if (i >= t->n_order) return;
    const NAME(row) row = NAME(stored)(t, i, blk);
    const int64_t n = row.end - row.begin;
    NAME(fetch_lines)(t->data.indices + row.begin * index_size, n * index_size + 63);
    NAME(fetch_lines)(t->data.X + row.begin * LANE_BYTES, n * LANE_BYTES + 63);
}

/* A product rounded by itself, where compilers would fuse it with a sum or not, depending on the width of the vectors. */
#define ROUNDED(product) __asm__("" : "+m"(product))

/* The steps [since, until) that a feature has not taken since it last occurred, in one: its velocity v decays by m in each and goes
 * on moving it, in all by v * sum_s lr_s m^(s - since) = v (drift[since] - m^(until - since) drift[until]), where
 * drift[s] = lr_s + m drift[s + 1]. The penalty's proximal step is taken once, with the sum of the step sizes. Without a step
 * nothing changes. */
typedef struct { REAL displacement[1], decay[1], factor[1], threshold[1]; } NAME(lagged_steps_1);
/* The same of the lanes of several models, over and over. */
typedef struct { REAL displacement[SKDL_PAD], decay[SKDL_PAD], factor[SKDL_PAD], threshold[SKDL_PAD]; } NAME(lagged_steps_16);

/* Those of feature j, until `until`; n_decays is how often its velocity decays. */
INLINE NAME(lagged_steps_1)
    NAME(lag_1)(const skdl_lags *lags, const NAME(feature) * feature, int64_t j, int64_t until, int64_t n_decays)
{
    const NAME(feature) *f = feature + j;
    const int64_t since = f->last_step;
    const REAL lr = (REAL)(lags->cumulative_lr[until] - lags->cumulative_lr[since]);
    return (NAME(lagged_steps_1)){
        .displacement = {(REAL)(lags->drift[since] - lags->decay[until - since] * lags->drift[until])},
        .decay = {(REAL)lags->decay[n_decays]},
        .factor = {1 / (1 + lr * f->l2)},
        .threshold = {lr * f->l1}};
}

/* Not inlined, so its products are rounded, too. */
static __attribute__((noinline)) NAME(lagged_steps_16)
    NAME(lag_16)(const skdl_lags *lags, const NAME(feature) * feature, int64_t j, int64_t until, int64_t n_decays)
{
    const int64_t since = feature[j].last_step;
    const REAL none[SKDL_PAD] = {0};
    const REAL *l1 = lags->l1 ? (const REAL *)lags->l1 + j * SKDL_PAD : none;
    const REAL *l2 = lags->l2 ? (const REAL *)lags->l2 + j * SKDL_PAD : none;
    const double *drift = lags->drift + since * SKDL_PAD, *drift_until = lags->drift + until * SKDL_PAD;
    const double *decay = lags->decay + (until - since) * SKDL_PAD, *decays = lags->decay + n_decays * SKDL_PAD;
    const double *lr_since = lags->cumulative_lr + since * SKDL_PAD, *lr_until = lags->cumulative_lr + until * SKDL_PAD;
    NAME(lagged_steps_16) steps;
    for (int i = 0; i < SKDL_PAD; i++) {
        const REAL lr = (REAL)(lr_until[i] - lr_since[i]);
        steps.displacement[i] = (REAL)(drift[i] - decay[i] * drift_until[i]);
        steps.decay[i] = (REAL)decays[i];
        steps.factor[i] = 1 / (1 + lr * l2[i]);
        steps.threshold[i] = lr * l1[i];
    }
    return steps;
}

#define WIDTH 1
#define PERIOD 1
#include "_microkernels_csr.h"
#define WIDTH 2
#define PERIOD 1
#include "_microkernels_csr.h"
#define WIDTH 4
#define PERIOD 1
#include "_microkernels_csr.h"
#define WIDTH 8
#define PERIOD 1
#include "_microkernels_csr.h"
#define WIDTH 16
#define PERIOD 1
#include "_microkernels_csr.h"
#define WIDTH 32
#define PERIOD 1
#include "_microkernels_csr.h"
#define WIDTH 48
#define PERIOD 1
#include "_microkernels_csr.h"
#define WIDTH 64
#define PERIOD 1
#include "_microkernels_csr.h"
#define WIDTH 16
#define PERIOD 16
#include "_microkernels_csr.h"
#define WIDTH 32
#define PERIOD 16
#include "_microkernels_csr.h"
#define WIDTH 48
#define PERIOD 16
#include "_microkernels_csr.h"
#define WIDTH 64
#define PERIOD 16
#include "_microkernels_csr.h"

/* Several models have widths of their own, which count as negative here. */
#define BY_WIDTH(f, ...)                                                                               \
    switch ((t->lags.n_lanes > 1 ? -1 : 1) * (int)(t->lags.piece[piece + 1] - t->lags.piece[piece])) { \
    case 1: NAME(f##_1_1)(__VA_ARGS__); break;                                                         \
    case 2: NAME(f##_2_1)(__VA_ARGS__); break;                                                         \
    case 4: NAME(f##_4_1)(__VA_ARGS__); break;                                                         \
    case 8: NAME(f##_8_1)(__VA_ARGS__); break;                                                         \
    case 16: NAME(f##_16_1)(__VA_ARGS__); break;                                                       \
    case 32: NAME(f##_32_1)(__VA_ARGS__); break;                                                       \
    case 48: NAME(f##_48_1)(__VA_ARGS__); break;                                                       \
    case 64: NAME(f##_64_1)(__VA_ARGS__); break;                                                       \
    case -16: NAME(f##_16_16)(__VA_ARGS__); break;                                                     \
    case -32: NAME(f##_32_16)(__VA_ARGS__); break;                                                     \
    case -48: NAME(f##_48_16)(__VA_ARGS__); break;                                                     \
    case -64: NAME(f##_64_16)(__VA_ARGS__); break;                                                     \
    }

static void NAME(sparse_forward)(const skdl_task *t, int64_t start, int64_t n_rows, int64_t blk, int64_t piece, int64_t until)
{ BY_WIDTH(sparse_forward, t, start, n_rows, blk, piece, until) }

static void NAME(sparse_backward)(const skdl_task *t, int64_t start, int64_t n_rows, int64_t blk, int64_t piece)
{ BY_WIDTH(sparse_backward, t, start, n_rows, blk, piece) }

static void NAME(finish_lagged)(const skdl_task *t, int64_t j0, int64_t j1, int64_t piece,
                                int64_t last){BY_WIDTH(finish_lagged, t, j0, j1, piece, last)}

#undef BY_WIDTH
#undef ROUNDED
#undef AHEAD

/* A stored value of CSR, whose type may be wider or narrower than REAL. */
INLINE REAL NAME(stored_value)(const skdl_task *t, int64_t e)
{ return t->data.storage == SKDL_FLOAT64 ? (REAL)((const double *)t->data.X)[e] : (REAL)((const float *)t->data.X)[e]; }

INLINE void NAME(sparse_logits_tile)(const int n_vectors, const skdl_task *t, NAME(row) row, const REAL *coef, REAL *h)
{
    V total[4] = {0};
    for (int64_t e = row.begin; e < row.end; e++) {
        const int64_t j = NAME(index)(t->data.indices, t->data.index64, e), at = t->place ? t->place[j] : j;
        const REAL x = NAME(stored_value)(t, e), *w = coef + at * t->model.ld;
        UNROLLED_FOR (int k = 0; k < n_vectors; k++) total[k] += x * NAME(load)(w + k * LANES);
    }
    UNROLLED_FOR (int k = 0; k < n_vectors; k++) NAME(store)(h + k * LANES, total[k]);
}

/* The only logit of a row: the coefficients, which no padding follows, lie as they are wanted. */
INLINE REAL NAME(sparse_logit)(const skdl_task *t, NAME(row) row)
{
    REAL sum = 0;
    for (int64_t e = row.begin; e < row.end; e++) {
        const int64_t j = NAME(index)(t->data.indices, t->data.index64, e);
        sum += NAME(stored_value)(t, e) * ((const REAL *)t->model.coef)[j];
    }
    return sum;
}

/* Logits of a chunk to predict, without intercept: coef is (n_places, ld), a row for each feature or for those that occur; with
 * one output there are all. */
static void NAME(sparse_logits)(const skdl_task *t, int64_t start, int64_t n_rows)
{
    const int64_t n_outputs = t->model.n_outputs;
    REAL h[4 * LANES], *logits = (REAL *)t->scratch.logits;
    for (int64_t r = 0; r < n_rows; r++) {
        const int64_t i = t->order ? t->order[start + r] : start + r;
        const NAME(row)
            row = {NAME(index)(t->data.indptr, t->data.index64, i), NAME(index)(t->data.indptr, t->data.index64, i + 1)};
        if (n_outputs == 1) {
            logits[r] = NAME(sparse_logit)(t, row);
            continue;
        }
        for (int64_t tile = 0; tile < n_outputs; tile += 4 * LANES) {
            const REAL *coef = (const REAL *)t->model.coef + tile;
            switch ((n_outputs - tile + LANES - 1) / LANES) {
            case 1: NAME(sparse_logits_tile)(1, t, row, coef, h); break;
            case 2: NAME(sparse_logits_tile)(2, t, row, coef, h); break;
            case 3: NAME(sparse_logits_tile)(3, t, row, coef, h); break;
            default: NAME(sparse_logits_tile)(4, t, row, coef, h);
            }
            for (int64_t c = tile; c < tile + 4 * LANES && c < n_outputs; c++) logits[c * t->scratch.chunk + r] = h[c - tile];
        }
    }
}

/* ---- statistics of the columns, in one pass ---------------------------------------------------------------------- */

INLINE void NAME(statistics_tile)(const int n_vectors, const skdl_task *t, int64_t start, int64_t n_rows, const REAL *x,
                                  int64_t width, int64_t j, double *total)
{
    const int64_t ld = t->model.ld, next = start + t->scratch.chunk, size = skdl_item_size[t->data.storage];
    const REAL *weight = (const REAL *)t->data.weight, *first_row = (const REAL *)t->first_row + j;
    REAL *low = (REAL *)t->extremes + j, *high = low + ld;
    V x0[BACKWARD_VECTORS], least[BACKWARD_VECTORS], most[BACKWARD_VECTORS];
    V sum[BACKWARD_VECTORS] = {0}, square[BACKWARD_VECTORS] = {0};
    UNROLLED_FOR (int k = 0; k < n_vectors; k++) {
        x0[k] = NAME(load)(first_row + k * LANES);
        least[k] = NAME(load)(low + k * LANES);
        most[k] = NAME(load)(high + k * LANES);
    }
    for (int64_t r = 0; r < n_rows; r++) {
        if (next + r < t->n_order) /* each cache line once, whichever tile it begins in */
            for (int64_t i = -(j * size) & 63; i < n_vectors * LANES * size; i += 64)
                __builtin_prefetch(NAME(row_address)(t, next + r, j) + i, 0, 2);
        const REAL w = weight ? weight[t->order[start + r]] : 1;
        UNROLLED_FOR (int k = 0; k < n_vectors; k++) {
            const V xk = NAME(load)(x + r * width + k * LANES), above = xk - x0[k], weighted = above * w;
            least[k] = NAME(minimum)(xk, least[k]);
            most[k] = NAME(maximum)(xk, most[k]);
            sum[k] += weighted;
            square[k] += weighted * above;
        }
    }
    REAL sums[BACKWARD_VECTORS * LANES], squares[BACKWARD_VECTORS * LANES];
    UNROLLED_FOR (int k = 0; k < n_vectors; k++) {
        NAME(store)(low + k * LANES, least[k]);
        NAME(store)(high + k * LANES, most[k]);
        NAME(store)(sums + k * LANES, sum[k]);
        NAME(store)(squares + k * LANES, square[k]);
    }
    for (int64_t i = 0; i < n_vectors * LANES; i++) {
        total[j + i] += sums[i];
        total[ld + j + i] += squares[i];
    }
}

#ifdef WIDENS
/* What whole numbers from 0 to 255 without weights add to the statistics of some columns: exactly, and in fewer instructions. */
INLINE void NAME(add_bytes)(const skdl_task *t, int64_t n_rows, int64_t j, int64_t sum, int64_t square, int64_t least,
                            int64_t most, double *total)
{
    const int64_t ld = t->model.ld, first = (int64_t)((const REAL *)t->first_row)[j];
    REAL *low = (REAL *)t->extremes + j, *high = low + ld;
    if (*low > least) *low = least;
    if (*high < most) *high = most;
    total[j] += sum - n_rows * first;
    total[ld + j] += square - 2 * first * sum + n_rows * first * first;
}

INLINE void NAME(statistics_tile_of_bytes)(const int n_vectors, const skdl_task *t, int64_t start, int64_t n_rows, int64_t j,
                                           double *total)
{
    const int64_t next = start + t->scratch.chunk;
    VI sum[BACKWARD_VECTORS] = {0}, square[BACKWARD_VECTORS] = {0}, least[BACKWARD_VECTORS], most[BACKWARD_VECTORS] = {0};
    UNROLLED_FOR (int k = 0; k < n_vectors; k++) least[k] = (VI){0} + 255;
    for (int64_t r = 0; r < n_rows; r++) {
        const char *row = NAME(row_address)(t, start + r, j);
        if (next + r < t->n_order) /* each cache line once, whichever tile it begins in */
            for (int64_t i = -j & 63; i < n_vectors * LANES; i += 64)
                __builtin_prefetch(NAME(row_address)(t, next + r, j) + i, 0, 2);
        UNROLLED_FOR (int k = 0; k < n_vectors; k++) {
            const VI x = NAME(load_int_of_uint8)(row + k * LANES);
            sum[k] += x;
            square[k] += NAME(squared)(x);
            least[k] = NAME(smaller)(least[k], x);
            most[k] = NAME(larger)(most[k], x);
        }
    }
    UNROLLED_FOR (int k = 0; k < n_vectors; k++)
        for (int i = 0; i < LANES; i++)
            NAME(add_bytes)(t, n_rows, j + k * LANES + i, sum[k][i], square[k][i], least[k][i], most[k][i], total);
}

static void NAME(statistics_of_bytes)(const skdl_task *t, int64_t start, int64_t n_rows, int64_t blk, double *total)
{
    int64_t j = t->scratch.block[blk], end = t->scratch.block[blk + 1];
    if (end > t->data.n_features) end = t->data.n_features;
    for (; j + BACKWARD_VECTORS * LANES <= end; j += BACKWARD_VECTORS * LANES)
        NAME(statistics_tile_of_bytes)(BACKWARD_VECTORS, t, start, n_rows, j, total);
    for (; j + LANES <= end; j += LANES) NAME(statistics_tile_of_bytes)(1, t, start, n_rows, j, total);
    for (; j < end; j++) {
        int64_t sum = 0, square = 0, least = 255, most = 0;
        for (int64_t r = 0; r < n_rows; r++) {
            const int64_t x = *(const uint8_t *)NAME(row_address)(t, start + r, j);
            sum += x;
            square += x * x;
            if (x < least) least = x;
            if (x > most) most = x;
        }
        NAME(add_bytes)(t, n_rows, j, sum, square, least, most, total);
    }
}
#endif

/* Adds the n_rows at `start` to the statistics of block blk: minimum and maximum to `extremes`, sum w (x - x0) and
 * sum w (x - x0)^2 to `total` (2, ld), where x0, the first row, keeps a large offset out of the squares. Sums over these rows
 * are computed in REAL and added up in double. */
static void NAME(statistics)(const skdl_task *t, int64_t start, int64_t n_rows, int64_t blk, double *total)
{
#ifdef WIDENS
    if (t->data.storage == SKDL_UINT8 && !t->data.weight) {
        NAME(statistics_of_bytes)(t, start, n_rows, blk, total);
        return;
    }
#endif
    const int64_t j0 = t->scratch.block[blk], width = t->scratch.block[blk + 1] - j0;
    const REAL *x = (const REAL *)t->scratch.packed + t->scratch.chunk * j0;
    NAME(pack)(t, start, 0, n_rows, n_rows, blk);
    int64_t j = 0;
    for (; j + BACKWARD_VECTORS * LANES <= width; j += BACKWARD_VECTORS * LANES)
        NAME(statistics_tile)(BACKWARD_VECTORS, t, start, n_rows, x + j, width, j0 + j, total);
    for (; j < width; j += LANES) NAME(statistics_tile)(1, t, start, n_rows, x + j, width, j0 + j, total);
}

/* ---- products of a few rows and vectors --------------------------------------------------------------------------- */

/* out (n, n_rows) += v U^T for the first `width` columns of v (n, ld) and U (n_rows, ld); n_rows is a multiple of FORWARD_ROWS.
 * Sums over a panel of columns are computed in REAL and added up in double. */
static void NAME(products)(const void *rows, int64_t n_rows, int64_t width, int64_t ld, const void *vectors, int64_t n,
                           double *out)
{
    const REAL *U = (const REAL *)rows, *v = (const REAL *)vectors;
    const int64_t n_tiles = NAME(n_tiles)(n, FORWARD_OUTPUTS);
    for (int64_t j = 0; j < width; j += PRODUCT_COLUMNS) {
        const int64_t n_columns = width - j < PRODUCT_COLUMNS ? width - j : PRODUCT_COLUMNS;
        for (int64_t r = 0; r < n_rows; r += FORWARD_ROWS)
            for (int64_t tile = 0; tile < n_tiles; tile++) {
                const int64_t c0 = n * tile / n_tiles, c1 = n * (tile + 1) / n_tiles;
                REAL part[FORWARD_OUTPUTS * FORWARD_ROWS];
#define TILE(C)                                                                                                      \
    NAME(forward_tile)(C <= FORWARD_OUTPUTS ? C : 1, NULL, U + r * ld + j, ld, v + c0 * ld + j, n_columns, ld, part, \
                       FORWARD_ROWS)
                FORWARD_TILES(c1 - c0)
#undef TILE
                for (int64_t c = c0; c < c1; c++)
                    for (int i = 0; i < FORWARD_ROWS; i++) out[c * n_rows + r + i] += part[(c - c0) * FORWARD_ROWS + i];
            }
    }
}

INLINE void NAME(transposed_products_tile)(const int n_outputs, const int n_vectors, const REAL *x, int64_t n_rows, int64_t ld,
                                           const REAL *p, int64_t ldp, double *out)
{
    V sum[BACKWARD_OUTPUTS][BACKWARD_VECTORS] = {0};
    for (int64_t r = 0; r < n_rows; r++)
        UNROLLED_FOR (int c = 0; c < n_outputs; c++) {
            const REAL pr = p[c * ldp + r];
            UNROLLED_FOR (int k = 0; k < n_vectors; k++) sum[c][k] += NAME(load)(x + r * ld + k * LANES) * pr;
        }
    UNROLLED_FOR (int c = 0; c < n_outputs; c++) {
        REAL sums[BACKWARD_VECTORS * LANES];
        UNROLLED_FOR (int k = 0; k < n_vectors; k++) NAME(store)(sums + k * LANES, sum[c][k]);
        for (int i = 0; i < n_vectors * LANES; i++) out[c * ld + i] += sums[i];
    }
}

/* out (n, ld) += p (n, n_rows) U, likewise by panels of rows. */
static void NAME(transposed_products)(const void *rows, int64_t n_rows, int64_t ld, const void *vectors, int64_t n, double *out)
{
    const REAL *U = (const REAL *)rows, *p = (const REAL *)vectors;
    const int64_t n_tiles = NAME(n_tiles)(n, BACKWARD_OUTPUTS);
    for (int64_t r = 0; r < n_rows; r += PRODUCT_ROWS) {
        const int64_t height = n_rows - r < PRODUCT_ROWS ? n_rows - r : PRODUCT_ROWS;
        for (int64_t j = 0; j < ld;) {
            const int64_t n_vectors = j + BACKWARD_VECTORS * LANES <= ld ? BACKWARD_VECTORS : 1;
            for (int64_t tile = 0; tile < n_tiles; tile++) {
                const int64_t c0 = n * tile / n_tiles, c1 = n * (tile + 1) / n_tiles;
#define TILE(C, VECTORS)                                                                                                    \
    NAME(transposed_products_tile)(C <= BACKWARD_OUTPUTS ? C : 1, VECTORS, U + r * ld + j, height, ld, p + c0 * n_rows + r, \
                                   n_rows, out + c0 * ld + j)
                BACKWARD_TILES(c1 - c0, n_vectors);
#undef TILE
            }
            j += n_vectors * LANES;
        }
    }
}

static const skdl_kernels NAME(kernels) = {
    .name = SKDL_STRING(ISA),
    .plan_fetch = NAME(plan_fetch),
    .forward = NAME(forward),
    .softmax = NAME(softmax),
    .backward = NAME(backward),
    .step_intercept = NAME(step_intercept),
    .sum_loss = NAME(sum_loss),
    .finish = NAME(finish),
    .sparse_forward = NAME(sparse_forward),
    .sparse_backward = NAME(sparse_backward),
    .finish_lagged = NAME(finish_lagged),
    .sparse_logits = NAME(sparse_logits),
    .statistics = NAME(statistics),
    .products = NAME(products),
    .transposed_products = NAME(transposed_products),
};

#undef LANES
#undef INLINE
#undef FORWARD_TILES
#undef OUTPUT_TILES
#undef BACKWARD_TILES
#undef UNROLLED_FOR
#undef V
#undef VI
#undef D
#undef DI
#undef DOUBLE_LANES
#undef WIDENS
#undef PACK_VECTORS
#undef PACK_SCALARS
#undef INT
#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef LOG2_HIGH
#undef LOG2_LOW
#undef EXP_DEGREE
#undef LOG_TERMS
#undef ROUNDING
#undef LANE_BYTES
#undef REAL
