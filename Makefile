# Everything runs in a virtual environment of its own: make VENV=elsewhere puts it elsewhere, PYTHON=python3.12 takes another Python.

PYTHON ?= python3
VENV ?= .venv
OUT ?= out
WORKERS ?= 2
MODELS := $(shell grep -l data/digits.npz models/*.yaml)
VIEWS := forward butterfly depth activations

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEPENDENCIES := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check bench gallery schema fuzz clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BIN)/.installed ## install, and report on the founding example: a deep sigmoid net whose gradient vanishes
	$(BIN)/vgcompile report models/deep_sigmoid.yaml -o $(OUT)/deep_sigmoid
	@echo
	@echo "Open $(OUT)/deep_sigmoid/deep_sigmoid.html in a browser. Then try"
	@echo "  $(BIN)/vgcompile analyze models/deep_sigmoid.yaml"
	@echo "  $(BIN)/vgcompile draw models/deep_sigmoid.yaml --view butterfly -o $(OUT)/butterfly.svg"

test: $(BIN)/.tested ## run the whole test suite
	$(BIN)/python -m pytest -n $(WORKERS)

check: $(BIN)/.tested ## format, lint, types and floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(BIN)/.benched ## compare with peers, by hand: seconds depend on the machine
	$(BIN)/python -m benchmarks.peers --out $(OUT)/peers.json

gallery: $(BIN)/.installed ## draw every model in every view
	@for model in $(MODELS); do for view in $(VIEWS); do \
	  $(BIN)/vgcompile draw $$model --view $$view -o $(OUT)/gallery/$$(basename $$model .yaml).$$view.svg || exit 1; \
	done; done

schema: $(BIN)/.installed ## write the JSON Schema that the models lead their editors to
	$(BIN)/vgcompile schema > models/vgcompile.schema.json

fuzz: $(BIN)/.installed ## read 100,000 mutated models
	$(BIN)/python -m benchmarks.fuzz --count 100000 --workers $(WORKERS)

clean: ## remove what was made
	rm -rf $(OUT) $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vgcompile needs Python 3.11 or newer, $(PYTHON) is not: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments: install python3-venv, or name another: make PYTHON=... "; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(BIN)/.installed: $(BIN)/python $(DEPENDENCIES)
	$(PIP) --editable .
	@touch $@

$(BIN)/.tested: $(BIN)/.installed
	$(PIP) --editable '.[test]'
	@touch $@

$(BIN)/.benched: $(BIN)/.installed
	$(PIP) --editable '.[bench]'
	@touch $@
