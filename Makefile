# Sets everything up in .venv by itself. PYTHON: which Python to use (3.11 or later).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test torture check lint format grafana chart openapi chart-policies lock image image-test sbom clean

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fsm-sidecar needs Python 3.11 or later; name one: make PYTHON=python3.12 …"; exit 1; }
	@echo "Setting up $(VENV), once …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/.ready          ## see the main job: make demo, make demo ARGS=--once
	@$(BIN)/python -m demo $(ARGS)

test: $(VENV)/.ready          ## all tests: make test, make test ARGS='-k conflict', make test LOOP=asyncio for the other event loop
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

grafana: $(VENV)/.ready       ## write dashboards, rules, their copies in the chart and the tables of docs/metrics.md anew
	$(BIN)/python -m grafana.build
	$(BIN)/fsm-sidecar rules prometheus > grafana/prometheus/fsm-sidecar-rules.yaml
	$(BIN)/fsm-sidecar rules grafana > grafana/alerting/fsm-sidecar-rules.yaml
	$(BIN)/python -m helm.build

openapi: $(VENV)/.ready       ## write docs/openapi.json anew
	$(BIN)/fsm-sidecar openapi > docs/openapi.json

chart: $(VENV)/.ready         ## write anew what of the Helm chart is made: its copies of rules and dashboards, the schema, the README's table
	$(BIN)/python -m helm.build

build/checkov/.ready:
	@$(PYTHON) -m venv build/checkov
	@build/checkov/bin/pip install --quiet --disable-pip-version-check checkov==3.3.30
	@touch $@

chart-policies: $(VENV)/.ready build/checkov/.ready  ## checkov's rules for Kubernetes on what the chart gives; its exceptions: helm/checkov.yaml
	$(BIN)/python -m pytest tests/chart/policies.py -p no:cacheprovider $(ARGS)

# --- the image: docs/image.md ---

ENGINE ?= $(firstword $(foreach each,docker podman buildah,$(if $(shell command -v $(each)),$(each))))
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
TOOLS := build/tools

$(TOOLS)/.ready:
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/pip install --quiet --disable-pip-version-check uv==0.13.9 cyclonedx-bom==7.5.0
	@touch $@

LOCK = $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
  --custom-compile-command 'make lock, or make lock ARGS=--upgrade for the newest' $(ARGS)

lock: $(TOOLS)/.ready         ## lock what the image installs: make lock, make lock ARGS=--upgrade for the newest
	$(LOCK) pyproject.toml --output-file requirements.lock
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | $(LOCK) - --output-file requirements-build.lock

image:                        ## build it: make image, make image ENGINE=podman ARGS='--build-arg BASE=…'
	@[ -n "$(ENGINE)" ] || { echo "Building an image needs docker, podman or buildah"; exit 1; }
	BUILDAH_FORMAT=docker $(ENGINE) build --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) \
	  --tag fsm-sidecar:$(VERSION) $(ARGS) .

image-test: $(VENV)/.ready    ## build it, run it locked down, and see what it takes: make image-test, make image-test PULL=1
	PULL=$(PULL) $(BIN)/python -m pytest tests/image/running.py -p no:cacheprovider $(ARGS)

sbom: $(TOOLS)/.ready         ## what the image installs, with licences, as CycloneDX: build/sbom.json
	@$(TOOLS)/bin/uv venv --quiet --clear --python $(PYTHON) build/sbom-venv
	@$(TOOLS)/bin/uv pip install --quiet --python build/sbom-venv/bin/python --require-hashes -r requirements.lock
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
	  --output-file build/sbom.json build/sbom-venv/bin/python

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
