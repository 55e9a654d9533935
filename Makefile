# Two commands: `make run` (a room scan becomes an AR package) and `make test`. `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
PORT ?= 3000
SCAN ?=
ROOMS ?= 10
BIN := .venv/bin
# All that runs leave behind lies in .home: the store, the inbox, the packages and Dagster's own database.
export GEOMAGIC_HOME ?= $(CURDIR)/.home
export DAGSTER_HOME ?= $(GEOMAGIC_HOME)/dagster

.PHONY: help run ui test quick lint bench lock viewer setup setup-ui setup-dev setup-browser setup-prometheus setup-nginx clean

help:  ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | column -t -s '|'

run: setup  ## turn a room scan into an AR package: make run [SCAN=path/to/scan]
	@$(BIN)/geomagic run $(if $(SCAN),"$(SCAN)")

ui: setup-ui  ## the whole installation (webserver, daemon, warm processes, intake) at http://127.0.0.1:3000 (PORT=... moves all its ports)
	@$(BIN)/geomagic ui --port $(PORT)

# Tests that make true environments share what they download. Files begin in the order of tests/order.py.
PYTEST := $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder
test: export GEOMAGIC_TEST_WHEELS ?= $(GEOMAGIC_HOME)/test-wheels
test: setup-dev  ## run all tests
	@$(PYTEST)

quick: setup-dev  ## ... but the slow ones
	@$(PYTEST) -m "not slow"

lint: setup-dev  ## ruff, the type checker, the import contract, and whether the stages compile
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/pyright && $(BIN)/lint-imports && $(BIN)/geomagic compile --check

bench: setup-dev .venv/.bench  ## time and memory; made-up rooms over their truth; fusion: make bench [SCAN=path] [ROOMS=10]
	@$(BIN)/python -m bench $(if $(SCAN),--scan "$(SCAN)") --rooms $(ROOMS) --sheet "$(GEOMAGIC_HOME)/bench/rooms.png"

setup: .venv/.run  ## make .venv with what `run` and `ui` need
setup-ui: .venv/.console  ## ... and what the console needs
setup-dev: .venv/.dev  ## ... and what the tests need

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: expected Python 3.11 or newer; got $$($(PYTHON) --version 2>&1). Install one and say: make PYTHON=python3.12 run" >&2; exit 2; }
	@echo "making .venv (once; a few minutes) ..."
	@$(PYTHON) -m venv .venv

.venv/.run: requirements.lock pyproject.toml | .venv/bin/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@mkdir -p "$(GEOMAGIC_HOME)" && touch $@

.venv/.dev: requirements-dev.lock .venv/.run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@

.venv/.console: requirements-console.lock .venv/.run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-console.lock
	@touch $@

.venv/.bench: requirements-bench.lock .venv/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-bench.lock
	@touch $@

setup-browser:  ## install Chromium for the browser tests where this machine can (Debian, as root)
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || echo "no Chromium here and no way to install it: the browser tests will skip"

setup-prometheus: | .venv/bin/python  ## fetch Prometheus for the tests of the metrics where this machine can (Debian)
	@PATH="$(BIN):$$PATH"; command -v prometheus promtool >/dev/null || { command -v apt-get dpkg >/dev/null && \
		there=$$(mktemp -d) && cd "$$there" && { apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; }; } && \
		dpkg -x prometheus_*.deb . && cp usr/bin/prometheus usr/bin/promtool "$(CURDIR)/$(BIN)" && rm -r "$$there"; } || echo "no Prometheus here and no way to fetch it: its tests will skip"

setup-nginx: | .venv/bin/python  ## fetch nginx for the tests of the gate where this machine can (Debian)
	@PATH="$(BIN):$$PATH:/usr/sbin"; command -v nginx >/dev/null || { command -v apt-get dpkg >/dev/null && \
		there=$$(mktemp -d) && cd "$$there" && { apt-get download -qq nginx 2>/dev/null || { apt-get update -qq && apt-get download -qq nginx; }; } && \
		dpkg -x nginx_*.deb . && cp usr/sbin/nginx "$(CURDIR)/$(BIN)" && rm -r "$$there"; } || echo "no nginx here and no way to fetch it: its tests will skip"

lock:  ## pin every dependency anew (pip-tools, in a throwaway environment)
	@bash deploy/lock.sh

viewer:  ## bundle three.js and the console's 3D viewer anew, as the lock files in deploy/ pin them (npm)
	@cd deploy/viewer && npm ci --ignore-scripts --no-audit --no-fund && npm run --silent build -- --outfile=../../geomagic_dagster/viewer/static/three.js
	@cp deploy/viewer/node_modules/three/LICENSE geomagic_dagster/viewer/static/three.LICENSE
	@cd deploy/console && npm ci --ignore-scripts --no-audit --no-fund && sh bundle.sh

clean:  ## remove .venv and .home
	@rm -rf .venv .home
