# The commands of this project; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# auto: containers where a Docker engine answers. docker: containers are required. process: no containers.
STACK ?= auto
# Duration of a soak.
MINUTES ?= 30
PACKAGES := services/protocol services/server services/client
SOURCES := services tests ops bench
# The packages of The Lounge, a client of IRC.
LOUNGE := tests/browser/lounge
NPM_QUIETLY := --ignore-scripts --omit=optional --no-audit --no-fund --loglevel=error

export DOCKER_BUILDKIT := 1

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: install
install: $(VENV)/.installed ## Install both programs and the tools into .venv, with pinned versions
	@echo "Installed: $(BIN)/chatserver, $(BIN)/chatclient"

.PHONY: demo
demo: $(VENV)/.installed ## Show a conversation: a server and three scripted clients; TLS=1 encrypts it
	@$(BIN)/python -m ops demo --stack $(STACK) $(if $(TLS),--tls)

.PHONY: cluster
cluster: $(VENV)/.installed ## Show three chat servers that share one log; one is killed, and the conversation goes on
	@$(BIN)/python -m ops cluster

.PHONY: test
test: $(VENV)/.installed ## Run the tests; STACK=docker requires containers, STACK=process leaves them out
	@CHAT_TEST_STACK=$(STACK) $(BIN)/python -m pytest -n auto --dist worksteal -m "not long" $(ARGS)

.PHONY: test-long
test-long: $(VENV)/.installed ## Run the tests that wait or repeat, and all properties with many more examples
	@CHAT_TEST_LONG=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "long or hypothesis" $(ARGS)

.PHONY: browser
browser: ## Install the browser for the tests of the web page, on a Debian machine, as root
	@command -v chromium chromedriver >/dev/null || { apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium chromium-driver; }

.PHONY: irc-clients
irc-clients: $(VENV)/irc/.installed ## Install irssi, WeeChat, The Lounge and bots for the tests of IRC, on a Debian machine, as root
	@{ command -v irssi && command -v weechat; } >/dev/null || { apt-get -qq update && apt-get -qq install --yes --no-install-recommends irssi weechat-curses; }

.PHONY: mutants
mutants: $(VENV)/.installed ## Break each promise on purpose, and check that a test notices
	@PYTHONPATH=tests $(BIN)/python -m mutants $(ARGS)

.PHONY: soak
soak: $(VENV)/.installed ## Run clients of all kinds for MINUTES=30; then check memory, log and messages
	@PYTHONPATH=tests $(BIN)/python -m reliability.soak --minutes $(MINUTES)

.PHONY: check
check: $(VENV)/.installed $(VENV)/imports/.installed ## Check style, types and the direction of imports
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	PYTHONPATH=services/protocol:services/server:services/client $(VENV)/imports/bin/lint-imports

.PHONY: format
format: $(VENV)/.installed ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

.PHONY: bench
bench: $(VENV)/.installed-bench ## Measure speed, also of other servers if installed; ARGS=--quick for a short run
	@$(BIN)/python -m bench $(ARGS)

.PHONY: bench-peers
bench-peers: ## Install other servers to compare with, on a Debian machine, as root
	@bench/peers.sh

.PHONY: picture
picture: $(VENV)/.installed ## Draw the screens of the client and of the web page for the README
	@$(BIN)/python -m ops picture
	@$(BIN)/python -m ops page_pictures

.PHONY: settings
settings: $(VENV)/.installed ## Write the tables of settings into the documents, .env.example and compose.yaml
	@$(BIN)/python -m ops settings

.PHONY: sbom
sbom: $(VENV)/audit/.installed ## List the packages of both programs in sbom/, as CycloneDX
	@$(VENV)/audit/bin/python -m ops supply sbom

.PHONY: audit
audit: $(VENV)/audit/.installed ## Look up known vulnerabilities of the pinned packages; needs the internet
	@$(VENV)/audit/bin/python -m ops supply audit

.PHONY: engine
engine: ## Prepare a Debian machine, as root: a Docker engine, Compose, Buildx, a base image
	@ops/engine.sh up

.PHONY: pin
pin: $(VENV)/.installed ## Pin the newest versions of everything, with hashes
	@$(BIN)/pip install --quiet uv
	@for file in requirements-dev requirements-build requirements-bench requirements-audit requirements-imports requirements-irc ops/nats/requirements services/server/requirements services/client/requirements; do \
	  echo "Pinning $$file.txt"; \
	  $(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-header \
	    --no-annotate --no-emit-index-url --no-emit-find-links --output-file "$$file.txt" "$$file.in"; \
	done
	@$(MAKE) --no-print-directory $(VENV)/irc/.installed
	@echo "Pinning $(LOUNGE)/package-lock.json"
	@rm $(LOUNGE)/package-lock.json
	@PATH="$$PWD/$(VENV)/irc/bin:$$PATH" npm install --prefix $(LOUNGE) $(NPM_QUIETLY) --package-lock-only --omit-lockfile-registry-resolved

.PHONY: clean
clean: ## Remove the virtual environment and all caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +
	rm -rf services/*/*.egg-info services/*/build

# Recreated after a change of a pinned version or of a package's metadata.
$(VENV)/.installed: requirements-dev.txt $(PACKAGES:=/pyproject.toml)
	@echo "Preparing $(VENV) (once; a minute or two)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(addprefix --editable ,$(PACKAGES))
	@touch $@

# An environment of its own: these tools are not tested with the others.
$(VENV)/audit/.installed: requirements-audit.txt
	@$(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-audit.txt
	@touch $@

# The same for the check of imports: requirements-imports.in says why.
$(VENV)/imports/.installed: requirements-imports.txt
	@$(PYTHON) -m venv $(VENV)/imports
	@$(VENV)/imports/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-imports.txt
	@touch $@

# The same for clients of IRC. npm is a package of Python here: Debian's needs 360 others.
$(VENV)/irc/.installed: requirements-irc.txt $(LOUNGE)/package.json $(LOUNGE)/package-lock.json
	@echo "Installing clients of IRC (once; half a minute)"
	@$(PYTHON) -m venv $(VENV)/irc
	@$(VENV)/irc/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-irc.txt
	@mkdir -p $(VENV)/irc/lounge
	@cp $(LOUNGE)/package.json $(LOUNGE)/package-lock.json $(VENV)/irc/lounge
	@PATH="$$PWD/$(VENV)/irc/bin:$$PATH" npm ci --prefix $(VENV)/irc/lounge $(NPM_QUIETLY)
	@touch $@

$(VENV)/.installed-bench: requirements-bench.txt $(VENV)/.installed
	@echo "Installing what the benchmark needs (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.txt
	@touch $@
