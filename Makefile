# make setup   .venv with every extra, at the versions of constraints.txt
# make demo    forget people on real faces; ends with a table and the path of a page
# make test    lint, types and all tests that need no cluster
# make test-slurm   tests on a real SLURM of four nodes, brought up here and taken down again (root, Debian)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-slurm lint unit clean

setup: $(STAMP)

# torch comes first, so that no other package pulls in another build of it.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch torchvision
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[search,demo,dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/dlfd demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

unit: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/unit

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

test-slurm: setup
	OMP_NUM_THREADS=1 slurm/lab/with.sh $(BIN)/pytest tests/slurm

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
