# `make lab` to learn, `make test` to check; the other targets serve those who change the course.
# VENV: the environment's folder. PYTHON: what creates it. ARGS: passed on to `course lab`.

WINDOWS := $(filter Windows_NT,$(OS))
VENV    ?= .venv
PYTHON  ?= $(if $(WINDOWS),python,python3)
BIN     := $(VENV)/$(if $(WINDOWS),Scripts,bin)
PY      := $(BIN)/python
PINS    := pyproject.toml constraints.txt tools/install.py
PYTEST  := $(PY) -m pytest
FAST    := -m "not peers and not slow"
HOOK    := --jaxtyping-packages=course_lib,beartype.beartype --ignore=tests/messages
NO_NET  := http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9

.PHONY: lab test lint units lessons test-solutions test-offline test-full test-breaks test-lowest test-all sync constraints bench clean
.NOTPARALLEL:

lab: $(VENV)/.course-lab  ## open the lessons in JupyterLab
	$(BIN)/course lab $(ARGS)

test: lint units lessons  ## everything that CI runs

# Checks keep their own progress file: they never count as the learner's. Stored notebooks show pictures, not sliders.
units lessons test-solutions test-offline test-full test-breaks: export COURSE_STATE := $(abspath $(VENV))/.course-state
lessons test-solutions test-offline test-full: export COURSE_STATIC := 1

lint: $(VENV)/.course-test  ## style, and the order of the library's floors
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(BIN)/lint-imports

units: $(VENV)/.course-test  ## our own errors without run-time type checks, then everything else with them
	$(PYTEST) $(FAST) tests/messages
	$(PYTEST) $(FAST) $(HOOK) tests

lessons: $(VENV)/.course-test  ## every notebook, top to bottom, against its stored outputs
	$(PYTEST) $$($(PY) tools/nbval_mode.py) --nbval-current-env notebooks

test-solutions: $(VENV)/.course-test  ## every notebook with its exercises solved
	$(PY) tools/solutions.py

test-offline: $(VENV)/.course-test  ## every notebook without network and without data
	$(NO_NET) COURSE_DATA=$(abspath $(VENV))/.no-data $(PYTEST) --nbval-lax --nbval-current-env notebooks

test-full: $(VENV)/.course-test  ## every notebook in the `full` profile, with few training steps
	COURSE_PROFILE=full COURSE_STEPS=2 $(PYTEST) --nbval-lax --nbval-current-env notebooks

test-breaks: $(VENV)/.course-test  ## plants one mistake at a time in a copy: the tests must see each
	$(PY) tools/plant_breaks.py

test-lowest: $(VENV)/.course-test  ## the oldest versions that pyproject.toml allows, in an environment of their own
	$(PY) tools/install.py --lowest .venv-lowest lab test
	$(MAKE) units lessons VENV=.venv-lowest

test-all: test test-solutions test-offline test-full test-breaks test-lowest  ## before a release
	-$(PY) -m pip install --quiet -c constraints.txt open_clip_torch torchmetrics transformers  # peers join in where they can be fetched
	$(PYTEST) -m "peers or slow" $(HOOK) tests

bench: $(VENV)/.course-test  ## how fast the U-Net is, beside other libraries', in one run
	-$(PY) -m pip install --quiet -c constraints.txt denoising-diffusion-pytorch  # joins in where it can be fetched
	$(PY) tools/bench.py $(ARGS)

sync: $(VENV)/.course-test  ## badges, links, lesson table, navigation and environment.yml follow pyproject.toml
	$(PY) tools/sync.py

constraints: $(VENV)/.course-test  ## resolve the pinned set anew, for every supported Python and system
	$(PY) tools/constraints.py

$(VENV)/.course-lab: $(PINS)
	$(PYTHON) tools/install.py $(VENV) lab

$(VENV)/.course-test: $(PINS)
	$(PYTHON) tools/install.py $(VENV) lab test

clean:  ## environments and caches; never a learner's lessons, progress or data
	rm -rf .venv .venv-lowest build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
