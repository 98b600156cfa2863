# make demo     what whit does to a real network, with proof
# make test     native tests, then pytest
# make test-runtimes   tests of what is large beside whit (ExecuTorch, Ray), in an environment of their own
# make check    formatting, lint, types, native tests under the sanitizers
# make clean    removes what was built; the downloaded packages stay in .venv
#
# Needs Python 3.11 or newer and a C++17 compiler. Everything else is installed into .venv.

PYTHON ?= python3
STAMP := .venv/.installed
PIP := .venv/bin/python -m pip --disable-pip-version-check
# The editable install knows which modules are packages, so one more wants it made anew.
PACKAGES := $(wildcard src/whit/*/__init__.py)
NATIVE := CMakeLists.txt $(wildcard native/*.cpp native/include/whit/*.hpp)
BUILD_NATIVE_TESTS := cmake -S . -G Ninja -DWHIT_PYTHON=OFF -DWHIT_TESTS=ON

# The tools of .venv (cmake, ninja, ruff, ...) come before those of the system.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: demo test test-runtimes check clean install native
.DELETE_ON_ERROR:

demo: install
	whit demo

test: install native
	pytest --numprocesses auto --dist worksteal

# Sees what is in .venv, and has beside it what is too much for every developer to install.
RUNTIMES := build/runtimes
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'

test-runtimes: install
	.venv/bin/python -m venv $(RUNTIMES)
	echo "import site; site.addsitedir('$$(.venv/bin/python $(PURELIB))')" >"$$($(RUNTIMES)/bin/python $(PURELIB))/venv.pth"
	$(RUNTIMES)/bin/python -m pip install --disable-pip-version-check -c constraints.txt executorch ray
	$(RUNTIMES)/bin/python -m pytest tests/export/test_executorch.py tests/export/test_weight_formats.py tests/test_workers.py

check: install
	ruff format --check
	ruff check
	pyright
	$(BUILD_NATIVE_TESTS) -B build/sanitize -DWHIT_SANITIZE=ON
	cmake --build build/sanitize
	build/sanitize/whit_tests

native: install
	$(BUILD_NATIVE_TESTS) -B build/native
	cmake --build build/native
	build/native/whit_tests

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(NATIVE) $(PACKAGES) | .venv/bin/pip
	@sh .ci/check_compiler
	$(PIP) install -c constraints.txt --upgrade pip
	$(PIP) install -c constraints.txt torch==2.13.0 scikit-build-core nanobind cmake ninja
	$(PIP) install -c constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "whit needs Python 3.11 or newer, but '$(PYTHON)' is not. Name one that is:" \
	    "make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis $(STAMP)
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
