# Two commands on a fresh machine with Python 3.11+, git and make:
#   make demo    environment, dependencies, a local model, and the main job
#   make test    linters, type checkers, import contracts and the test suite
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOWEST ?= .venv-lowest
ENGINE ?= .venv-vllm

.PHONY: demo test lint unit slow matrix engine clean

demo: $(VENV)/.demo
	$(BIN)/governor demo

test: lint unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

unit: $(VENV)/.dev
	$(BIN)/pytest -n 2 --dist loadfile

# The whole demo, kill -9 and benchmarks in their short form, on whatever model is there.
# The proxy's load stands alone: it is judged by how long calls take.
slow: $(VENV)/.dev
	$(BIN)/pytest -m slow --timeout 900 -n 2 --dist loadfile --ignore tests/benchmarks/test_proxy_load.py
	$(BIN)/pytest -m slow --timeout 900 tests/benchmarks/test_proxy_load.py

# LangGraph, LangChain and the LiteLLM proxy at the lowest versions that pyproject.toml allows; `make unit` has the newest
# that resolve. Two environments: what the old ones allow of their own needs does not go together.
matrix: $(LOWEST)/.matrix $(LOWEST)-proxy/.matrix
	$(LOWEST)/bin/pytest tests/governor_langgraph
	$(LOWEST)-proxy/bin/pytest tests/governor_litellm/test_proxy_*.py

# A real vLLM on the CPU, in an environment of its own (3.5 GB): says so and passes where there is none to be had.
engine:
	PYTHON=$(PYTHON) .ci/engine $(ENGINE)

$(VENV)/.base:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	touch $@

$(VENV)/.demo: $(VENV)/.base pyproject.toml
	$(BIN)/pip install --quiet --editable '.[langgraph,local,maths]'
	touch $@

$(VENV)/.dev: $(VENV)/.base pyproject.toml
	$(BIN)/pip install --quiet --editable '.[all,proxy]' --group dev
	touch $(VENV)/.demo $@

$(LOWEST)/.matrix: pyproject.toml .ci/lowest.py
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --upgrade 'pip>=25.1'
	$(LOWEST)/bin/python .ci/lowest.py langgraph langchain > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/pip install --quiet --constraint $(LOWEST)/lowest.txt --editable '.[langgraph,langchain,postgres,redis]' --group test
	touch $@

$(LOWEST)-proxy/.matrix: pyproject.toml .ci/lowest.py
	$(PYTHON) -m venv $(LOWEST)-proxy
	$(LOWEST)-proxy/bin/pip install --quiet --upgrade 'pip>=25.1'
	$(LOWEST)-proxy/bin/python .ci/lowest.py proxy > $(LOWEST)-proxy/lowest.txt
	$(LOWEST)-proxy/bin/pip install --quiet --constraint $(LOWEST)-proxy/lowest.txt --editable '.[proxy,redis]' --group test anthropic
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) $(LOWEST)-proxy $(ENGINE) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
