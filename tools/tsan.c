/* ThreadSanitizer over the kernels: the leaf loops and the barrier, run by pthreads as _kernels.pyx runs them by OpenMP,
 * whose runtime gives false alarms. Also compares the results of 1 to 5 threads bit by bit. See make tsan.
 *
 * train_dense and train_sparse are those of _kernels.pyx, which must change with them: the generated C of that file is
 * included, so there is no copy. */
