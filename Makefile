# `make demo` sets up and runs the main job. `make test` sets up and runs lint and all tests. The rest is for developers.
PYTHON ?= python3
# Tests at a time: one for each of the two cores of the machine that this is tuned for
WORKERS ?= 2
BIN := .venv/bin
IMAGES := astronaut chelsea motorcycle_left
FAST := not slow and not long and not data and not gpu
COVERED := not slow and not data and not gpu
# One thread a worker, and threads that wait for work don't spin: workers would take each other's cores
TEST_ENV := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
COVERAGE_FLOOR := 89

.PHONY: demo test all-tests test-fast lint rules types coverage docs bench dist clean

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[demo]"
	@touch $@

.venv/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	@touch $@ .venv/.demo

demo: .venv/.demo
	$(BIN)/python -c "import skimage.data, pathlib, shutil; src = pathlib.Path(skimage.data.__file__).parent; \
	  dst = pathlib.Path('demo/images'); dst.mkdir(parents=True, exist_ok=True); \
	  [shutil.copy(next(src.glob(n + '.*[gG]')), dst) for n in '$(IMAGES)'.split()]"
	$(BIN)/sppnet detect demo/images --output demo/detections --json demo/detections.json

lint: rules types

rules: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/.dev
	$(BIN)/mypy

# mypy takes a minute on one core, so it runs beside the tests
test: rules
	$(MAKE) --no-print-directory -j 2 types all-tests

all-tests: .venv/.dev
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-fast: .venv/.dev
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "$(FAST)"

coverage: .venv/.dev
	$(TEST_ENV) $(BIN)/python -m pytest -m "$(COVERED)" --cov=sppnet --cov-report=term --cov-fail-under=$(COVERAGE_FLOOR)

docs: .venv/.dev
	$(BIN)/mkdocs build --strict

bench: .venv/.dev
	$(BIN)/python benchmarks/gate.py

dist: .venv/.dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf .venv demo out build dist site
