# Two commands: `make demo` sets up and runs the main job, `make test` sets up and runs lint, types and tests.
PYTHON ?= python3
BIN := .venv/bin
PHOTOS := astronaut chelsea motorcycle_left

.PHONY: demo test lint clean

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[demo]"
	@touch $@

.venv/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@ .venv/.demo

demo: .venv/.demo
	$(BIN)/python -c "import skimage.data, pathlib, shutil; src = pathlib.Path(skimage.data.__file__).parent; \
	  dst = pathlib.Path('demo/photos'); dst.mkdir(parents=True, exist_ok=True); \
	  [shutil.copy(next(src.glob(n + '.*[gG]')), dst) for n in '$(PHOTOS)'.split()]"
	$(BIN)/sppnet detect demo/photos --output demo/detections --json demo/detections.json

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest

clean:
	rm -rf .venv demo out build dist
