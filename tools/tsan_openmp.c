/* OpenMP's entry points on plain pthreads, for ThreadSanitizer: it does not understand libgomp's own synchronisation and
 * reports races that are none. Threads start with each parallel region and are joined at its end, which it does understand;
 * so what is between them, our micro-kernels and our barrier, is all that it judges. Linked into the extension by checked.sh. */
#include <pthread.h>
#include <stdlib.h>

typedef struct { void (*function)(void *); void *data; int thread, n_threads; } member;

static __thread int this_thread = 0, team_size = 1;

int omp_get_thread_num(void) { return this_thread; }
int omp_get_num_threads(void) { return team_size; }
int omp_get_max_threads(void) { return 4; }

static void *run(void *argument)
{
    const member *m = argument;
    this_thread = m->thread;
    team_size = m->n_threads;
    m->function(m->data);
    this_thread = 0;
    team_size = 1;
    return NULL;
}

void GOMP_parallel(void (*function)(void *), void *data, unsigned n_threads, unsigned flags)
{
    (void)flags;
    if (n_threads == 0) n_threads = 4;
    pthread_t *threads = malloc(n_threads * sizeof *threads);
    member *team = malloc(n_threads * sizeof *team);
    for (unsigned i = 0; i < n_threads; i++) {
        team[i] = (member){function, data, (int)i, (int)n_threads};
        if (i && pthread_create(&threads[i], NULL, run, &team[i])) abort();
    }
    run(&team[0]);
    for (unsigned i = 1; i < n_threads; i++) pthread_join(threads[i], NULL);
    free(threads);
    free(team);
}
