# The verbs of this project. `make` alone prints them.
#
# Everything Python needs is installed in .venv; a stamp file there stands for each finished set-up, so that a second
# `make` does nothing. Needed beforehand: python3 >= 3.11 with venv and headers, gcc, make; as root or not.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
CI ?=
ARGS ?=

MANIFEST := pyproject.toml setup.py
C_FILES := $(wildcard corekernel/native/*.[ch] bench/native/*.[ch] tests/native/*.[ch])
C_BUILT := $(filter-out tests/%,$(C_FILES)) $(wildcard corekernel/native/*.py bench/native/*.py)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run build test test-slow lint gen format bench clean

help: ## print this
	@echo "verbs:"
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r verb text; do \
		printf '  make %-10s %s\n' "$$verb" "$$text"; done
	@echo "launcher: $(PY) launcher.py --help"

run: build ## set up, boot the default composition, run the demonstration, print what was measured
	$(PY) launcher.py demo

build: $(VENV)/.built ## set up what is needed to run, compile the dispatcher

test: $(VENV)/.dev $(VENV)/.built ## set up, run the tests (ARGS="-k name" for some)
	$(PY) -m pytest -q $(ARGS)

test-slow: $(VENV)/.dev $(VENV)/.built ## the long campaigns: faults, kills, stress
	$(PY) -m pytest -q -m slow $(ARGS)

lint: $(VENV)/.dev $(VENV)/.built ## check style, types, C format and generated files
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)
	$(PY) -m services.generate --check

gen: $(VENV)/.built ## regenerate stubs, C constants and docs from services/interfaces
	$(PY) -m services.generate

format: $(VENV)/.dev ## rewrite Python and C in the project's style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(C_FILES)

bench: $(VENV)/.bench $(VENV)/.built ## measure the call beside its peers (ARGS="--quick --json FILE --plots DIR")
	$(PY) launcher.py bench ipc $(ARGS)

clean: ## remove what was built and set up
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -f corekernel/*.so bench/*.so corekernel/_dispatcher.c bench/_raw.c bench/*.o corekernel/native/*.o

# ---- set-up

# $(call install,EXTRAS): the dependencies that pyproject.toml names, without installing the checkout itself.
define install
	@echo "set-up: installing dependencies$(if $(1), ($(1)))"
	@$(PY) -m pip install --quiet --disable-pip-version-check $$($(PY) .ci/requirements.py $(1))
	@touch $@
endef

$(VENV)/.made:
	@echo "set-up: making $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.made $(MANIFEST)
	$(call install,)

$(VENV)/.bench: $(VENV)/.runtime
	$(call install,bench)

$(VENV)/.dev: $(VENV)/.runtime
	$(call install,dev)

# --force: setuptools does not know which headers a source includes; the stamp does.
$(VENV)/.built: $(VENV)/.runtime $(C_BUILT) $(MANIFEST)
	@echo "set-up: compiling the C extensions"
	@$(PY) setup.py --quiet build_ext --inplace --force
	@touch $@
