# setup   prepare .venv (all other targets do it themselves)      demo    train, resume, evaluate on digits: 4 minutes
# test    the whole test suite                                   train   CIFAR-10: make train VARIANT=bwba ARGS=--resume
# lock    resolve requirements.txt anew (needs uv)
PYTHON := .venv/bin/python
VARIANT := twba
ARGS :=
FOLDER_twba := TWBA
FOLDER_bwba := BWBA
LOCK := uv pip compile --no-config --no-emit-index-url --generate-hashes --python-platform x86_64-manylinux2014

.PHONY: setup demo test train lock
.DEFAULT_GOAL := setup

setup:
	@./setup.sh

demo: setup
	PYTHON=$(PYTHON) ./demo.sh

test: setup
	$(PYTHON) -m pytest $(ARGS)

train: setup
	@test -n "$(FOLDER_$(VARIANT))" || { echo "VARIANT is twba or bwba, not $(VARIANT)" >&2; exit 1; }
	$(PYTHON) $(FOLDER_$(VARIANT))/cifar10_$(VARIANT)_example.py $(ARGS)

lock:
	$(LOCK) --python-version 3.7 --override requirements-overrides.txt requirements.txt -o requirements.lock
	$(LOCK) --python-version 3.8 --override docker/requirements-gpu-overrides.txt docker/requirements-gpu.txt \
	  --no-emit-package numpy --no-emit-package wrapt -o docker/requirements-gpu.lock
