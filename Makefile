# make setup   .venv with every extra, at the versions of constraints.txt
# make demo    forget people on real faces; ends with a table and the path of a page
# make test    lint, types and all tests that need no cluster
# make unit    the quick part of the tests
# make site   the documentation as a site, in build/site
# make release   wheel and source distribution in dist/, checked, and used on each Python that is here
# make test-slurm   tests on a real SLURM of four nodes, brought up here and taken down again (root, Debian)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest
# Labs side by side: their jobs wait for nodes and timers, and one alone leaves cores idle.
LABS ?= 2
# Hundreds of processes load torch: without bytecode each compiles it again, for 8 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo site release test test-slurm lint unit clean

setup: $(STAMP)

# constraints.txt names the build of torch, so that no package pulls in another one. The pip and
# setuptools that a new environment begins with are as old as its Python, and known to be vulnerable.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt --upgrade pip setuptools
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt torch torchvision -e '.[search,demo,docs,dev]'
	touch $(STAMP)
	@echo "dlfd is in $(VENV): . $(BIN)/activate"

demo: setup
	$(BIN)/dlfd demo

site: setup
	$(BIN)/mkdocs build --strict

release: setup
	rm -rf dist
	$(BIN)/python -m build -o dist .
	$(BIN)/python .ci/release.py dist
	$(BIN)/python .ci/pythons.py dist

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --min-severity error
	$(BIN)/python .ci/advisories.py constraints.txt
	$(BIN)/python .ci/prose.py

unit: setup
	$(PYTEST) -n 2 tests/unit

test: lint
	$(PYTEST) -n 2 --dist loadgroup

test-slurm: setup
	OMP_NUM_THREADS=1 slurm/lab/with.sh --labs $(LABS) \
	  $(BIN)/pytest -n $(LABS) --dist loadgroup tests/slurm

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
