# Commands for readers: `make report` renders the document, `make test` checks the project in minutes, `make test-all`
# checks everything, `make verify` the stored runs. All make .venv by themselves and do nothing twice. `make test-all` builds Horovod (once, about
# 5 minutes on 2 cores); `make horovod` only builds it; with GPUs: make horovod TENSORFLOW='tensorflow[and-cuda]'.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A pinned set for CI and for anyone who wants the same versions; CONSTRAINTS= installs the newest instead.
CONSTRAINTS ?= constraints.txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
ARGS ?=
TENSORFLOW ?= tensorflow-cpu>=2.18

# What the user set for pip elsewhere would install past the environment, or make it fail.
export PIP_USER := 0
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_DRY_RUN PYTHONHOME PYTHONPATH
# pip must not install twice at a time into one environment.
.NOTPARALLEL:

.PHONY: report measure test test-all check verify manifest readme horovod clean

# QUARTO=install tries once, for a minute at most, to install Quarto; without one the embedded engine renders.
# RESULTS=DIR (or DIR:DIR2) shows your own results beside the committed ones, PRICE= what an hour of a device costs (USD).
report: $(VENV)/report.installed $(if $(filter install,$(QUARTO)),$(VENV)/quarto.tried)
	PATH="$(abspath $(BIN)):$$PATH" $(if $(RESULTS),DLPERF_RESULTS='$(RESULTS)') $(if $(PRICE),DLPERF_PRICE='$(PRICE)') $(BIN)/python -m report $(ARGS)

# The jobs of the homework that this machine can do, into my-results/: make measure ARGS='--dry-run'
measure: $(VENV)/distributed.installed
	$(BIN)/python experiments/measure.py $(ARGS)

# All but what needs Horovod, or minutes.
test: $(VENV)/test.installed $(VENV)/tensorflow.installed check
	$(BIN)/pytest -n auto --maxprocesses 8 -m 'not slow and not horovod' $(ARGS)

test-all: $(VENV)/test.installed $(VENV)/horovod.installed check
	$(BIN)/pytest -n auto --maxprocesses 8 $(ARGS)

check: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The stored runs: schema, hashes, provenance, ledger, plausibility, logs against rows; exit 1 names each that fails.
verify: $(VENV)/report.installed
	$(BIN)/python tools/verify_results.py $(ARGS)

# Lists the hashes of all results anew, after new runs.
manifest: $(VENV)/report.installed
	$(BIN)/python tools/verify_results.py --manifest

# README's picture, drawn anew after new runs.
readme: $(VENV)/report.installed
	$(BIN)/python tools/draw_readme.py

# Always looks again: what is installed may have changed since, and the wheel is kept by the versions that it is for.
horovod: $(VENV)/distributed.installed $(VENV)/tensorflow.installed
	$(BIN)/python tools/build_horovod.py
	@touch $(VENV)/horovod.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "$(PYTHON) could not make $(VENV); the reason is above" >&2; exit 2; }

$(VENV)/quarto.tried: $(VENV)/report.installed
	@timeout -k 5 60 $(PIP) -e '.[quarto]' > $(VENV)/quarto.log 2>&1 || \
	  echo "Quarto could not be installed (why: $(VENV)/quarto.log); the embedded engine renders instead" >&2
	@touch $@

$(VENV)/%.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[$*]'
	@touch $@

$(VENV)/tensorflow.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) '$(TENSORFLOW)'
	@touch $@

$(VENV)/horovod.installed: $(VENV)/distributed.installed tools/build_horovod.py tools/horovod-cxx tools/check_horovod.py
	@$(MAKE) --no-print-directory horovod

clean:
	rm -rf $(VENV) _book .quarto *.egg-info
