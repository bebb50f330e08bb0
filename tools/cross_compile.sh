#!/usr/bin/env bash
# Compiles the micro-kernels with Clang for processors and systems that CI does not have; nothing is run: tools/cross_compile.sh
# Needs ziglang from PyPI, which brings Clang and the headers of all these systems. SKDL_PYTHON names the interpreter that has it.
set -euo pipefail
cd "$(dirname "$0")/.."
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT

for target in {x86_64,aarch64}-{linux-gnu,macos,windows-gnu}; do
    echo "$target"
    "${SKDL_PYTHON:-python}" -m ziglang cc -target "$target" -O3 -Wall -Wextra -Werror -Iskdl -x c -c - -o "$objects/$target.o" <<'C'
#include "_microkernels.h"
const skdl_kernels *widest(int is_double) { return skdl_select_isa(skdl_n_isas() - 1, is_double); }
int wait_for_all(skdl_barrier *barrier, int n_threads, double *waited) { return skdl_wait(barrier, n_threads, waited); }
double seconds(void) { return skdl_seconds(); }
C
done
