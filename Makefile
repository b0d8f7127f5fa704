# Everything that one does with this repository. `make help` lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
SITE := $(BIN)/python -m sphinx -q -W --keep-going -b html -c deploy/site docs .toolcrib/site
# More for pytest, for example ARGS="-k replay -x".
ARGS ?=

##@ Use

.PHONY: demo
demo: setup engine image ## Show the refund desk on real parts (installs all it needs)
	@$(BIN)/python -m deploy.demo $(ARGS)

.PHONY: run
run: setup engine image ## Start a broker and all it needs on loopback: toolcrib dev
	@$(BIN)/toolcrib dev $(ARGS)

.PHONY: bench
bench: setup engine runtimes image ## Measure sandboxes and calls beside their floors: table, JSON, plot
	@$(BIN)/python -m bench.bench_call $(ARGS)
	@$(BIN)/python -m bench.bench_sandbox
	@$(BIN)/python -m bench.bench_load
	@$(BIN)/python -m bench.bench_egress

.PHONY: chaos
chaos: setup engine image ## Kill the broker at every point under 10,000 writes, count the effects
	@$(BIN)/python -m tests.chaos $(ARGS)

##@ Set up

# Two stamps: the locks seldom change, our own metadata oftener.
.venv/.locked: requirements/bootstrap.txt requirements/dev.txt deploy/setup/python.sh
	@deploy/setup/python.sh lock
	@touch $@

.venv/.installed: .venv/.locked pyproject.toml proto/pyproject.toml
	@deploy/setup/python.sh packages
	@touch $@

.PHONY: setup
setup: .venv/.installed ## Make .venv with what requirements/ locks, and our packages

.PHONY: engine
engine: setup ## See to it that a Docker Engine can be used (starts none)
	@deploy/setup/engine.sh

.PHONY: runtimes
runtimes: engine
	@deploy/setup/runtimes.sh

# Tests of a runtime that this system cannot have are left out, and pytest says so.
WITHOUT = TOOLCRIB_WITHOUT="$$(deploy/setup/runtimes.sh --without)"

.PHONY: node
node:
	@deploy/setup/node.sh

.PHONY: targets
targets:
	@deploy/setup/targets.sh

.PHONY: clients
clients: setup
	@deploy/setup/clients.sh

.PHONY: image
image: engine ## Build the sandboxes' base image; nothing when it is up to date
	@deploy/setup/image.sh

##@ Change

.PHONY: test
test: setup engine runtimes node targets clients image ## Run all tests on real parts; TOOLCRIB_WITHOUT=node,… leaves some out
	@$(WITHOUT) deploy/setup/tests.sh $(ARGS)

.PHONY: fuzz
fuzz: setup ## Fuzz registration with damaged descriptor sets; ARGS="--seconds 600 --seed 7"
	@$(BIN)/python -m tests.fuzz.fuzz_descriptors $(ARGS)

.PHONY: fuzz-proxy
fuzz-proxy: setup ## Fuzz the HTTP proxy with damaged requests and answers; ARGS="--seconds 600 --seed 7"
	@$(BIN)/python -m tests.fuzz.fuzz_proxy $(ARGS)

.PHONY: attacks
attacks: setup engine runtimes image ## Attack the sandboxes, each attack on each runtime and with its control
	@$(WITHOUT) TOOLCRIB_ATTACKS=all $(BIN)/python -P -m pytest -q tests/attacks $(ARGS)

.PHONY: attacks-long
attacks-long: setup engine runtimes image ## The same with longer floods, more kills and bigger bombs
	@$(WITHOUT) TOOLCRIB_ATTACKS=all TOOLCRIB_LONG=1 $(BIN)/python -P -m pytest -q tests/attacks $(ARGS)

.PHONY: ldap
ldap: setup
	@deploy/setup/ldap.sh

.PHONY: test-ldap
test-ldap: engine ldap image ## Run the LDAP tests, on slapd and an OpenBao of their own
	@$(BIN)/python -P -m pytest -q tests/ldap $(ARGS)

CHECKS := check-format check-lint check-types check-layers check-protos check-breaking \
  check-generated check-locks check-hosts check-docs

.PHONY: check $(CHECKS)
check: setup ## Check style, types, layers, protos, locks and docs
	@$(MAKE) --keep-going $(CHECKS)
	@echo "==> All checks pass"

check-format:
	@echo "==> Format"
	@$(BIN)/ruff format --quiet --check . || { echo "error: run: make fmt" >&2; exit 1; }
	@$(BIN)/buf format --diff --exit-code proto --exclude-path proto/buf

check-lint:
	@echo "==> Lint"
	@$(BIN)/ruff check --quiet .
	@for script in .ci/run $$(find deploy -name '*.sh'); do bash -n "$$script"; done

check-types:
	@echo "==> Types"
	@$(BIN)/mypy
	@$(BIN)/mypy deploy tests bench

check-layers:
	@echo "==> Layers"
	@$(BIN)/lint-imports --no-logo

check-protos:
	@echo "==> Protos"
	@$(BIN)/buf lint

check-breaking:
	@echo "==> Protos beside the last release"
	@deploy/checks/breaking.sh

check-generated:
	@echo "==> Generated code"
	@deploy/checks/generated.sh

check-locks:
	@echo "==> Locks"
	@$(BIN)/python -P deploy/checks/locks.py

check-hosts:
	@echo "==> No registry is named"
	@$(BIN)/python -P deploy/checks/hosts.py

check-docs:
	@echo "==> Documentation"
	@$(BIN)/python -P deploy/checks/docs.py
	@$(BIN)/python -m deploy.site.reference --check
	@$(SITE)

.PHONY: fmt
fmt: setup ## Format the code and the protos
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .
	@$(BIN)/buf format --write proto --exclude-path proto/buf

.PHONY: proto
proto: setup ## Write the Python code of the protos
	@deploy/setup/proto.sh

.PHONY: docs
docs: setup ## Make the documentation: help texts, protocol reference, and the site in .toolcrib/site
	@$(BIN)/python -P deploy/checks/docs.py --write
	@$(BIN)/python -m deploy.site.reference
	@$(SITE)
	@echo "==> Open .toolcrib/site/index.html"

.PHONY: lock
lock: setup ## Lock requirements/*.in anew; asks the machine's package index
	@deploy/setup/lock.sh

.PHONY: clean
clean: ## Remove everything that was made here: .venv, .toolcrib, caches
	@deploy/setup/clean.sh

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^##@ /{printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
