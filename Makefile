# Two commands: `make run` and `make test`. Python 3.11 or newer and `make` are all they need; everything else is
# installed into .venv from the hashed lock files.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=

# Modules are compiled once and not at every start: the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test lint docs lock chaos tools bench clean
.DEFAULT_GOAL := run

run: .venv/run.stamp  ## the gateway on the embedded log, with the sandbox provider; data in ./data
	@exec $(BIN)/tollgate serve $(ARGS)

# First what needs no broker, on all processors; then what runs on Kafka, which waits more than it works: three at a
# time, each with a broker of its own. pytest exits with 5 when ARGS leave nothing of a half.
test: .venv/test.stamp  ## all tests; those of Kafka when Java and Maven are there
	@$(BIN)/python -m pytest -n auto --dist worksteal -m "not kafka" $(ARGS) || [ $$? -eq 5 ]
	@$(BIN)/python -m pytest -n $(if $(TOLLGATE_TEST_KAFKA),1,3) --dist loadfile -m kafka $(ARGS) || [ $$? -eq 5 ]

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/test.stamp  ## the pages that are generated from the code
	$(BIN)/python -m tollgate.app.docs_settings > docs/settings.md
	$(BIN)/python -m tollgate.app.docs_sandbox > docs/sandbox.md
	$(BIN)/python -m tollgate.app.docs_providers > docs/providers.md
	$(BIN)/python -m tollgate.app.docs_events > docs/events.md
	$(BIN)/python -m tollgate.app.docs_events --schemas docs/schemas

chaos: .venv/test.stamp  ## faults under load on a real Kafka: make chaos ARGS="worker_killed --seed 7"
	@$(BIN)/python -m tests.chaos $(ARGS)

tools: .venv/test.stamp  ## programs that people use, as clients: make tools ARGS="codex llm"
	@$(BIN)/python -m tests.tools $(ARGS)

bench: .venv/test.stamp
	$(BIN)/python -m benchmarks $(ARGS)

lock:  ## the newest versions that pyproject.toml allows: make lock ARGS=--upgrade
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/python -m pip --disable-pip-version-check --quiet install uv
	.venv/lock/bin/uv pip compile $(COMPILE) --group dev -o requirements-dev.lock pyproject.toml $(ARGS)
	.venv/lock/bin/uv pip compile $(COMPILE) --group install -c requirements-dev.lock -o requirements.lock \
		pyproject.toml
COMPILE := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command 'make lock' --quiet

clean:
	rm -rf .venv dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp says that .venv holds its lock and the project. The dev lock is a superset with the same versions, so that
# changing between `make run` and `make test` installs nothing twice.
.venv/run.stamp: LOCK := requirements.lock
.venv/test.stamp: LOCK := requirements-dev.lock
.venv/run.stamp: requirements.lock
.venv/test.stamp: requirements-dev.lock
.venv/run.stamp .venv/test.stamp: pyproject.toml | $(BIN)/pip
	@echo "Installing $(LOCK) into .venv ..."
	@$(PIP) install --require-hashes -r $(LOCK)
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tollgate needs Python 3.11 or newer; name one: make run PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv
