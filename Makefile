# Every target works on a fresh clone with Python 3.11 or newer: it sets up .venv first, once.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
EXTRAS := .[local,embedded,dev]
JOBS ?= 2
ARGS ?=

# Run a command and show what it says only when it fails.
quietly = @said=$$($(1) 2>&1) || { printf '%s\n' "$$said"; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help setup demo test up check bench env clean

help: ## Show this.
	@awk 'BEGIN { FS = ":.*## " } /^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## Make .venv with everything in it.

$(READY): pyproject.toml constraints.txt
	@found=; for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "Fluxfarm needs Python 3.11 or newer, and none was found: install it, or say make PYTHON=/path/to/python3." >&2; \
	  exit 1; \
	fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  "$$found" -m venv --clear .venv || { \
	    echo "$$found cannot make a virtual environment; on Debian and Ubuntu install python3-venv." >&2; exit 1; }; \
	fi
	@echo "Installing into .venv; the first time this takes some minutes." >&2
	$(call quietly,$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '$(EXTRAS)')
	@touch $(READY)

demo: $(READY) ## Render one picture with a farm of its own, show its record, stop.
	@$(BIN)/fluxfarm demo

test: $(READY) ## Run every test on real PostgreSQL and Valkey (JOBS=2, ARGS=-x).
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup $(ARGS)

up: $(READY) ## Run the farm until Ctrl-C.
	@$(BIN)/fluxfarm up

check: $(READY) ## Look for faults without running: style, types, imports, migrations, manifests.
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/python -m mypy --no-error-summary
	$(call quietly,$(BIN)/lint-imports)
	$(call quietly,$(BIN)/python -m pytest -q -p no:randomly tests/storage/test_migrations.py)
	$(call quietly,find k8s -name '*.yaml' ! -name kustomization.yaml -exec $(BIN)/kubernetes-validate --strict {} +)
	$(call quietly,$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml)
	$(call quietly,$(BIN)/hadolint Dockerfile)
	$(call quietly,! command -v kubectl || for one in k8s/overlays/*/; do kubectl kustomize $$one || exit 1; done)
	$(call quietly,! command -v promtool || promtool check config k8s/monitoring/prometheus.yml)

bench: $(READY) ## Measure, and print a table.
	@$(BIN)/python -m bench $(ARGS)

env: ## Write .env for docker compose, with fresh secrets (GPU=/path/to/FLUX.2-klein-4B).
	@$(PYTHON) -m fluxfarm.dotenv $(GPU)

clean: ## Remove caches, builds and what the demo left; .venv and the farm's data stay.
	@rm -rf build dist demo .fluxfarm/demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
	@find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
