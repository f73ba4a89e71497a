# Everything runs in .venv, from locked dependencies; the only tools needed are Python >= 3.10 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SPEEDUP ?= 1.5
# pip's own settings of the machine (mirrors, proxies) apply; nothing here names an index.
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: help demo test lint messages docs models train train-ddpm bench zoo gpu-check lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.run: requirements/run.txt requirements/data.txt pyproject.toml
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked dependencies into $(VENV) …"
	@$(PIP) install --require-hashes -r requirements/build.txt -r requirements/run.txt
	@$(PIP) install --require-hashes --no-deps -r requirements/data.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt requirements/tensorrt-rtx.txt
	@echo "installing the locked development tools into $(VENV) …"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@$(PIP) install --require-hashes --no-deps -r requirements/tensorrt-rtx.txt || \
	  echo "TensorRT-RTX (95 MB) is not to be had here: tests of the builder run on a fake library alone"
	@touch $@

demo: $(VENV)/.run  ## compress the committed demo network and print before and after
	@$(BIN)/python examples/mnist/demo.py --speedup $(SPEEDUP)

lint: $(VENV)/.dev  ## ruff and mypy
	@$(BIN)/ruff check .
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then $(BIN)/mypy; \
	  else echo "mypy is left out: it needs the NumPy of Python 3.11 or newer for complete types"; fi

test: lint  ## the whole test suite
	@$(BIN)/python -m pytest

messages: $(VENV)/.torch  ## which test produces which error message: tests/messages.json, docs/troubleshooting.md
	@OLM_MESSAGES=$(VENV)/messages.json $(BIN)/python -m pytest
	@$(BIN)/python -m tests.messages update $(VENV)/messages.json
	@$(BIN)/python -m tests.messages check $(VENV)/messages.json
	@$(BIN)/python -m tests.messages page

docs: $(VENV)/.dev  ## the documentation site into build/site, any warning an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -q
	@echo "open build/site/index.html, or for the search: $(BIN)/python -m mkdocs serve"

$(VENV)/.torch: $(VENV)/.dev requirements/torch.txt
	@echo "installing torch into $(VENV) (for exporting and training networks only) …"
	@$(PIP) install -r requirements/torch.txt
	@touch $@

models: $(VENV)/.torch  ## bring the public models and images into models/ (torch only for the export)
	@$(BIN)/python benchmarks/models.py
	@$(BIN)/python benchmarks/lite0_data.py

train: $(VENV)/.torch  ## train the demo network anew (about ten minutes)
	@$(BIN)/python examples/mnist/train.py

train-ddpm: $(VENV)/.torch  ## train the denoiser of digits anew (about twenty minutes)
	@$(BIN)/python examples/ddpm/train.py

bench: $(VENV)/.dev  ## the table of the main job (about half an hour)
	@$(BIN)/python benchmarks/main_job.py

zoo: $(VENV)/.torch  ## export well-known networks and list what can be replaced in them (ZOO=--compress: and do it)
	@$(BIN)/python benchmarks/zoo/run.py $(ZOO)

# PYTHON_GPU is the Python that has the GPU's packages (docs/gpu.md); CHECK takes options, such as CHECK="--only repeat".
PYTHON_GPU ?= $(BIN)/python
gpu-check:  ## on a machine with an NVIDIA GPU: what runs, and whether its timings can be trusted
	@$(PYTHON_GPU) benchmarks/gpu_check.py $(CHECK)

lock:  ## resolve the dependencies anew (needs uv)
	@for name in build run dev images container; do \
	  uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-annotate --no-emit-index-url \
	    --custom-compile-command "make lock" requirements/$$name.in -o requirements/$$name.txt || exit 1; done
	@uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-annotate --no-emit-index-url \
	  --no-deps --custom-compile-command "make lock" requirements/data.in -o requirements/data.txt
	@uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-annotate --no-emit-index-url \
	  --no-deps --custom-compile-command "make lock" requirements/tensorrt-rtx.in -o requirements/tensorrt-rtx.txt
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
	  --no-deps --custom-compile-command "make lock" requirements/quality.in -o requirements/quality.txt

clean:  ## remove the environment and caches
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
