# Every target makes what it needs and does nothing twice.
#
#   make demo    the main job on this machine: engine, profile, forecast, plan, apply, report
#   make test    all tests, real engines included   (NO_ENGINE=1 leaves those out)
#   make soak    kills, cuts and outages of real processes, one after the other (about an hour)
#   make fuzz    broken variants of every file that is read (minutes; ROUNDS=3000 of each)
#   make mutate  altered lines of the core: does a test fail for each? (an hour; MUTATE_FLAGS='--package rollout')
#   make coverage  lines and branches of one core package by its own tests (PACKAGE=rollout)
#   make check   the whole gate: lint, types, import contracts, tests, packaging
#   make docs    the pages of docs/ and the reference made from the code, as a site in build/site
#   make bench   the benchmarks, and make soak at the end (hours)
#   make bench-dynamo    the twin against NVIDIA's simulator on public traces (about 40 minutes)
#   make bench-closed-loop   autoscaling policies over whole traces in NVIDIA's simulator and in the twin (hours; BENCH_FLAGS=--quick: one workload)
#   make bench-aiconfigurator   the optimizer against NVIDIA's aiconfigurator (about 20 minutes)
#   make bench-forecast   the forecaster on public traces, beside NVIDIA Dynamo's predictors (about 30 minutes)
#   make bench-engines   the twin against real CPU engines under quotas (about an hour, root)
#   make bench-serving   the running deployment: changes, kills, answers, soak (about an hour)
#   make serve   the planning API on the demo's spec (SPEC=file for another), as a dry run
#   make engine  the CPU engine in a virtual environment of its own
#   make browser   Chromium for the tests of pages, where this machine has none

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
ENGINE := .engine
DYNAMO := .dynamo
PREDICTORS := .predictors
MUTATION := .mutation
BIN := $(VENV)/bin
export POOLWISE_STATE_DIR ?= $(CURDIR)/.poolwise
export POOLWISE_ENGINE_PYTHON ?= $(CURDIR)/$(ENGINE)/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Some images forbid bytecode: then each of some hundred processes of the tests compiles everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test browser soak fuzz mutate coverage check bench bench-dynamo bench-closed-loop bench-aiconfigurator bench-forecast bench-engines bench-serving serve engine lint types imports package docs clean

help:
	@sed -n 's/^#   //p' Makefile

$(VENV)/stamp: pyproject.toml requirements/lock.txt
	@echo "[setup] making $(VENV) (about a minute, 1.2 GB)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Poolwise needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c requirements/lock.txt -e '.[dev,serve]'
	touch $@

engine: $(VENV)/stamp
	@$(BIN)/python -m serving.cpu_engine.install $(ENGINE)

demo: $(VENV)/stamp engine
	@$(BIN)/poolwise demo $(DEMO_FLAGS)

# Playwright drives Debian's Chromium: its own browsers come from a host that few machines reach.
# Without one the tests of pages are skipped, and say so.
browser:
	@if command -v chromium >/dev/null; then exit 0; fi
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	    echo "[setup] no Chromium: the tests of pages are skipped (as root: apt-get install chromium)"
	    exit 0
	fi
	echo "[setup] installing Chromium (400 MB)"
	export DEBIAN_FRONTEND=noninteractive
	{ apt-get update -q && apt-get install -y -q --no-install-recommends chromium fonts-liberation; } >/dev/null \
	    || echo "[setup] Chromium could not be installed: the tests of pages are skipped"

# One process a core and one more, as tests that start servers wait for a quarter of their time; but
# real engines one after the other: they are measured while they run.
# Status 5 is pytest's word for "nothing to run here", as when PYTEST_FLAGS names one file.
test: $(VENV)/stamp browser $(if $(NO_ENGINE),,engine)
	@$(BIN)/python -m pytest -n $$(( $$(nproc) + 1 )) --dist worksteal -m 'not engine and not soak' $(PYTEST_FLAGS) || [ $$? -eq 5 ]
	$(if $(NO_ENGINE),,$(BIN)/python -m pytest -m engine $(PYTEST_FLAGS) || [ $$? -eq 5 ])

soak: $(VENV)/stamp
	@$(BIN)/python -m pytest -n auto --dist worksteal -m 'soak and not engine' $(PYTEST_FLAGS)

fuzz: $(VENV)/stamp
	@POOLWISE_FUZZ_ROUNDS=$(or $(ROUNDS),3000) $(BIN)/python -m pytest -n auto --dist worksteal --timeout 3000 tests/fuzz $(PYTEST_FLAGS)

# Beside the tests' own packages, without what it requires for its command line.
$(MUTATION)/stamp: $(VENV)/stamp benchmarks/mutation/requirements.txt
	@echo "[setup] installing cosmic-ray and coverage into $(MUTATION) (6 MB)"
	rm -rf $(MUTATION)
	$(BIN)/python -m pip install -q --no-deps --target $(MUTATION) -r benchmarks/mutation/requirements.txt
	touch $@

mutate: $(MUTATION)/stamp
	@PYTHONPATH=$(MUTATION) $(BIN)/python -m benchmarks.mutation.run $(MUTATE_FLAGS)

# The queues' inner sums are left uncompiled, as coverage does not see into machine code.
PACKAGE ?= rollout
coverage: $(MUTATION)/stamp
	@export PYTHONPATH=$(MUTATION) COVERAGE_FILE=build/coverage.$(PACKAGE)
	mkdir -p build
	$(if $(filter capacity,$(PACKAGE)),NUMBA_DISABLE_JIT=1) $(BIN)/python -m coverage run --branch --source=planner/$(PACKAGE) \
	    -m pytest -q --timeout 3000 tests/planner/$(PACKAGE) $(PYTEST_FLAGS)
	$(BIN)/python -m coverage report --show-missing --skip-covered

lint: $(VENV)/stamp
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/stamp
	@$(BIN)/mypy

imports: $(VENV)/stamp
	@$(BIN)/lint-imports

package: $(VENV)/stamp
	@$(BIN)/python -m tests.packaging.check_wheel

# Strict: a link or heading that leads nowhere fails.
docs: $(VENV)/stamp
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q
	echo "[docs] build/site/index.html"

check: lint types imports docs test package
	@echo "[check] all green"

bench: $(VENV)/stamp
	@for file in $(filter-out benchmarks/bench_serving.py,$(wildcard benchmarks/bench_*.py)); do
	    echo "== $$file"
	    $(BIN)/python -m benchmarks.$$(basename $$file .py)
	done
	$(MAKE) soak

# Its wheel only: what it requires besides is not needed for replaying a trace.
$(DYNAMO)/stamp: benchmarks/dynamo/requirements.txt
	@echo "[setup] making $(DYNAMO) with NVIDIA's simulator (330 MB)"
	$(PYTHON) -m venv --clear $(DYNAMO)
	$(DYNAMO)/bin/python -m pip install -q --no-deps -r benchmarks/dynamo/requirements.txt
	touch $@

# The predictors' file of its wheel, and the forecasting packages that it imports.
$(PREDICTORS)/stamp: benchmarks/forecasting/requirements.txt benchmarks/forecasting/requirements-packages.txt
	@echo "[setup] making $(PREDICTORS) with NVIDIA Dynamo's predictors (700 MB)"
	$(PYTHON) -m venv --clear $(PREDICTORS)
	$(PREDICTORS)/bin/python -m pip install -q -r benchmarks/forecasting/requirements-packages.txt
	$(PREDICTORS)/bin/python -m pip install -q --no-deps -r benchmarks/forecasting/requirements.txt
	touch $@

bench-forecast: $(VENV)/stamp $(PREDICTORS)/stamp
	@$(BIN)/python -m benchmarks.bench_forecast --theirs $(PREDICTORS)/bin/python $(BENCH_FLAGS)

bench-dynamo: $(VENV)/stamp $(DYNAMO)/stamp
	@$(BIN)/python -m benchmarks.dynamo.compare $(BENCH_FLAGS)

# Dynamo's planner beside its simulator: its wheel, and the packages that the planner imports.
$(DYNAMO)/planner-stamp: $(DYNAMO)/stamp benchmarks/closed_loop/requirements.txt benchmarks/closed_loop/requirements-packages.txt
	@echo "[setup] installing Dynamo's planner into $(DYNAMO) (600 MB)"
	$(DYNAMO)/bin/python -m pip install -q -r benchmarks/closed_loop/requirements-packages.txt
	$(DYNAMO)/bin/python -m pip install -q --no-deps -r benchmarks/closed_loop/requirements.txt
	touch $@

bench-closed-loop: $(VENV)/stamp $(DYNAMO)/planner-stamp
	@$(BIN)/python -m benchmarks.closed_loop.compare --write docs/closed-loop.md $(BENCH_FLAGS)

# Its pins agree with ours, so that it lives beside us.
$(VENV)/aiconfigurator-stamp: $(VENV)/stamp
	@echo "[setup] installing aiconfigurator (300 MB)"
	$(BIN)/python -m pip install -q -c requirements/lock.txt -e '.[aiconfigurator]'
	touch $@

bench-aiconfigurator: $(VENV)/aiconfigurator-stamp
	@$(BIN)/python -m benchmarks.aiconfigurator.compare $(BENCH_FLAGS)

bench-engines: $(VENV)/stamp engine
	@$(BIN)/python -m benchmarks.real_engines all $(BENCH_FLAGS)

bench-serving: $(VENV)/stamp engine
	@$(BIN)/python -m benchmarks.bench_serving $(BENCH_FLAGS)

SPEC ?= poolwise-demo/spec.yaml
serve: $(VENV)/stamp
	@test -f $(SPEC) || { echo "no $(SPEC): run make demo first, or give one: make serve SPEC=spec.yaml"; exit 2; }
	$(BIN)/poolwise serve --spec $(SPEC) --dry-run $(SERVE_FLAGS)

clean:
	rm -rf $(VENV) $(ENGINE) $(DYNAMO) $(MUTATION) .poolwise poolwise-demo dist build
