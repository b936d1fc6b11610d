# Every target is one line into a real tool; what it needs is installed first, from the locks, into .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit test-faults test-compat cluster-up cluster-down image lint bench docs lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## train ResNet18 on real handwritten digits, 2 nodes x 2 ranks, on this machine (about 2 minutes)
	@$(BIN)/resnetctl run -f examples/digits.yaml

test: $(READY) ## all tests, on a real cluster too (root; the first time it is built: 15 minutes)
	@$(BIN)/python -m tests.cluster build && $(BIN)/python -m pytest tests

test-unit: $(READY) ## the tests to run every minute: pure, seconds
	@$(BIN)/python -m pytest tests/unit

test-faults: $(READY) ## every end-to-end fault scenario of docs/reliability.md, those of `make test` too (root)
	@$(BIN)/python -m tests.cluster build --faults && RESNET_OPERATOR_SOAK_MINUTES=30 $(BIN)/python -m pytest -m "faults or not faults" tests/e2e

test-compat: $(READY) ## app's tests on torch 2.4, the oldest that it runs on (the first time: 5 GB into the cache)
	@$(BIN)/python -m tests.compat

image: $(READY) ## build the images from the Dockerfile, on small CPU-only bases made for the tests (root; minutes the first time)
	@$(BIN)/python -m tests.cluster.images

cluster-up: $(READY) ## start a real two-node Kubernetes on this machine (root; the first time it is built: 15 minutes)
	@$(BIN)/python -m tests.cluster up

cluster-down: $(READY) ## end that cluster and remove every trace of it
	@$(BIN)/python -m tests.cluster down

lint: $(READY) ## ruff, formatting, mypy --strict
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(READY) ## measure the operator and its recoveries, and write docs/performance.md anew (an hour, root; nothing else should run)
	@set -e; for name in controller recovery; do $(BIN)/python -m bench.$$name --json .bench.json; $(BIN)/python -m bench.report .bench.json; done; rm .bench.json

docs: $(READY) ## write anew what is made from the code: the CRD, pages of docs/, rules, dashboards, charts
	@$(BIN)/python -m app.options_doc > docs/.new && mv docs/.new docs/options.md
	@$(BIN)/python -m controller.crd > docs/.new && mv docs/.new manifests/crd/resnetexperiments.resnet-operator.io.yaml
	@$(BIN)/python -m controller.crd_doc > docs/.new && mv docs/.new docs/crd.md
	@$(BIN)/python -m controller.examples_doc . > docs/.new && mv docs/.new docs/examples.md
	@$(BIN)/python -m controller.chart .
	@$(BIN)/python -m deviceplugin.api.generate
	@$(BIN)/python -m observability .

lock: $(READY) ## lock the requirements anew from pyproject.toml
	@requirements/lock.sh

clean: ## remove .venv and what tools cached here (runs/ stays)
	@rm -rf .venv .mypy_cache .ruff_cache .hypothesis *.egg-info

$(READY): requirements/dev.txt requirements/uv.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: needs Python 3.11 or newer, found %d.%d: give PYTHON=..." % sys.version_info[:2])'
	@echo "installing the locked requirements into .venv (the first time: a few minutes)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
