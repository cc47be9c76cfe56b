# moored's everyday commands; `make` alone lists them.
PYTHON ?= python3
VENV := .venv/bin
CPP := $(shell git ls-files '*.cpp' '*.hpp' '*.c' '*.h' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help setup build test torture matrix asan ubsan tsan safety suites demo lint format sid interpreters clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z ]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what the build needs and this machine lacks (apt; needs root)
	@PYTHON=$(PYTHON) sh tools/setup.sh

build: setup ## Make .venv with moored and everything for development in it
	@$(PYTHON) tools/workspace.py

test: setup ## Run all tests with every Python found; ONLY=3.12 takes just that one
	@$(PYTHON) tools/test.py $(if $(ONLY),--only $(ONLY))

torture: setup ## Run 2,000 cases of moored torture with every Python found (slow); SEED=S from another seed
	@$(PYTHON) tools/torture.py $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED))

matrix: sid ## make test and make torture with every Python found and those of Debian sid (slow)
	@$(PYTHON) tools/test.py
	@$(PYTHON) tools/torture.py

asan ubsan tsan: build ## Run the C++ tests under a sanitizer, and for asan and ubsan some torture
	cmake --preset $@ && cmake --build --preset $@ && ctest --preset $@ -j 2
	$(if $(filter asan,$@),$(VENV)/moored torture --cases 100 --sanitize address)
	$(if $(filter ubsan,$@),$(VENV)/moored torture --cases 100 --sanitize undefined)

safety: setup ## Run the hazard tests with every Python found, and write docs/measure/safety.md from them
	@$(PYTHON) tools/safety.py --run $(if $(ONLY),--only $(ONLY))

suites: setup ## Run the interpreters' own thread tests, stock and under moored run, and compare (slow)
	@$(PYTHON) tools/suites.py $(if $(ONLY),--only $(ONLY))

demo: build ## Run the ThreadWakeup experiment: a table and a chart in a few minutes
	@$(VENV)/moored lab wakeup --out out

lint: build ## Check style, types, words, layers and, by clang, the locks; changes nothing
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	$(VENV)/mypy
	$(VENV)/mypy --strict tools
	$(VENV)/clang-format --dry-run -Werror $(CPP)
	$(VENV)/python tools/headers.py
	$(VENV)/python tools/words.py
	$(VENV)/python tools/layers.py

format: build ## Bring all sources into the house style
	$(VENV)/ruff format
	$(VENV)/ruff check --fix
	$(VENV)/clang-format -i $(CPP)

sid: setup ## Make .sid, a Debian sid folder with Python 3.13 and later, for make test (needs root)
	@sh tools/sid.sh

interpreters: ## List the Pythons that make test would use
	@$(PYTHON) tools/interpreters.py

clean: ## Delete all that was built (.sid stays: delete it by hand)
	rm -rf build out .venv .venvs .pytest_cache .mypy_cache .ruff_cache .hypothesis
