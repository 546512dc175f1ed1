# Everything happens in .venv, made on first use. Only Python, make and pip are needed.
PYTHON ?= python3
# A fixed torch, so that every machine tests the same one. dink itself takes any from 2.9 on.
TORCH ?= torch==2.13.0
BIN := .venv/bin
# Two workers of two threads each would wait for one another on two cores. Bytecode is kept even where
# the environment says otherwise: hundreds of commands are started.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo test test-quick fuzz check bench site release clean

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

site: .venv/site
	$(BIN)/sphinx-build --fail-on-warning --quiet --builder html docs build/site
	@echo "Next: open build/site/index.html"

# What would be published: built from the commit, checked, and used from an empty environment.
release: .venv/release site
	rm -rf build/release && mkdir -p build/release
	git archive HEAD | tar -x -C build/release
	$(BIN)/python -m build --outdir build/release/dist build/release
	$(BIN)/twine check --strict build/release/dist/*
	$(BIN)/vermin --quiet --no-tips --target=3.10- --violations build/release/dinkcli
	TORCH="$(TORCH)" PYTHON=$(PYTHON) bash tests/release.sh build/release/dist/*.whl

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

.venv/site: .venv/installed
	$(BIN)/pip install --quiet --editable '.[site]'
	touch $@

.venv/release: .venv/site
	$(BIN)/pip install --quiet --editable '.[release]'
	touch $@

.venv/bench: .venv/installed
	$(BIN)/pip install --quiet --editable '.[bench]'
	touch $@
