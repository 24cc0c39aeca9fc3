#!/usr/bin/env bash
# Remakes both hashed locks from the pyproject files. The locks name no registry: uv's own default is used.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
  --no-emit-package ff-core --no-emit-package ff-cloud --no-emit-package ff-desktop "$@"; }
compile packages/core/pyproject.toml packages/cloud/pyproject.toml packages/desktop/pyproject.toml \
  images/workspace/requirements.in --extra otel --group pyproject.toml:dev -o requirements.lock
compile packages/core/pyproject.toml images/workspace/requirements.in -c requirements.lock -o images/workspace/requirements.lock
if grep -nE '://' requirements.lock images/workspace/requirements.lock; then
  echo "lock: a lock file names a host; locks must name none" >&2
  exit 1
fi
