# Sets everything up in .venv by itself. PYTHON: which Python to use (3.11 or later).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test torture check lint format clean

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fsm-sidecar needs Python 3.11 or later; name one: make PYTHON=python3.12 …"; exit 1; }
	@echo "Setting up $(VENV), once …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/.ready          ## see the main job: make demo, make demo ARGS=--once
	@$(BIN)/python -m demo $(ARGS)

test: $(VENV)/.ready          ## all tests: make test, make test ARGS='-k conflict'
	$(BIN)/python -m pytest $(ARGS)

torture: $(VENV)/.ready       ## the proofs with large counts, about an hour: make torture, make torture SEED=7
	TORTURE=1 $(BIN)/python -m pytest tests/torture -rA -p no:cacheprovider $(ARGS)

lint: $(VENV)/.ready          ## style, types and import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test              ## what CI runs

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
