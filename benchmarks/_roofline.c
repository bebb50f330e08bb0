/* The two ceilings of a machine: fused multiply-adds a second and bytes read a second, by a number of threads. */
#include <omp.h>
#include <string.h>

/* As many independent sums as hide the latency of an instruction and still fit the registers. */
#if defined(__AVX512F__)
enum { WIDTH = 64, SUMS = 24 };
#elif defined(__AVX__)
enum { WIDTH = 32, SUMS = 12 };
#elif defined(__aarch64__)
enum { WIDTH = 16, SUMS = 24 };
#else
enum { WIDTH = 16, SUMS = 12 };
#endif

static volatile char sink; /* what is computed must be seen to be used */

#define DEFINE_PEAK(real)                                                          \
    double peak_##real(long n, int n_threads) {                                    \
        typedef real vector __attribute__((vector_size(WIDTH)));                   \
        double start = omp_get_wtime();                                            \
        _Pragma("omp parallel num_threads(n_threads)") {                           \
            vector sum[SUMS] = {{0}}, half = (vector){0} + (real)0.5;              \
            __asm__ volatile("" : "+m"(half)); /* not known to the compiler */     \
            for (long i = 0; i < n; i++) {                                         \
                _Pragma("GCC unroll 24") /* or the sums do not stay in registers */ \
                for (int j = 0; j < SUMS; j++) sum[j] = sum[j] * half + half;      \
            }                                                                      \
            for (int j = 1; j < SUMS; j++) sum[0] += sum[j];                       \
            sink = (char)sum[0][0];                                                \
        }                                                                          \
        double seconds = omp_get_wtime() - start;                                  \
        return 2.0 * SUMS * (WIDTH / sizeof(real)) * (double)n * n_threads / seconds; \
    }

DEFINE_PEAK(float)
DEFINE_PEAK(double)

double read_rate(const char *data, long n_bytes, int n_threads) {
    typedef long vector __attribute__((vector_size(64)));
    long n = n_bytes / (8 * 64) / n_threads;
    double start = omp_get_wtime();
#pragma omp parallel num_threads(n_threads)
    {
        const char *here = data + omp_get_thread_num() * n * 8 * 64;
        vector sum[4] = {{0}}, x;
        for (long i = 0; i < n; i++, here += 8 * 64) {
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++) {
                __builtin_prefetch(here + 64 * j + 4096, 0, 3);
                memcpy(&x, here + 64 * j, 64);
                sum[j % 4] += x;
            }
        }
        sum[0] += sum[1] + sum[2] + sum[3];
        sink = (char)sum[0][0];
    }
    return (double)(n * 8 * 64 * n_threads) / (omp_get_wtime() - start);
}
