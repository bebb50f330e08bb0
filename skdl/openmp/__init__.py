"""The CPU backend: Cython and C kernels on OpenMP's threads."""
