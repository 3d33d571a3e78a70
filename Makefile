# setup   prepare .venv (the other targets do it themselves)     setup-torch  prepare .venv-torch, for twba_torch
# demo    train, resume, evaluate on digits: 2 minutes           train        CIFAR-10: make train VARIANT=bwba ARGS=--resume
# test    the tests of the TensorFlow side                       train-torch  the same in PyTorch, on a GPU if there is one
# bench   inference speed: the engine and others                 test-torch   the tests of the PyTorch side, against TensorFlow
# bench-train  training speed: this graph, the original's        bench-torch  PyTorch's training speed, by its parts
# test-gpu  a GPU's arithmetic and speed, if there is one        test-lowest  tests with the lowest supported PyTorch
# test-readers  the exported files in other projects' readers    test-tour  docs/tour.ipynb runs and reproduces its outputs
# tour    run docs/tour.ipynb again and save its outputs         test-slow  what make test leaves out: whole test sets, and so on
# lint    ruff, mypy, shellcheck, hadolint, zizmor               lock         resolve the requirements again (needs uv)
PYTHON := .venv/bin/python
TORCH_PYTHON := .venv-torch/bin/python
VARIANT := twba
ARGS :=
FOLDER_twba := TWBA
FOLDER_bwba := BWBA
LOCK := uv pip compile --no-config --no-emit-index-url --no-emit-find-links --generate-hashes
TORCH_CPU_WHEELS ?= https://download.pytorch.org/whl/cpu/torch/
export TORCH_CPU_WHEELS

.PHONY: help setup setup-torch setup-tools demo test test-slow test-torch test-gpu test-lowest test-readers test-tour tour train train-torch bench bench-train bench-torch lint lock
.DEFAULT_GOAL := setup

help:
	@sed -n 's/^# //p' Makefile

setup:
	@./setup.sh

setup-torch:
	@./setup.sh torch

setup-tools:
	@./setup.sh tools

demo: setup
	PYTHON=$(PYTHON) ./demo.sh

PYTEST = $(PYTHON) -m pytest -n auto --maxprocesses 4 --dist loadfile
test: setup
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: setup
	$(PYTEST) -m slow $(ARGS)

test-torch: setup setup-torch
	$(TORCH_PYTHON) -m pytest tests/pytorch $(ARGS)

test-gpu: setup-torch
	$(TORCH_PYTHON) tests/gpu --json benchmarks/training_gpu.json $(ARGS)

test-lowest:
	@./setup.sh lowest
	.venv-lowest/bin/python -m pytest $(addprefix tests/pytorch/test_,by_hand.py convolution.py device.py quantisers.py) $(ARGS)
	rm -rf runs/lowest
	.venv-lowest/bin/python -m twba_torch.train --variant twba --dataset digits --limit-train 100 --epochs 2 --output runs/lowest

test-readers: setup setup-torch setup-tools
	.venv-tools/bin/nox -f tests/readers/noxfile.py $(ARGS)

TOUR = PYTHONPATH=$$(echo '$(CURDIR)'/.venv-torch/lib/python*/site-packages) .venv-tools/bin/python
test-tour: setup-torch setup-tools
	$(TOUR) -m pytest --nbval-lax docs/tour.ipynb $(ARGS)

tour: setup-torch setup-tools
	$(TOUR) docs/run_tour.py

train: setup
	@test -n "$(FOLDER_$(VARIANT))" || { echo "VARIANT is twba or bwba, not $(VARIANT)" >&2; exit 1; }
	$(PYTHON) $(FOLDER_$(VARIANT))/cifar10_$(VARIANT)_example.py $(ARGS)

train-torch: setup-torch
	$(TORCH_PYTHON) -m twba_torch.train --variant $(VARIANT) $(ARGS)

bench: setup setup-torch
	@./setup.sh bench || echo "OpenVINO and LiteRT could not be installed: the benchmark leaves them out" >&2
	$(PYTHON) benchmarks/inference.py $(ARGS)

bench-train: setup setup-torch
	$(PYTHON) benchmarks/training.py $(ARGS)

bench-torch: setup-torch
	$(TORCH_PYTHON) benchmarks/training_torch.py $(ARGS)

lint: setup-torch setup-tools
	.venv-tools/bin/pre-commit run --all-files

lock:
	$(LOCK) --python-platform x86_64-manylinux2014 --python-version 3.7 --override locks/tensorflow-overrides.txt \
	  requirements.txt -o locks/tensorflow.lock
	$(LOCK) --python-platform x86_64-manylinux2014 --python-version 3.8 --override locks/tensorflow-gpu-overrides.txt \
	  locks/tensorflow-gpu.txt --no-emit-package numpy --no-emit-package wrapt -o locks/tensorflow-gpu.lock
	$(LOCK) --universal --python-version 3.10 locks/torch.txt --no-emit-package torchvision \
	  -o locks/torch.lock
	$(LOCK) --python-platform x86_64-manylinux_2_28 --python-version 3.11 --find-links '$(TORCH_CPU_WHEELS)' \
	  locks/torch.txt --no-emit-package torchvision -o locks/torch-cpu.lock
	$(LOCK) --python-platform x86_64-manylinux_2_28 --python-version 3.11 locks/torch-lowest.txt \
	  $(addprefix --no-emit-package ,triton nvidia-cusolver-cu12 nvidia-cuda-nvrtc-cu12 nvidia-nvtx-cu12) \
	  -o locks/torch-lowest.lock
	$(LOCK) --universal --python-version 3.10 locks/tools.txt -o locks/tools.lock
	$(LOCK) --universal --python-version 3.10 --no-deps locks/benchmarks.txt -o locks/benchmarks.lock
