# Two commands do everything on a fresh machine: `make figures` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One more than two cores: many tests wait for processes that they have started.
JOBS ?= 3

.PHONY: help env figures gallery docs notebooks test lab lint train examples real clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

# The environment is remade in place whenever what it is made from has changed.
$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

env: $(READY)  ## make the environment (.venv) if it is missing or stale

gallery: $(READY)  ## draw every figure into figures/gallery, small, with its index page
	$(BIN)/acon figures --out figures/gallery --format png --dpi 200
	$(BIN)/python -m acon_figures.gallery figures/gallery
	rm -rf figures/gallery/runs

figures: $(READY)  ## capture the digits networks and draw every figure into figures/out
	$(BIN)/acon figures --out figures/out

docs: $(READY)  ## build the documentation into docs/_build (no network needed)
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

test: $(READY)  ## run all tests
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: $(READY)  ## style and types (ruff, mypy strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(READY)  ## run the notebooks, write them with their results into notebooks/rendered
	$(BIN)/python notebooks/rendering.py

lab: $(READY)  ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir notebooks

train: $(READY)  ## train the digits networks again, from scratch, into state/
	for net in relu swish acon metaacon; do \
	  $(BIN)/acon train digits_$$net --out state/digits_$$net.safetensors || exit 1; \
	done

examples: $(READY)  ## capture the CIFAR-10 networks again, into the package (needs CIFAR-10)
	rm -rf acon_analysis/runs/example_runs
	for net in metaacon acon; do \
	  $(BIN)/acon capture cifar10_$$net --data cifar10 --limit 1000 --moments --moment-blocks 11 \
	    --moment-kernel eager --out acon_analysis/runs/example_runs/cifar10_$$net || exit 1; \
	done

real: $(READY)  ## measure networks trained by others: fetches their packages, about an hour
	nice -n 5 $(BIN)/python benchmarks/real.py

clean:  ## remove everything that can be made again (the environment too)
	rm -rf $(VENV) figures/out docs/_build docs/gallery docs/notebooks docs/reference docs/results runs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
