PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := $(wildcard ocm _ocm_pytest.py tests examples tools)

# pyright: node and pyright come as wheels; look for no newer version and for no other node.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PYRIGHT_PYTHON_GLOBAL_NODE := 0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check docs tutorial fuzz campaign canaries kill networks siege cover lock clean FORCE

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.project  ## make .venv with the command ocm and the test and check tools

demo: $(VENV)/.project  ## run a server and scripted members on this machine
	@$(BIN)/ocm demo

test: $(VENV)/.project  ## run the tests; TEST_ARGS='-k room' for some of them
	@$(BIN)/python -m pytest $(TEST_ARGS)

check: $(VENV)/.docs  ## format, lint, types, layering, examples in the docs, the site
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy $(CODE)
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/check_docs.py
	@$(MAKE) --no-print-directory docs

docs: $(VENV)/.docs  ## build the documentation site: build/site/index.html
	$(BIN)/zensical build --clean --strict
	$(BIN)/python tools/check_site.py build/site

tutorial: $(VENV)/.project  ## follow docs/tutorial.md as a reader would, from an empty folder
	$(BIN)/python tools/run_tutorial.py

fuzz: $(VENV)/.fuzz  ## fuzz the readers of network bytes; FUZZ_ARGS go to tests/fuzz/run.py
	$(BIN)/python tests/fuzz/run.py $(FUZZ_ARGS)

campaign: $(VENV)/.project  ## the long randomised tests: state machines, a thousand stories, a million deliveries
	HYPOTHESIS_PROFILE=campaign $(BIN)/python -m pytest tests -m campaign --timeout=3600 $(TEST_ARGS)

canaries: $(VENV)/.project  ## run the tests with marked secrets, and look for these in all that is written
	CANARIES=1 $(BIN)/python -m pytest -o log_level=DEBUG $(TEST_ARGS)

kill: $(VENV)/.project  ## kill -9 servers and clients, fill their disks: real processes, about 8 minutes
	$(BIN)/python -m tests.real.run servers
	$(BIN)/python -m tests.real.run clients
	$(BIN)/python -m tests.real.run disks

networks: $(VENV)/.project  ## roam and lose UDP in namespaces of this machine: needs root, takes 3 minutes
	$(BIN)/python -m tests.real.run networks

siege: $(VENV)/.project  ## junk, slow and half-open connections against a server: what they cost, whom they keep out
	$(BIN)/python -m ocm.bench.siege
	$(BIN)/python -m ocm.bench.siege --half-open 10000 --seconds 30

cover: $(VENV)/.project  ## run the tests and list the lines and branches they miss; in ocm/protocol they may miss none
	$(BIN)/python -m pytest --cov=ocm --cov-branch --cov-report=term-missing:skip-covered $(TEST_ARGS)
	$(BIN)/python -m coverage report --include='ocm/protocol/*' --fail-under=100

# The files hold hashes and no index address, so that they work with any index.
lock:  ## renew requirements*.txt; LOCK_ARGS=--upgrade for newer versions
	@set -e; tool=$$(mktemp -d); trap 'rm -rf "$$tool"' EXIT; \
	$(PYTHON) -m venv "$$tool"; "$$tool/bin/python" -m pip install --quiet --disable-pip-version-check uv; \
	compile="$$tool/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header"; \
	$$compile $(LOCK_ARGS) --extra speed --extra test --extra check -o requirements.txt pyproject.toml requirements/build.in; \
	$$compile $(LOCK_ARGS) -c requirements.txt -o requirements-fuzz.txt requirements/fuzz.in; \
	$$compile $(LOCK_ARGS) -c requirements.txt --extra docs -o requirements-docs.txt pyproject.toml; \
	if grep -nE '://|^-|(^|[ =])/' requirements.txt requirements-fuzz.txt requirements-docs.txt; then \
		echo "make lock: the lines above name an address or a path" >&2; exit 1; fi

clean:  ## remove .venv and all that was generated
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# A PYTHON= that is not the one .venv was made with makes a new .venv.
ifneq ($(origin PYTHON),file)
ifneq ($(PYTHON),$(shell cat $(VENV)/.python 2>/dev/null))
$(VENV)/.requirements: FORCE
endif
endif

# Recipes below write their stamp last: what was interrupted starts again.
$(VENV)/.requirements: requirements.txt
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "ocm: no '$(PYTHON)' here; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "ocm: needs Python 3.11 or newer, '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1); name another: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "ocm: '$(PYTHON)' cannot make environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "ocm: making $(VENV) (once; takes a minute)"
	@"$(PYTHON)" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	@echo "$(PYTHON)" > $(VENV)/.python
	@touch $@

$(VENV)/.project: $(VENV)/.requirements pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.fuzz: $(VENV)/.project requirements-fuzz.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-fuzz.txt
	@touch $@

$(VENV)/.docs: $(VENV)/.project requirements-docs.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-docs.txt
	@touch $@
