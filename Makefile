# Every target sets up what it needs from a bare Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test browser lint docs bench wheel fuzz clean

demo: $(VENV)/.core  ## Run the main jobs: handwritten digits as tokens, a design, the staircase, and its page.
	$(BIN)/attnflow run simulate --tokens digits
	$(BIN)/attnflow run design
	$(BIN)/attnflow run staircase
	$(BIN)/attnflow view "$$($(BIN)/attnflow run staircase --quiet | sed -n 's/^run: *//p')" --force

test: $(VENV)/.dev  ## Run the whole test suite, a file at a time on each of two cores.
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

browser:  ## Debian's Chromium, for the tests of pages, which are skipped without one.
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; }

lint: $(VENV)/.dev  ## Style, types and import contracts.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

docs: $(VENV)/.docs  ## Build the documentation: every page executed, warnings are errors.
	$(BIN)/sphinx-build -W --keep-going -q docs build/docs
	@echo "Open build/docs/index.html"

bench: $(VENV)/.bench  ## Measure speed against peers: JSON in benchmarks/results, tables on screen.
	$(BIN)/python -m benchmarks

wheel: $(VENV)/.dev  ## Build wheel and sdist, and use the wheel in an empty environment, elsewhere.
	rm -rf dist build/wheel && mkdir -p build/wheel/elsewhere
	$(BIN)/python -m build --no-isolation
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	cd build/wheel/elsewhere && ../venv/bin/attnflow run staircase --n 12 --beta 20 && ../venv/bin/attnflow doctor

fuzz: $(VENV)/.dev  ## 10 000 cases of odd input: right answer or one sentence; report in build/fuzz.json.
	mkdir -p build
	$(BIN)/python -m fuzz --cases 10000 --json build/fuzz.json

clean:
	rm -rf $(VENV) runs

$(VENV)/.venv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "attnflow needs Python 3.11 or newer; set PYTHON=/path/to/python3.11.")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.core: $(VENV)/.venv pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.venv pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/.core

$(VENV)/.docs: $(VENV)/.venv pyproject.toml constraints.txt
	$(PIP) -e '.[docs]'
	touch $@ $(VENV)/.core

$(VENV)/.bench: $(VENV)/.venv pyproject.toml constraints.txt
	$(PIP) -e '.[dev,bench]'
	touch $@ $(VENV)/.core $(VENV)/.dev
