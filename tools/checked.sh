#!/usr/bin/env bash
# Builds the extension with checks in a temporary copy and runs a command there: tools/checked.sh {asan|tsan|bounds} COMMAND...
# asan:    AddressSanitizer and UndefinedBehaviorSanitizer over the compiled code, and the bounds below; the first report
#          ends the run.
# tsan:    ThreadSanitizer over the kernels and their barrier, on pthreads in OpenMP's place: tools/tsan_openmp.c.
# bounds:  every memoryview access of _kernels.pyx is checked. (wraparound stays off, so a negative index is an error too.)
# SKDL_PYTHON names the interpreter, whose environment needs setuptools, Cython and the tests' packages; OPTIMISATION is -O0
# unless it says otherwise, since that compiles in a tenth of the time.
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
export PYTHONPATH=$copy
PATH="$(dirname "$python"):$PATH"

build() {  # build COMPILER-FLAGS LINKER-FLAGS
    sed -i "s/\"-O3\"/\"${OPTIMISATION:--O0}\", \"-g1\"/" setup.py
    CC="gcc $1" LDSHARED="gcc -shared $1 $2" "$python" setup.py -q build_ext --inplace >build.log 2>&1 ||
        { cat build.log; exit 1; }
}

case $kind in
asan)
    SKDL_BOUNDS_CHECKS=1 build "-fsanitize=address,undefined -fno-sanitize-recover=all" ""
    export ASAN_OPTIONS=detect_leaks=0:log_path=$copy/report UBSAN_OPTIONS=print_stacktrace=1:log_path=$copy/report
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" "$@"
    ;;
tsan)
    gcc -fPIC -O1 -g1 -fsanitize=thread -c tools/tsan_openmp.c -o tsan_openmp.o
    build "-fsanitize=thread" "-Wl,-Bsymbolic $copy/tsan_openmp.o"
    export TSAN_OPTIONS=halt_on_error=1:log_path=$copy/report OPENBLAS_NUM_THREADS=1
    # Its shadow memory does not stand some of the addresses that randomisation gives.
    LD_PRELOAD=$(gcc -print-file-name=libtsan.so) setarch -R "$@"
    ;;
bounds)
    SKDL_BOUNDS_CHECKS=1 build "" ""
    "$@"
    ;;
*)
    echo "$0: unknown kind of check: $kind (asan, tsan or bounds)" >&2
    exit 2
    ;;
esac
