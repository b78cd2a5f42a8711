# The commands of the project; `make help` lists them. Every target can be run again and again.
# Needs Python 3.11 or newer with pip, and make. Nothing is installed outside .venv.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The Python that makes .venv: the first of these that is new enough, or yours: make setup PYTHON=/path/to/python
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done)
# Passed on to the program that a target runs: make tune ARGS="--trials 12", make test ARGS="-k masking"
ARGS ?=
# Test files that run at a time; one (make test TESTS_AT_ONCE=0) shows what they print as they go.
TESTS_AT_ONCE ?= 2
# Passed on to pip: make setup PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# Errors only: a second index or an old pip must not clutter the first screen that somebody sees.
# A file's tests stay together: they share what is costly to make. tests/conftest.py says which files come first.
PYTEST = $(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --dist loadfile
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input $(PIP_ARGS) -c constraints.txt

.PHONY: help setup setup-dev tune test test-core test-long test-cluster torture check format clean

help: ## show this list
	@echo "mlim_ray: pre-training on image-text catalogues, tuned on Ray"
	@echo
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|' 2>/dev/null \
		|| grep -hE '^[a-z-]+:.*## ' Makefile
	@echo
	@echo "  ARGS=\"...\" reaches the program, PYTHON=... names the Python to use, PIP_ARGS=\"...\" reaches pip"

setup: $(VENV)/.installed ## create .venv with the pinned dependencies
	@:

setup-dev: $(VENV)/.installed-dev ## the same, with what tests and checks need
	@:

tune: setup ## search the best masking on a generated catalogue (or ARGS="--data SOURCE")
	@$(BIN)/python experiments/tune_mam.py $(ARGS)

# What make test leaves to the targets below it.
SHORT := not long and not torture and not system

# pytest's exit code 5 says that no test was selected: no failure as long as the other half had one.
test: setup-dev ## what every change has to pass: first the tests without Ray, then those with it
	@core=0; cluster=0; \
	echo "== core tests"; $(PYTEST) -m "not cluster and $(SHORT)" $(ARGS) || core=$$?; \
	echo "== cluster tests"; $(PYTEST) --durations 40 -m "cluster and $(SHORT)" $(ARGS) || cluster=$$?; \
	say() { case $$1 in 0) echo passed;; 5) echo "none selected";; *) echo "FAILED (pytest exit code $$1)";; esac; }; \
	echo "== core tests: $$(say $$core); cluster tests: $$(say $$cluster)"; \
	case "$$core $$cluster" in "0 0"|"0 5"|"5 0") exit 0;; *) exit 1;; esac

test-core: setup-dev ## the quick tests, which start no Ray
	@$(PYTEST) -m "not cluster and not slow and $(SHORT)" $(ARGS)

test-long: setup-dev ## whole ways once more in other forms (storage, arms, kills): where they were touched, before a release
	@$(PYTEST) --durations 40 -m "long and not torture" $(ARGS)

# As root, with the Debian packages of tests/system-packages.txt; else its tests are skipped, or fail where
# REQUIRE_SYSTEM_TESTS=1. The summary names each test with what became of it.
test-cluster: setup-dev ## a cluster of three hosts on this machine: ray up, a search, a lost host, ray down
	@$(BIN)/python -m pytest -m system -rpsfE --no-fold-skipped $(ARGS)

# MLIM_RAY_KILLS=5 make torture: fewer kills of the run on real records than 50
torture: setup-dev ## what servers and processes do to us, many times over: about two hours
	@$(BIN)/python -m pytest -m torture $(ARGS)

check: setup-dev ## formatting, lint, types and layers; all four are always reported
	@status=0; \
	run() { echo "== $$*"; "$$@" || status=1; }; \
	run $(BIN)/python -m ruff format --check .; \
	run $(BIN)/python -m ruff check .; \
	run $(BIN)/python -m mypy; \
	run $(BIN)/lint-imports --no-logo; \
	exit $$status

format: setup-dev ## format the code and mend what lint can mend
	@$(BIN)/python -m ruff format .
	@$(BIN)/python -m ruff check --fix .

clean: ## remove .venv, caches and build leftovers; what runs produced stays
	@rm -rf $(VENV) build dist ./*.egg-info .cache .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@for folder in mlim_ray experiments benchmarks tests; do \
		if [ -d $$folder ]; then find $$folder -type d -name __pycache__ -prune -exec rm -rf {} +; fi; done

# The stamps hold the folder they were made for: in a copied or moved tree, .venv would still run the code of the first one.
stale = $(if $(filter $(CURDIR),$(shell cat $(1) 2>/dev/null)),,always)

.PHONY: always
always:

$(VENV)/.installed: pyproject.toml constraints.txt $(BIN)/python $(call stale,$(VENV)/.installed)
	@echo "installing the pinned dependencies into $(VENV) (minutes the first time) ..."
	@start=$$SECONDS; $(PIP_INSTALL) -e . && echo "installed in $$((SECONDS - start)) s" && echo "$(CURDIR)" > $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(BIN)/python $(call stale,$(VENV)/.installed-dev)
	@echo "installing the pinned dependencies and the development tools into $(VENV) (minutes the first time) ..."
	@start=$$SECONDS; $(PIP_INSTALL) -e '.[dev]' && echo "installed in $$((SECONDS - start)) s" \
		&& echo "$(CURDIR)" | tee $(VENV)/.installed > $@

# Some systems ship Python without ensurepip (Debian without python3-venv): then virtualenv or an own pip helps out.
$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "Python 3.11 or newer was not found: install it, or name it: make setup PYTHON=/path/to/python" >&2; exit 2; fi; \
	if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo no Python):" \
			"name another, make setup PYTHON=/path/to/python" >&2; exit 2; fi; \
	rm -rf $(VENV); \
	if $(PYTHON) -m venv $(VENV) >/dev/null 2>&1; then exit 0; fi; \
	rm -rf $(VENV); \
	if $(PYTHON) -m virtualenv -q $(VENV) >/dev/null 2>&1; then exit 0; fi; \
	rm -rf $(VENV); \
	if $(PYTHON) -m venv --without-pip $(VENV) >/dev/null 2>&1 \
		&& $(PYTHON) -m pip -qq --python $(BIN)/python install pip >/dev/null 2>&1; then exit 0; fi; \
	rm -rf $(VENV); \
	echo "$(PYTHON) cannot make a virtual environment with pip: install python3-venv" \
		"(Debian, Ubuntu: apt install python3-venv) or virtualenv (pip install virtualenv), then try again" >&2; exit 2
