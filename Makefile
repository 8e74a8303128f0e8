# Two commands, each sets up by itself what is not there yet:
#   make demo   SmolLM2-135M learns arithmetic on two CPU cores, with a report at the end
#   make test   the whole test-suite
PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/demo
BIN := $(VENV)/bin

.PHONY: demo test setup lint
demo: setup
	$(BIN)/python scripts/run.py --recipe smollm2 --out $(OUT)

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.ready

# Made again when what it depends on changes; otherwise it costs nothing.
$(VENV)/.ready: pyproject.toml constraints.txt setup.sh
	PYTHON=$(PYTHON) VENV=$(VENV) sh setup.sh
	touch $@
