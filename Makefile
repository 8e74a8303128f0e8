# Two commands, each sets up by itself what is not there yet:
#   make demo   SmolLM2-135M learns arithmetic on two CPU cores, with a report at the end
#   make test   the whole test-suite
# And one that only looks: make doctor says what of this machine would make a run fail.
PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/demo
BIN := $(VENV)/bin

.PHONY: demo test setup lint doctor fuzz
demo: setup
	$(BIN)/python scripts/run.py --recipe smollm2 --out $(OUT)

# Three at once on two cores: much of the time a test waits for a process that it has started.
test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# An hour of other examples each round, until one fails.
fuzz: setup
	end=$$(( $$(date +%s) + 3600 )); while [ $$(date +%s) -lt $$end ]; do \
	  $(BIN)/python -m pytest tests/fuzz -x --hypothesis-profile other || exit 1; done

lint: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Sets up nothing: it says what is missing.
doctor:
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) scripts/doctor.py

setup: $(VENV)/.ready

# Made again when what it depends on changes; otherwise it costs nothing.
$(VENV)/.ready: pyproject.toml constraints.txt setup.sh
	PYTHON=$(PYTHON) VENV=$(VENV) sh setup.sh
	touch $@
