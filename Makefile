# make demo: train on MNIST and draw the result. make test: the whole test suite. Both make their own environment in .venv.
PYTHON ?= python3
comma := ,
PIP = .venv/bin/python -m pip --disable-pip-version-check

demo: .venv/installed
	.venv/bin/python examples/mnist.py

# Two processes share the files of tests, each with one thread where a test does not ask for more.
test: .venv/installed-test opencl-driver
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile

# The OpenCL tests want a device that works: PoCL makes one of the processor.
opencl-driver: .venv/installed-test
	@.venv/bin/python -c 'from skdl.opencl._device import choose; choose()' 2>/dev/null || { \
	    [ "$$(id -u)" = 0 ] && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq pocl-opencl-icd; \
	} >.venv/log 2>&1 || { echo "The tests need an OpenCL driver. On Debian or Ubuntu: sudo apt install pocl-opencl-icd"; exit 1; }

# The site, in build/docs. Warnings are errors.
docs: .venv/installed-docs
	.venv/bin/python -m sphinx -W --keep-going -q -d build/doctrees docs build/docs
	@echo "The site: build/docs/index.html"

# The site in Chromium, once it is built.
docs-test: .venv/installed-docs
	.venv/bin/python -m pytest -q docs/test_site.py

lint: .venv/installed-lint
	PATH="$(CURDIR)/.venv/bin:$$PATH"; ruff check . && ruff format --check . && cython-lint skdl/_kernels.pyx && \
	    clang-format --dry-run --Werror skdl/*.h skdl/opencl/softmax.cl && python tools/mutants.py --check

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "skdl needs Python >= 3.11: say which with make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "skdl's Makefile needs Python's venv module. On Debian or Ubuntu: apt install python3-venv"; exit 1; }

# Rebuilt whenever a source of the extension changes; the package itself is installed in place.
SOURCES = pyproject.toml setup.py skdl/_kernels.pyx $(wildcard skdl/*.h)
INSTALL = $(PIP) install -q -e '.[$(1)]' >.venv/log 2>&1 || \
	{ sed -n 's/.*error: \(skdl needs.*\)/\1/p' .venv/log | grep . || cat .venv/log; exit 1; }

.venv/installed: .venv/bin/python $(SOURCES)
	@$(call INSTALL,example)
	@touch $@

.venv/installed-test: .venv/bin/python $(SOURCES)
	@$(call INSTALL,example$(comma)test)
	@touch $@ .venv/installed

.venv/installed-docs: .venv/bin/python $(SOURCES)
	@$(call INSTALL,example$(comma)docs)
	@touch $@ .venv/installed

.venv/installed-lint: .venv/bin/python
	$(PIP) install -q ruff cython-lint clang-format
	@touch $@

# What is uploaded: sdist and wheel in dist/, as an index of packages will judge them. CONTRIBUTING.md says how a release is made.
release-check: .venv/bin/python
	$(PIP) install -q build twine check-wheel-contents
	rm -rf dist
	.venv/bin/python -m build -q
	.venv/bin/twine check --strict dist/*
	.venv/bin/check-wheel-contents dist/*.whl

# Checks of the compiled code in a build of its own: docs/reliability.md. A part of the tests: make asan TESTS=tests/test_kernels.py
TESTS = tests --ignore=tests/test_packaging.py --ignore=tests/test_readme.py
CASES = 1000000
CHECKED = SKDL_PYTHON=$(CURDIR)/.venv/bin/python tools/checked.sh

asan: .venv/installed-test
	$(CHECKED) asan python -m pytest -q -p no:cacheprovider $(TESTS)

# Time goes into the number of threads here, so only the tests of the kernels.
tsan: .venv/installed-test
	$(CHECKED) tsan python -m pytest -q -p no:cacheprovider tests/test_kernels.py

bounds: .venv/installed-test
	$(CHECKED) bounds python -m pytest -q -p no:cacheprovider $(TESTS)

fuzz: .venv/installed-test
	$(CHECKED) asan python tests/malformed.py $(CASES)

mutants: .venv/installed-test
	.venv/bin/python tools/mutants.py

soak: .venv/installed-test
	.venv/bin/python tools/soak.py

# What CI runs. As root on Debian or Ubuntu it installs what it needs.
ci:
	bash .ci/run

clean:
	rm -rf .venv build dist *.egg-info docs/api docs/gallery skdl/_kernels.c skdl/*.so mnist.png

.PHONY: demo test docs docs-test lint release-check asan tsan bounds fuzz mutants soak ci clean opencl-driver
