PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SCRIPTS := .ci/run benchmarks/*.sh docker/*.sh docker/slurm.sbatch

# One thread a process: small policies gain nothing from a second one, and everything from a second process.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup train test lint bench clean

help:
	@echo "make train   set up, train the embedded default and write runs/grpo_simulated/report.html"
	@echo "make test    set up, run the tests (SLOW=1: the slow ones too)"
	@echo "make lint    check format and style, and the files of docker/"
	@echo "make bench   run the benchmarks"
	@echo "make clean   remove the environment and the caches"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[train,dev]"
	@touch $@

train: $(READY)
	$(BIN)/torchrun --standalone --nproc_per_node 2 recipes/grpo.py --use_cpu --per_device_train_batch_size 8

test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto $(if $(SLOW),--slow)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	@for script in $(SCRIPTS); do bash -n $$script || exit 1; done
	$(BIN)/shellcheck $(SCRIPTS)
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker/compose.yaml docker/compose.judge.yaml
	$(BIN)/kubernetes-validate --strict --quiet docker/kubernetes.yaml

bench: $(READY)
	@failed=; for script in benchmarks/*.py; do \
		echo "# $$script"; $(BIN)/python $$script || failed="$$failed $$script"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
