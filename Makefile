# make help lists the targets. Everything is installed into $(VENV); nothing outside is touched.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
# One or more pairs, comma-separated: make demo PAIRS=llama
PAIRS ?=
# Empty: torch as pip is configured here. cpu, auto, cu130 ...: chosen through uv (docs/how-to/install.md).
TORCH_BACKEND ?=

BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)
export PYTHONNOUSERSITE := 1
UV_INSTALL := uv pip install --quiet --python $(BIN)/python --link-mode copy --no-deps
LOCKED := $(UV_INSTALL) --compile-bytecode --require-hashes -r
# One thread a test process: the suite runs $(WORKERS) side by side, and sums must not depend on it.
WORKERS ?= 2
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: help demo zoo test lint format bench ranges schema lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:/' | column -t -s:

RUN = snakemake --cores $(CORES) --resources gpu=1
ONLY = $(if $(PAIRS),--config only=$(PAIRS))

demo: $(VENV)/.run.ok ## train two tiny families, audit them, write the page (PAIRS=llama for one pair)
	@$(RUN) $(ONLY)

zoo: $(VENV)/.run.ok ## the same for four families, with more draws, references and seeds
	@$(RUN) --configfile config/zoo.yaml $(ONLY)

test: $(VENV)/.dev.ok ## the default test suite
	@$(ONE_THREAD) pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(VENV)/.dev.ok ## style, types, spelling, the workflow itself
	ruff check
	ruff format --check
	basedpyright
	snakefmt --check Snakefile workflow/common.smk workflow/rules
	snakemake --lint
	codespell

format: $(VENV)/.dev.ok ## rewrite the code in the house style
	ruff check --fix
	ruff format
	snakefmt Snakefile workflow/common.smk workflow/rules

bench: $(VENV)/.run.ok ## every benchmark, one after the other
	@for script in benchmarks/*.py; do echo "== $$script"; python "$$script"; done

FAMILIES := llama gemma qwen ministral

ranges: $(VENV)/.run.ok ## five seeds of every zoo family, and their ranges (hours on two cores)
	@for family in $(FAMILIES); do
	  pairs=$$(printf "$$family-%s," 0 1 2 3 4)
	  snakemake --cores $(CORES) --resources gpu=1 --configfile config/ranges.yaml \
	    --config run=ranges-$$family only=$${pairs%,}
	done
	python tools/ranges.py $(FAMILIES:%=results/ranges-%)

schema: $(VENV)/.run.ok ## schema of the config and docs/reference, from settings and registry
	python tools/schema.py

lock: $(VENV)/.dev.ok ## envs/ from pyproject.toml (UPGRADE=1 for newer versions)
	python tools/lock.py $(if $(UPGRADE),--upgrade)

clean: ## all results but their README, caches included; the environment stays
	find results -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +

# Set-up, in steps: each leaves a stamp, so that a second make does nothing.

$(VENV)/.venv.ok: envs/uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else \
	  "actshift needs Python 3.11 to 3.13, found %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV) || { echo "no venv module: install it (Debian: python3-venv)" >&2; exit 1; }
	python -m pip install --quiet --no-deps --require-hashes -r envs/uv.lock
	touch $@

# A public Linux torch is a CUDA build: `pip check` then misses its libraries, and gpu.lock has them.
$(VENV)/.run.ok: $(VENV)/.venv.ok envs/torch.txt envs/cpu.lock envs/gpu.lock pyproject.toml
	@start=$$SECONDS; echo "set-up: installing the run environment into $(VENV)"
	if [ -n "$(TORCH_BACKEND)" ]; then $(UV_INSTALL) --torch-backend $(TORCH_BACKEND) -r envs/torch.txt
	else python -m pip install --quiet --no-deps --compile -r envs/torch.txt; fi
	$(LOCKED) envs/cpu.lock
	$(UV_INSTALL) --no-build-isolation -e .
	if ! uv pip check --quiet --python $(BIN)/python; then
	  echo "set-up: this torch is a CUDA build, installing its libraries"
	  $(LOCKED) envs/gpu.lock
	  uv pip check --python $(BIN)/python
	fi
	touch $@
	echo "set-up: done in $$((SECONDS - start)) s"

$(VENV)/.dev.ok: $(VENV)/.run.ok envs/dev.lock
	@start=$$SECONDS
	$(LOCKED) envs/dev.lock
	touch $@
	echo "set-up: dev tools in $$((SECONDS - start)) s"
