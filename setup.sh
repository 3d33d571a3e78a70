#!/usr/bin/env bash
# Prepare an environment with the packages of its lock file; a second run reuses what is there.
#   ./setup.sh        .venv: CPython 3.7, TensorFlow 1.15, TensorLayer patched
#   ./setup.sh intel  .venv-intel: the same with intel-tensorflow, to be compared (README, "Speed")
#   ./setup.sh torch  .venv-torch: CPython 3.11, PyTorch for CUDA where there is an NVIDIA driver, else for the CPU
set -euo pipefail
cd "$(dirname "$0")"
TORCH_CPU_WHEELS=${TORCH_CPU_WHEELS:-https://download.pytorch.org/whl/cpu/torch/} # or a folder that has the wheel

is_python() { "$2" -c "import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" >/dev/null 2>&1; }

find_python() { # version, who needs it
  local candidate
  for candidate in "python$1" python3 "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/"python$1" \
    "$(uv python find --no-project "$1" 2>/dev/null || true)"; do
    if [ -n "$candidate" ] && is_python "$1" "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  echo "setup.sh: no CPython $1, which $2 needs, on PATH, in pyenv or in uv: install one with" \
    "\`pyenv install $1\` or \`uv python install $1\`, or use Docker (see README.md)" >&2
  return 1
}

prepare() { # environment, version, who needs it, lock file, pip's flags
  local environment=$1 version=$2 user=$3 lock=$4 stamp python
  shift 4
  stamp=$(sha256sum "$lock")
  if [ "$(cat "$environment/installed.sha256" 2>/dev/null)" != "$stamp" ]; then
    python=$(find_python "$version" "$user")
    echo "setting up $environment with $("$python" --version) (once; about a minute)"
    "$python" -m venv --clear "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes "$@" -r "$lock"
    echo "$stamp" >"$environment/installed.sha256"
  fi
}

case "${1:-}" in
"")
  prepare .venv 3.7 "TensorFlow 1.15" requirements.lock
  .venv/bin/python patches/install.py
  ;;
intel)
  prepare .venv-intel 3.7 "TensorFlow 1.15" requirements.lock
  .venv-intel/bin/python -m pip uninstall --quiet --yes tensorflow
  .venv-intel/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-intel.lock
  .venv-intel/bin/python patches/install.py
  ;;
torch)
  if nvidia-smi >/dev/null 2>&1; then
    prepare .venv-torch 3.11 "PyTorch's side" twba_torch/requirements-gpu.lock
  else
    prepare .venv-torch 3.11 "PyTorch's side" twba_torch/requirements-cpu.lock --find-links "$TORCH_CPU_WHEELS"
  fi
  ;;
*)
  echo "setup.sh: $1? Nothing for TensorFlow's environment, intel, or torch" >&2
  exit 1
  ;;
esac
