#!/usr/bin/env bash
# Builds the extension with checks in a temporary copy and runs a command there: tools/checked.sh {asan|tsan|bounds} COMMAND...
# asan:    AddressSanitizer and UndefinedBehaviorSanitizer over the compiled code; the first report ends the run.
#          Built without optimisation, which compiles in a tenth of the time; OPTIMISATION=-O1 asks for another.
# tsan:    ThreadSanitizer over the kernels and their barrier, on pthreads in OpenMP's place: tools/tsan_openmp.c.
# bounds:  every memoryview access of _kernels.pyx is checked. (wraparound stays off, so a negative index is an error too.)
# SKDL_PYTHON names the interpreter, whose environment needs setuptools, Cython and the tests' packages.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=$(command -v "${SKDL_PYTHON:-python}")
kind=$1
shift

copy=$(mktemp -d)
trap 'cat "$copy"/report.* 2>/dev/null || true; rm -rf "$copy"' EXIT  # pytest would swallow the sanitizers' reports
cd "$root"
cp -r setup.py pyproject.toml Makefile README.md CHANGELOG.md skdl tests tools "$copy"
rm -f "$copy"/skdl/*.so "$copy"/skdl/_kernels.c
ln -s "$root/benchmarks" "$root/examples" "$copy"
cd "$copy"

case $kind in
asan)
    checks="-fsanitize=address,undefined -fno-sanitize-recover=all"
    sed -i "s/\"-O3\"/\"${OPTIMISATION:--O0}\", \"-g1\"/" setup.py
    CC="gcc $checks" LDSHARED="gcc -shared $checks" "$python" setup.py -q build_ext --inplace >build.log 2>&1 || { cat build.log; exit 1; }
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
    export LD_PRELOAD
    export ASAN_OPTIONS=detect_leaks=0:log_path=$copy/report
    export UBSAN_OPTIONS=print_stacktrace=1:log_path=$copy/report
    ;;
tsan)
    gcc -fPIC -O1 -g1 -fsanitize=thread -c tools/tsan_openmp.c -o tsan_openmp.o
    sed -i "s/\"-O3\"/\"${OPTIMISATION:--O1}\", \"-g1\"/" setup.py
    CC="gcc -fsanitize=thread" LDSHARED="gcc -shared -fsanitize=thread -Wl,-Bsymbolic $copy/tsan_openmp.o" \
        "$python" setup.py -q build_ext --inplace >build.log 2>&1 || { cat build.log; exit 1; }
    LD_PRELOAD=$(gcc -print-file-name=libtsan.so)
    export LD_PRELOAD TSAN_OPTIONS=halt_on_error=1:log_path=$copy/report OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
    set -- setarch -R "$@"  # its shadow memory does not stand some randomised addresses
    ;;
bounds)
    SKDL_BOUNDS_CHECKS=1 "$python" setup.py -q build_ext --inplace >build.log 2>&1 || { cat build.log; exit 1; }
    ;;
*)
    echo "$0: unknown kind of check: $kind (asan, tsan or bounds)" >&2
    exit 2
    ;;
esac
export PYTHONPATH=$copy
PATH="$(dirname "$python"):$PATH" "$@"
