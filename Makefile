# On a machine with Python 3.11 or 3.12, git and make: `make demo`, `make lab`, `make test`.
# The environment is made once in .venv and again only when pyproject.toml or constraints.txt change.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: help demo lab test test-browser notebooks bench readme clean
.NOTPARALLEL:

help:
	@echo "make demo          the whole path on simulated clips, with a report at the end"
	@echo "make lab           JupyterLab on the review workbench"
	@echo "make test          every check but the browser's"
	@echo "make test-browser  the workbench in a real Chromium"
	@echo "make notebooks     run the library notebooks and keep what their examples show"
	@echo "make bench         training and answering with and without shared work, and the review room, for nbs/performance.ipynb"
	@echo "make readme        README.md from nbs/index.ipynb"
	@echo "make clean         remove caches and built files; data, checkpoints and runs stay"

demo: .venv/installed
	$(BIN)/crashchat demo

lab: .venv/installed
	$(BIN)/crashchat workbench

# One thread: the tests compare numbers, and two threads on two cores that others use too are slower than one.
# Export and clean leaving no diff, the app notebooks in the smoke profile and the README's commands are in pytest.
test test-browser: export OMP_NUM_THREADS = 1

test: .venv/installed-dev
	$(BIN)/ruff check nbs tests
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/nbdev_test --path nbs --n_workers 2
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Debian's Chromium driven by PyPI's playwright: nothing is downloaded outside the two package systems.
test-browser: .venv/installed-dev
	@command -v chromium >/dev/null || { echo "make test-browser needs Debian's chromium: apt-get install chromium"; exit 1; }
	$(BIN)/python -m pytest tests/browser

notebooks: export OMP_NUM_THREADS = 1

notebooks: .venv/installed-dev
	$(BIN)/python .ci/outputs.py
	$(BIN)/nbdev_clean

# Its page shows the figures they write. They take some twenty minutes and are worth little on a machine that does something else meanwhile.
bench: export OMP_NUM_THREADS = 1

bench: .venv/installed-dev
	$(BIN)/python tests/benchmarks/bench_training.py
	$(BIN)/python tests/benchmarks/inference.py
	$(BIN)/python tests/benchmarks/review.py
	$(BIN)/python .ci/outputs.py nbs/performance.ipynb
	$(BIN)/nbdev_clean

readme: .venv/installed-dev
	$(BIN)/python .ci/readme.py
	$(BIN)/python .ci/card.py

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .coverage
	find nbs crashchat tests -name __pycache__ -prune -exec rm -rf {} + -o -name .ipynb_checkpoints -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e .
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e ".[dev]"
	@touch $@ .venv/installed
