#!/usr/bin/env bash
# Prepare an environment with the packages of its lock file; a second run reuses it.
#   ./setup.sh        .venv: CPython 3.7, TensorFlow 1.15, patched TensorLayer. Without a CPython 3.7, uv fetches one
#   ./setup.sh torch  .venv-torch: CPython 3.10 to 3.13, PyTorch. Its smaller build for the CPU needs CPython 3.11, Linux on
#                     x86-64 and no NVIDIA driver; else it is PyPI's, on Linux for CUDA (5.8 GB)
#   ./setup.sh lowest .venv-lowest: CPython 3.11, the lowest supported PyTorch; 5 GB, since PyPI has only its build for CUDA
#   ./setup.sh tools  .venv-tools: CPython 3.10 to 3.13, linters, and tools that run third-party readers and the tour
#   ./setup.sh bench  .venv-bench: the benchmark's peers, on top of .venv-torch
set -euo pipefail
cd "$(dirname "$0")"
TORCH_CPU_WHEELS=${TORCH_CPU_WHEELS:-https://download.pytorch.org/whl/cpu/torch/} # or a folder with the wheel
BUILD_PACKAGES="build-essential libssl-dev zlib1g-dev libbz2-dev libreadline-dev libsqlite3-dev libffi-dev liblzma-dev"

fail() { echo "setup.sh: $*" >&2; exit 1; }

is_python() { # version, interpreter
  "$2" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" >/dev/null 2>&1
}

makes_environments() { "$1" -c "import venv, ensurepip" 2>/dev/null; } # Debian's and Ubuntu's needs another package

find_python() { # versions, preferred first; prints the interpreter: one that makes environments, if there is any
  local version candidate lacking=
  for version in "$@"; do
    for candidate in "python$version" python3 "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/"python$version" \
      .uv/python/*/bin/"python$version" "$(uv python find --no-project "$version" 2>/dev/null || true)"; do
      if [ -n "$candidate" ] && is_python "$version" "$candidate"; then
        if makes_environments "$candidate"; then
          echo "$candidate"
          return
        fi
        lacking=${lacking:-$candidate}
      fi
    done
  done
  [ -n "$lacking" ] && echo "$lacking"
}

make_venv() { # interpreter, folder
  makes_environments "$1" ||
    fail "$("$1" --version) lacks venv or ensurepip: install them (Debian, Ubuntu: apt install" \
      "python$("$1" -c "import sys; print('%d.%d' % sys.version_info[:2])")-venv)"
  "$1" -m venv --clear "$2" || fail "$2 cannot be made"
}

pip_install() { # environment's folder, pip's arguments
  local environment=$1
  shift
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes "$@"
}

fetch_python37() { # with our own uv: versions after 0.6 do not offer 3.7
  local python
  python=$(find_python 3.13 3.12 3.11 3.10 3.9 3.8 3.14) || fail "fetching CPython 3.7 needs a CPython from 3.8 on: $REMEDY37"
  echo "no CPython 3.7 here: uv fetches one into .uv" >&2
  make_venv "$python" .uv
  pip_install .uv -r /dev/stdin <<<"uv==0.6.17 --hash=sha256:aa416f287c81bfffd21e82765944035e6c3f4566615bd4fc03db3a704be8e4d5" >&2 ||
    fail "uv, which fetches CPython 3.7, cannot be installed from pip's index: $REMEDY37"
  UV_HTTP_TIMEOUT=60 .uv/bin/uv python install --no-config --install-dir .uv/python 3.7.9 >&2 ||
    fail "uv cannot fetch CPython 3.7.9: $REMEDY37"
}
REMEDY37="install CPython 3.7 (\`pyenv install 3.7\`; on Debian and Ubuntu it needs: apt install $BUILD_PACKAGES), or use"
REMEDY37+=" Docker (README.md)"

python37() {
  [ "$(uname -sm)" = "Linux x86_64" ] ||
    fail "TensorFlow 1.15 runs only on Linux on x86-64: use Docker or PyTorch (make setup-torch)"
  find_python 3.7 || { fetch_python37 && find_python 3.7; }
}

newer_python() { # the subject of the message, "... needs"
  find_python 3.11 3.12 3.13 3.10 || fail "$1 CPython 3.10 to 3.13: install one (your system's python3, pyenv or uv)"
}

stamp() { # lock files; prints what an environment's file `installed` says: the folder, too, which its programs name
  pwd
  cksum "$@"
}

is_current() { # environment, lock files
  "$1/bin/python" -c "" 2>/dev/null && [ -f "$1/installed" ] && [ "$(cat "$1/installed")" = "$(stamp "${@:2}")" ]
}

prepare() { # environment, interpreter, lock file, pip's flags
  local environment=$1 python=$2 lock=$3
  shift 3
  echo "setting up $environment with $("$python" --version) (once)"
  make_venv "$python" "$environment"
  pip_install "$environment" "$@" -r "$lock"
}

site_packages() { "$1/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))"; }

torch_lock() { # interpreter; prints the lock file and pip's flags for this machine
  if nvidia-smi >/dev/null 2>&1 || ! is_python 3.11 "$1" || [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo locks/torch.lock
  elif [ -e "$TORCH_CPU_WHEELS" ] || answers "$1" "$TORCH_CPU_WHEELS"; then
    echo "locks/torch-cpu.lock --find-links $TORCH_CPU_WHEELS"
  elif "$1" -m pip install --quiet --dry-run --ignore-installed --no-deps torch==2.13.0+cpu >/dev/null 2>&1; then
    echo locks/torch-cpu.lock # pip's configured index has the wheel
  else
    echo locks/torch.lock
  fi
}

answers() { "$1" -c "import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=20)" "$2" >/dev/null 2>&1; }

case "${1:-}" in
"")
  if ! is_current .venv locks/tensorflow.lock; then
    python=$(python37)
    prepare .venv "$python" locks/tensorflow.lock
    stamp locks/tensorflow.lock >.venv/installed
  fi
  .venv/bin/python patches/install.py
  ;;
torch)
  if ! is_current .venv-torch locks/torch.lock locks/torch-cpu.lock; then
    python=$(newer_python "PyTorch needs")
    read -r -a lock <<<"$(torch_lock "$python")"
    echo "PyTorch from ${lock[0]} (CPU build: CPython 3.11 on Linux on x86-64 only; elsewhere PyPI's build, on Linux with CUDA)"
    prepare .venv-torch "$python" "${lock[@]}"
    stamp locks/torch.lock locks/torch-cpu.lock >.venv-torch/installed
  fi
  ;;
tools)
  if ! is_current .venv-tools locks/tools.lock; then
    python=$(newer_python "the tools need")
    prepare .venv-tools "$python" locks/tools.lock
    stamp locks/tools.lock >.venv-tools/installed
  fi
  ;;
lowest)
  if ! is_current .venv-lowest locks/torch-lowest.lock; then
    python=$(find_python 3.11) || fail "the lowest PyTorch is locked for CPython 3.11: install it"
    prepare .venv-lowest "$python" locks/torch-lowest.lock --no-cache-dir
    stamp locks/torch-lowest.lock >.venv-lowest/installed
  fi
  ;;
bench)
  [ -x .venv-torch/bin/python ] || fail "the benchmark's peers need .venv-torch: run ./setup.sh torch"
  if ! is_current .venv-bench locks/benchmarks.lock .venv-torch/installed; then
    echo "setting up .venv-bench (once)"
    make_venv .venv-torch/bin/python .venv-bench
    site_packages .venv-torch >"$(site_packages .venv-bench)/torch.pth"
    pip_install .venv-bench -r locks/benchmarks.lock
    stamp locks/benchmarks.lock .venv-torch/installed >.venv-bench/installed
  fi
  ;;
*)
  fail "$1: no such environment: use torch, lowest, tools or bench, or no argument for TensorFlow's"
  ;;
esac
