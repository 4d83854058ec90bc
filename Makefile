# Every target works from a fresh clone; the environment is made once, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread a process: the tests are many small ones, and two of them run at a time.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# A labelled series for the demo: its package asks for old libraries, the file needs none.
SERIES := "streamad>=0.3.1"
PARALLEL ?= -n 2 --dist loadfile

.PHONY: demo test test-slow nightly lint format bench size docs wheel-test lowest-test clean

demo: $(VENV)/demo.stamp
	$(BIN)/renshu demo

test: $(VENV)/dev.stamp
	$(TEST) $(PARALLEL)

# In the order of their names: an export to ONNX leaves a process that cannot fork trainings any more,
# as the tests of framework and system do.
test-slow: $(VENV)/dev.stamp
	$(TEST) $(PARALLEL) --no-loadscope-reorder -m "slow and not nightly"

nightly: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python tools/nightly.py

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Runs every benchmark in full and writes the table into README.md. QUICK=--quick for a look.
bench: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/_table.py run $(QUICK)

size:
	$(PYTHON) tools/size.py

# The pages, in build/docs: built without a network.
docs: $(VENV)/dev.stamp
	$(BIN)/mkdocs build --strict --quiet

# The tests against the built wheel, in an environment that cannot see the checkout.
wheel-test: $(VENV)/dev.stamp
	$(BIN)/python tools/environments.py wheel

# The tests with the lowest version of every dependency that pyproject.toml allows.
lowest-test: $(VENV)/dev.stamp
	$(BIN)/python tools/environments.py lowest

clean:
	rm -rf $(VENV) dist build

# pyproject.toml is what the environment is made of: made again when it changes.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[all,demo]"
	$(BIN)/python -m pip install --quiet --no-deps $(SERIES)
	touch $@

$(VENV)/dev.stamp: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[all,demo,dev]"
	$(BIN)/python -m pip install --quiet --no-deps $(SERIES)
	touch $@
