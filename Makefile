# The commands of the README. Each creates .venv, installs into it what the command needs, and runs.
#
#   PYTHON=python3.12   the interpreter to build .venv from (3.11 to 3.13; found when not given)
#   ARGS="-k spmm"      more arguments for the program that demo, test, bench and bench-gpu run

.DEFAULT_GOAL := help
.PHONY: demo test lint bench bench-gpu docs wheel clean help compiler-wanted compiler-needed

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.installed-docs
PIP := $(BIN)/python -m pip --disable-pip-version-check

demo: $(INSTALLED) compiler-wanted ## train MG-GNN for three minutes, then solve PDEs by the network that ships; writes demo/
	$(BIN)/python examples/demo.py $(ARGS)

test: compiler-needed $(INSTALLED) ## run the tests, in a process for each core
	SPARSETORCH_NATIVE=require $(BIN)/python -m pytest -n auto --dist loadscope $(ARGS)

lint: $(INSTALLED) ## check style and types (ruff, pyright)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: compiler-needed $(INSTALLED) ## time the sparse kernels beside their peers, correctness first
	for script in bench_csr bench_memory bench_triangular bench_direct bench_semiring; do \
		SPARSETORCH_NATIVE=require $(BIN)/python benchmarks/$$script.py $(ARGS) || exit 1; echo; \
	done

bench-gpu: $(INSTALLED) ## the same on a GPU, beside cuSPARSE and CuPy; needs a CUDA build of torch
	$(BIN)/python benchmarks/bench_gpu.py $(ARGS)

docs: $(DOCS_INSTALLED) ## build the documentation into site/
	$(BIN)/python -m mkdocs build

wheel: $(INSTALLED) ## build the wheel into dist/
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove .venv and what the tools left behind (demo/ and runs/ stay)
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1:/p' Makefile | awk -F: '{ printf "%-18s%s\n", $$1, $$2 }'

# .venv is complete once the stamp is there; a changed requirement installs again.
$(INSTALLED): pyproject.toml constraints.txt
	@python=; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
	    if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	        2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "$(if $(PYTHON),$(PYTHON) is not,Found no) Python 3.11, 3.12 or 3.13." >&2; \
	    echo "  Debian 12 and later: apt-get install python3 python3-venv" >&2; \
	    echo "  Elsewhere: install one and name it: make demo PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$python cannot make a virtual environment: its venv module is missing." >&2; \
	    echo "  Debian and Ubuntu: apt-get install python3-venv" >&2; \
	    exit 1; \
	fi; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || "$$python" -m venv --clear $(VENV)
	@echo "Installing sparsetorch and what it needs into $(VENV) (once)"
	@$(PIP) install --quiet -c constraints.txt -e ".[ddm,graph,train,test,lint]" || { \
	    echo "The installation failed (see above); it needs a Python package index." >&2; \
	    exit 1; \
	}
	@touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(PIP) install --quiet -c constraints.txt -e ".[docs]"
	@touch $@

compiler-wanted:
	@set -- $${CXX:-g++}; command -v "$$1" >/dev/null 2>&1 || { \
	    echo "note: no C++ compiler ($$1): the demo uses the slow reference kernels." >&2; \
	    echo "  Debian and Ubuntu: apt-get install g++; another compiler: set CXX" >&2; \
	}

compiler-needed:
	@set -- $${CXX:-g++}; command -v "$$1" >/dev/null 2>&1 || { \
	    echo "This command runs the native kernels and needs a C++ compiler ($$1)." >&2; \
	    echo "  Debian and Ubuntu: apt-get install g++; another compiler: set CXX" >&2; \
	    exit 1; \
	}
