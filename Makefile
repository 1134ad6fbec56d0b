# make install   everything into .venv; again after a change of setup.py or constraints.txt
# make demo      a small volume from nothing: generate, predict, draw (demo/panel.png)
# make test      all tests that need no root
# make test-slurm  tests on a real Slurm of three nodes on this machine; root
# make test-validators  what we write, by the validators of the field, which need an environment of their own
# make system-packages  what these and a browser need from Debian or Ubuntu; root
# make lint      ruff, and the types of the packages that pyproject.toml names
# make schemas   configs/*.schema.json and the tables of docs/configs.md from the models
# make bench     every benchmark of one checkout; each ends with one line of JSON
# make docker-check   builds the image without a Docker engine and runs a job in it; as root

PYTHON ?= python3
VENV := .venv
VALIDATORS := .venv-validators
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q -c constraints.txt
INSTALLED := $(VENV)/.installed

# On a machine without GPU, where torch comes from; needed where the usual index only has the
# CUDA build, which brings several GB of libraries. Empty: what pip is configured to use.
TORCH_INDEX ?=

.PHONY: install demo test test-slurm test-validators system-packages lint schemas bench docker-check

install: $(INSTALLED)

$(INSTALLED): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "em_blocks needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
	       "Name another one: make install PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@# A torch of this version that is already there, whichever build, is kept.
	if nvidia-smi >/dev/null 2>&1; then index=; else index="$(TORCH_INDEX)"; fi; \
	  $(PIP) $${index:+--index-url "$$index"} torch
	$(PIP) -e '.[all,test]'
	@$$($(BIN)/python -c 'from em_blocks.db.server import mongod_binary as b; print(b())') --version \
	  >/dev/null || { echo "mongod does not run here: it needs libssl3 and libcurl4 (apt install" \
	  "libssl3 libcurl4). Without it every config needs a 'db_host'." >&2; exit 2; }
	@touch $@

demo: install
	$(BIN)/em-blocks demo

test: install
	$(BIN)/python -m pytest -n 3 --dist loadfile

system-packages:
	@tests/cluster/install.sh

test-slurm: install system-packages
	$(BIN)/python -m pytest -m slurm -n 3 tests/slurm

# zarr 3 and gunpowder exclude each other, sacred and a new setuptools too.
$(VALIDATORS)/.installed: Makefile
	$(PYTHON) -m venv $(VALIDATORS)
	$(VALIDATORS)/bin/python -m pip install -q ome-zarr-models==1.7 'xarray[io]==2026.9.0' cloud-volume==12.15.2 \
	  sacred==0.8.7 'setuptools<81' pymongo pyrsistent matplotlib ipython
	$(VALIDATORS)/bin/python -m pip install -q --no-deps incense==0.0.15  # its jupyterlab is not needed
	@# bioimageio.spec 0.5.12 fails with pydantic 2.14.
	$(VALIDATORS)/bin/python -m pip install -q bioimageio.core==0.11.0 'pydantic==2.12.*' onnxruntime
	@touch $@

test-validators: install $(VALIDATORS)/.installed
	EM_BLOCKS_VALIDATORS=$(VALIDATORS)/bin/python $(BIN)/python -m pytest tests/volumes/test_validators.py \
	  tests/export/trainings/test_sacred.py tests/export/models/test_validators.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

schemas: install
	$(BIN)/python -m em_blocks.cli.schemas

# These compare two checkouts, and are told where the other one is.
BENCHMARKS := $(filter-out benchmarks/same_results.py benchmarks/in_turns.py,$(wildcard benchmarks/*.py))

bench: install
	for script in $(BENCHMARKS); do $(BIN)/python $$script || exit 1; done

docker-check: install
	PATH="$(CURDIR)/$(BIN):$$PATH" TORCH_INDEX="$(TORCH_INDEX)" docker/check.sh
