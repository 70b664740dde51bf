# Two commands on a fresh machine: `make sweep`, and the one it prints that opens MLflow.
# Everything is installed into .venv; nothing else is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

SLICES := tests/pipeline/test_sweep_job.py tests/pipeline/test_end_to_end.py tests/pipeline/test_real_formats_chain.py

.DEFAULT_GOAL := help
.PHONY: help install sweep smoke test test-all chaos cluster-test lint format types bench bench-gpu docs fuzz audit clean

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED)  ## Create .venv with the pinned dependencies

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "error: $(PYTHON) is not Python 3.11 to 3.13; give one with make PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "error: the Python venv module is missing; on Debian: apt install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

sweep: $(INSTALLED)  ## Sweep the dictionary size on the embedded world (Fig. 6 of the paper)
	$(BIN)/python jobs/sweep_dict_size.py

smoke: $(INSTALLED)  ## The same sweep, tiny
	$(BIN)/python jobs/sweep_dict_size.py --preset smoke

test: $(INSTALLED)  ## Every quick test, and the slices from files to table that everything rests on
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadgroup -m 'not gpu and not slow'
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not gpu' --timeout 900 $(SLICES)

test-all: $(INSTALLED)  ## Every test but chaos, half an hour on two cores; those that find no GPU or browser are skipped
	$(BIN)/python -m pytest -m 'not (chaos and slow)'

chaos: $(INSTALLED)  ## Kill, starve and damage running sweeps in every way; prints a table of what was lost
	CHAOS_TABLE=runs/chaos.md $(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m chaos --timeout 1800 tests/chaos

cluster-test: $(INSTALLED)  ## Sweeps over several hosts or nodes, one cut off; needs root, iproute2, PostgreSQL, GlusterFS
	@test "$$(id -u)" = 0 || { echo "error: cluster-test makes network namespaces: run it as root" >&2; exit 2; }
	@command -v ip > /dev/null || { echo "error: the program ip is missing; on Debian: apt install iproute2" >&2; exit 2; }
	@PATH="$$PATH:$$(printf '%s:' /usr/lib/postgresql/*/bin)"; command -v initdb > /dev/null && command -v postgres > /dev/null \
		|| { echo "error: initdb and postgres are missing; on Debian: apt install postgresql" >&2; exit 2; }
	@command -v glusterd > /dev/null || { echo "error: glusterd is missing; on Debian: apt install glusterfs-server" >&2; exit 2; }
	$(BIN)/python -m pytest -m cluster --timeout 1800 tests/cluster tests/deploy tests/pipeline/test_joining_nodes.py

lint: $(INSTALLED)  ## Style of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## Types of the code
	$(BIN)/mypy

format: $(INSTALLED)  ## Put the code in style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)  ## Every claim of speed, measured, in under 20 minutes on two cores
	$(BIN)/python benchmarks/table.py

bench-gpu: $(INSTALLED)  ## The claims that are about a GPU, measured on one
	$(BIN)/python benchmarks/table.py --device cuda --out runs/bench-gpu

docs: $(INSTALLED)  ## These pages as a site, in site/index.html; a broken link is an error
	$(BIN)/zensical build --clean --strict

fuzz: $(INSTALLED)  ## 100,000 damaged files to everything that reads files of others
	PYTHONPATH=tests $(BIN)/python -m fuzz.campaign --inputs 100000

audit: $(INSTALLED)  ## Known holes in the installed packages, and secrets in the repository
	$(BIN)/python .ci/audit.py

clean:  ## Remove the environment and caches; results under runs/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site .cache *.egg-info
