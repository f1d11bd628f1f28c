PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# All cores for one process; threads that wait should sleep, or they slow each other down on a busy machine.
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 1)
export OMP_WAIT_POLICY ?= passive
LAUNCH := $(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

.PHONY: help setup train test lint bench clean

help:
	@echo "make train   set up, train the embedded default and write runs/grpo_simulated/report.html"
	@echo "make test    set up, run the tests (SLOW=1: the slow ones too)"
	@echo "make lint    check format and style"
	@echo "make bench   run the benchmarks"
	@echo "make clean   remove the environment and the caches"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[train,dev]"
	@touch $@

train: $(READY)
	$(LAUNCH) recipes/grpo.py

test: export OMP_NUM_THREADS = 1
test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto $(if $(SLOW),--slow)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(READY)
	@for script in benchmarks/*.py; do echo "# $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
