# Everything happens in .venv, made on first use. Only Python, make and pip are needed.
PYTHON ?= python3
# A fixed torch, so that every machine tests the same one. dink itself takes any from 2.2 on.
TORCH ?= torch==2.13.0
BIN := .venv/bin
# Two workers of two threads each would wait for one another on two cores. Bytecode is kept even where
# the environment says otherwise: hundreds of commands are started.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo test test-quick fuzz check bench clean

demo: .venv/installed
	$(BIN)/dink train sample_data/digits.npy -k 10 -o .venv/digits.dink.safetensors
	$(BIN)/dink assign .venv/digits.dink.safetensors sample_data/digits.npy | head -n 6
	$(BIN)/dink train sample_data/stdlib.parquet -k 40 -o .venv/stdlib.dink.safetensors
	$(BIN)/dink name .venv/stdlib.dink.safetensors sample_data/stdlib.parquet --texts id
	@echo "Next: $(BIN)/dink inspect .venv/stdlib.dink.safetensors --tree"

test: .venv/tests
	$(PYTEST)

test-quick: .venv/tests
	$(PYTEST) -m "not slow"

fuzz: .venv/tests
	$(BIN)/python tests/fuzz/campaign.py --inputs 10000

check: .venv/check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/bench
	$(BIN)/python benchmarks/run.py --write docs/benchmarks.md

clean:
	rm -rf .venv build *.egg-info

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/tests: .venv/installed
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

.venv/check: .venv/tests
	$(BIN)/pip install --quiet --editable '.[check]'
	touch $@

.venv/bench: .venv/installed
	$(BIN)/pip install --quiet --editable '.[bench]'
	touch $@
