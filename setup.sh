#!/usr/bin/env bash
# Prepare .venv: CPython 3.7, the packages of requirements.lock, TensorLayer patched. A second run reuses what is there.
set -euo pipefail
cd "$(dirname "$0")"

is_python37() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 7))' >/dev/null 2>&1; }

find_python37() {
  local candidate
  for candidate in python3.7 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.7.*/bin/python3.7 \
    "$(uv python find --no-project 3.7 2>/dev/null || true)"; do
    if [ -n "$candidate" ] && is_python37 "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  echo "setup.sh: no CPython 3.7, which TensorFlow 1.15 needs, on PATH, in pyenv or in uv: install one with" \
    "\`pyenv install 3.7\` or \`uv python install 3.7\`, or use Docker (see README.md)" >&2
  return 1
}

lock=$(sha256sum requirements.lock)
if [ "$(cat .venv/installed.sha256 2>/dev/null)" != "$lock" ]; then
  python=$(find_python37)
  echo "setting up .venv with $("$python" --version) (once; about a minute)"
  "$python" -m venv --clear .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
  echo "$lock" >.venv/installed.sha256
fi
.venv/bin/python patches/install.py
