#!/usr/bin/env bash
# Remakes the hashed locks of what the benchmark measures against (bench/requirements-*.in). They name no registry.
# bench/peers/package-lock.json is remade with `npm install --package-lock-only --omit-lockfile-registry-resolved`.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.tools/uv/bin:$PATH"
for input in bench/requirements-*.in; do
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
    --no-emit-find-links "$input" -o "${input%.in}.txt"
done
if grep -nE '://' bench/requirements-*.txt || grep -n '"resolved"' bench/peers/package-lock.json; then
  echo "bench_lock: a lock file names a host; locks must name none" >&2
  exit 1
fi
