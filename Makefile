# `make tour` shows everything on examples, `make test` runs the tests; both create .venv when it is not there.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install tour test lint bench cards clean

install: $(VENV)/.installed

# Installed again whenever the dependencies change.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

tour: install
	$(BIN)/crossmodal tour --out tour

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/crossmodal bench

# Fills the tables of the model card and of README.md from recipes/starter/figures; MEASURE=1 DATA=DIR measures first,
# ONLY="faces speech" only these, BUNDLE=FOLDER a bundle that is to ship.
cards: install
	$(BIN)/python -m crossmodal.recipes.starter.cards $(if $(MEASURE),--measure --data "$(DATA)" \
	    $(if $(ONLY),--only $(ONLY)) $(if $(BUNDLE),--bundle $(BUNDLE)))

clean:
	rm -rf $(VENV) build dist tour *.egg-info
