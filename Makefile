# Everything runs in .venv, which each target makes for itself. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_DIR ?= runs/digits
# Compiling dominates the tests, not arithmetic: one XLA thread a worker, one worker a core.
TEST_FLAGS ?= -n auto --dist worksteal -q

.PHONY: help train test test-slow quick lint format notebooks docs pictures ops bench survive wheel clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "handgrad needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/train: $(VENV)/made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[plots]'
	touch $@

$(VENV)/dev: $(VENV)/made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev,notebooks]'
	touch $@ $(VENV)/train

$(VENV)/docs: $(VENV)/made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs]'
	touch $@ $(VENV)/dev $(VENV)/train

$(VENV)/bench: $(VENV)/made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[plots,bench]'
	touch $@ $(VENV)/train

train: $(VENV)/train  ## train the digits net by hand-derived gradients, checked first
	$(BIN)/python examples/train_digits.py --run-dir $(RUN_DIR)

test: $(VENV)/dev  ## run the tests (under 10 minutes on two cores)
	$(BIN)/python -m pytest -m "not slow" $(TEST_FLAGS)

test-slow: $(VENV)/dev  ## run the long tests
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest -m slow $(TEST_FLAGS)

quick: $(VENV)/dev  ## run the core of the tests (under a minute)
	$(BIN)/python -m pytest -m "core and not slow" $(TEST_FLAGS)

lint: $(VENV)/dev  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: $(VENV)/dev  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(VENV)/dev  ## run the notebooks afresh, and check their answers
	$(BIN)/python notebooks/run.py

docs: $(VENV)/docs  ## build the documentation, build/docs/index.html, with the notebooks' last runs
	$(BIN)/python notebooks/run.py --cached
	$(BIN)/sphinx-build -q -W --keep-going -b html -c docs . build/docs

pictures: $(VENV)/dev  ## draw the ops' data flow anew, docs/images/ops
	$(BIN)/python -m docs.pictures

ops: $(VENV)/dev  ## write the table of all ops, docs/ops.md
	$(BIN)/python tests/onnx_cases/ops_table.py

bench: $(VENV)/bench  ## time handgrad beside its peers, for docs/ (BENCH="--only steps,pools" for a part)
	$(BIN)/python -m benchmarks $(BENCH)

survive: $(VENV)/dev  ## try 5,000 random settings that must not abort XLA (over an hour)
	$(BIN)/python tests/aborts.py --settings 5000

wheel: $(VENV)/dev  ## build the wheel and the source archive into dist/
	$(BIN)/python -m build

clean:  ## remove the virtual environment and build products
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .hypothesis
