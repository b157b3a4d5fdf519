# Every target sets up what it needs by itself; only Python 3.11 or newer and make have to be there. `make train` also
# needs flite, espeak-ng and a C++ compiler, and says so.
PYTHON ?= python3
PY := .venv/bin/python
GOLDEN ?= tests/parity/golden
OUT ?= out
TIER ?= S

.DEFAULT_GOAL := help
.PHONY: help demo test check fmt parity bench data codecs train clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

demo: ## every task on the embedded model; writes out/index.html
	@$(PYTHON) bootstrap.py demo

test: ## all tests
	@$(PYTHON) bootstrap.py test

check: ## format, lint, types, layers, the laws of the house
	@$(PYTHON) bootstrap.py check

fmt: ## format and fix what can be fixed
	@$(PYTHON) bootstrap.py setup dev
	@$(PY) -m ruff check --quiet --fix-only . ; $(PY) -m ruff format .

parity: ## our numbers against recorded ones: make parity GOLDEN=DIR
	@ls "$(GOLDEN)"/*.npz >/dev/null 2>&1 || { echo "parity: no fixtures (*.npz beside *.json) in $(GOLDEN)"; exit 2; }
	@$(PYTHON) bootstrap.py setup dev
	@DYNIN_GOLDEN="$(GOLDEN)" $(PY) -m pytest -q -rs tests/parity

bench: ## our decoder beside the published samplers: make bench TIER=S|M|L CASE=text-exact THREADS=1
	@$(PYTHON) bootstrap.py setup dev
	@$(PY) benchmarks/decoding.py --tier $(TIER) $(foreach case,$(CASE),--case $(case)) $(if $(THREADS),--threads $(THREADS))

data: ## five examples of each kind of training data, in out/data
	@$(PYTHON) bootstrap.py setup
	@for task in t2i i2t i2i t2v v2t t2t; do $(PY) -m dynin data emoji-world --task $$task --count 5 --output $(OUT)/data/$$task || exit 1; done

codecs: ## the tokenizers of pictures and speech from nothing, in runs/codecs
	@$(PYTHON) bootstrap.py setup dev
	@test -e runs/codecs/image/image.safetensors || $(PY) -m dynin train-codec image
	@test -e runs/codecs/speech/speech.safetensors || $(PY) -m dynin train-codec speech

train: ## the embedded model from nothing, every arrow of its recipe, with the codecs that ship (a GPU, or hours on two cores)
	@$(PYTHON) bootstrap.py setup dev
	@test -e runs/speech/codes_train.npz || $(PY) -m dynin data speech --count 40000 --codec src/dynin/assets/model
	@test -e runs/speech/long_train.npz || $(PY) -m dynin data speech --long --count 5000 --codec src/dynin/assets/model --output runs/speech/long_train.npz
	@test -d runs/backbone/model || $(PY) -m dynin train configs/train/backbone.toml
	@test -d runs/stage1/model || $(PY) -m dynin train configs/train/stage1.toml
	@test -d runs/merged || $(PY) -m dynin merge runs/backbone/model runs/stage1/model --output runs/merged
	@test -d runs/stage2/model || $(PY) -m dynin train configs/train/stage2.toml
	@test -d runs/stage3/model || $(PY) -m dynin train configs/train/stage3.toml
	@test -d runs/finish/model || $(PY) -m dynin train configs/train/finish.toml
	@test -d runs/polish/model || $(PY) -m dynin train configs/train/polish.toml
	@test -d runs/speak/model || $(PY) -m dynin train configs/train/speak.toml

clean: ## remove the environment, outputs and caches
	rm -rf .venv out build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis src/*.egg-info
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
