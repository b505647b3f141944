# Everything a developer does here. `make run` and `make test` need nothing but Python 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_VENV := .venv-run
MLFLOW_VENV := .venv-mlflow

.DEFAULT_GOAL := help
.PHONY: help run test check fix faults bench docs clean lock

help:  ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A lock file is installed whole, with hashes; the stamp is as new as the lock it stands for.
$(VENV)/.stamp: requirements/dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(RUN_VENV)/.stamp: requirements/run.lock pyproject.toml
	$(PYTHON) -m venv $(RUN_VENV)
	$(RUN_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/run.lock
	$(RUN_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# A server that tests talk to: of its own, because its 850 MB want older libraries than we do.
$(MLFLOW_VENV)/.stamp: requirements/mlflow.lock
	$(PYTHON) -m venv $(MLFLOW_VENV)
	$(MLFLOW_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/mlflow.lock
	@touch $@

run: $(RUN_VENV)/.stamp  ## Fetch the eKYC models, start the house, call it on real images
	@dev/need npm
	$(RUN_VENV)/bin/python examples/ekyc/run.py

test: $(VENV)/.stamp $(MLFLOW_VENV)/.stamp check  ## All checks and all tests: unit, conformance, journeys, examples
	@dev/need npm chromium chromedriver postgres rabbitmq-server redis-server faketime strace systemd-analyze buildah
	$(BIN)/python examples/ekyc/fetch.py
	$(BIN)/pytest --durations=30 tests/conformance tests/bad_input tests/journeys tests/examples tests/faults

check: $(VENV)/.stamp  ## Format, lint, types, import direction, unit and docs tests
	@dev/need curl
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/unit tests/docs

fix: $(VENV)/.stamp  ## Format and repair what can be repaired
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

FAULTS := $(BIN)/python -m tests.faults.run --jobs 200000 --kills 1000 --seed 1 --rate 200 --workers 4

faults: $(VENV)/.stamp  ## 200,000 jobs under 1,000 kills, on each broker and each database
	@dev/need postgres rabbitmq-server
	$(FAULTS) --broker nats --database sqlite
	$(FAULTS) --broker nats --database postgresql
	$(FAULTS) --broker rabbitmq --database sqlite
	$(FAULTS) --broker rabbitmq --database postgresql

bench: $(VENV)/.stamp  ## Headrace beside its peers: builds a venv for each, needs wrk
	$(BIN)/python benchmarks/run.py setup
	$(BIN)/python benchmarks/run.py run --write

docs: $(VENV)/.stamp  ## The tests of the documentation alone
	$(BIN)/pytest tests/docs

LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header \
	--python-version 3.11 --override requirements/override.txt --custom-compile-command "make lock"

lock: $(VENV)/.stamp  ## Resolve the lock files again
	$(LOCK) -o requirements/run.lock pyproject.toml --extra arrays --extra images --extra onnx \
		requirements/build.in examples/ekyc/requirements.in
	$(LOCK) -o requirements/dev.lock pyproject.toml --all-extras requirements/build.in \
		requirements/dev.in examples/ekyc/requirements.in
	$(LOCK) -o requirements/mlflow.lock requirements/mlflow.in

clean:  ## Remove what was built
	rm -rf $(VENV) $(RUN_VENV) $(MLFLOW_VENV) .mypy_cache .ruff_cache .pytest_cache
