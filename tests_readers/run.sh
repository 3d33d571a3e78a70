#!/usr/bin/env bash
# The exported files in other people's readers, each in an environment of its own: docs/readers.md has what comes out.
#   tests_readers/run.sh [READER ...]   all of them, or these
# READERS_DIR keeps the environments and files in that folder for the next run; CIFAR10_DIR gives real images.
set -euo pipefail
cd "$(dirname "$0")/.."
# reader, the environment whose packages it also sees (`make setup setup-torch`), its own packages. Without their
# dependencies, so that none brings another PyTorch: what they import beyond these is in the environment.
READERS="
sinabs        .venv-torch  sinabs==3.1.3 nir==1.0.4 nirtorch==2.0.2 pbr==7.1.3
spikingjelly  .venv-torch  spikingjelly==2.0.0 loguru==0.7.3
snntorch      .venv-torch  snntorch==1.0.0
neurobench    .venv-torch  neurobench==2.3.0
onnxruntime   .venv        onnxruntime==1.14.1 numpy==1.21.6
openvino      .venv-torch  openvino==2026.4.1
onnx2torch    .venv-torch  onnx2torch==1.5.15 torchvision==0.28.0
tvm           .venv-torch  apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.15.post2
ncnn          .venv-torch  ncnn==1.0.20261020 pnnx==20261020
qonnx         .venv-torch  qonnx==1.0.0 toposort==1.10
litert        .venv-torch  ai-edge-litert==2.3.0
"

folder=${READERS_DIR:-$(mktemp -d)}
[ -n "${READERS_DIR:-}" ] || trap 'rm -rf "$folder"' EXIT
folder=$(mkdir -p "$folder" && cd "$folder" && pwd)
export READERS_FILES=$folder/files
rm -rf "$READERS_FILES"
.venv-torch/bin/python tests_readers/make_files.py "$READERS_FILES"

site_packages() { "$1/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))"; }

prepare() { # environment, base, packages
  local environment=$1 base=$2
  shift 2
  [ "$(cat "$environment/packages" 2>/dev/null)" != "$*" ] || return 0
  "$base/bin/python" -m venv --clear "$environment"
  site_packages "$base" >"$(site_packages "$environment")/base.pth"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$@"
  echo "$*" >"$environment/packages"
}

while read -r reader base packages; do
  [ -n "$reader" ] || continue
  [ $# = 0 ] || [[ " $* " = *" $reader "* ]] || continue
  printf '\n%s: %s (%ds)\n' "$reader" "$packages" "$SECONDS"
  # shellcheck disable=SC2086 # packages are several words
  prepare "$folder/$reader" "$base" $packages </dev/null
  "$folder/$reader/bin/python" -W ignore -m pytest -q "tests_readers/test_$reader.py" </dev/null
done <<<"$READERS"
