#!/usr/bin/env bash
# Makes the base image ff-base:trixie (Debian 13) exist on the Docker Engine: from a registry when one answers,
# else with mmdebstrap from Debian's own mirrors. Safe to repeat; does nothing when the image is there.
set -euo pipefail

image=ff-base:trixie
source_image=debian:trixie-slim
answer_s=10      # a registry that has not begun to answer by then is taken for unreachable
download_s=600
bootstrap_s=900

say() { echo "base-image: $*"; }
die() { echo "base-image: $*" >&2; exit 1; }

work=$(mktemp -d)
puller=""
cleanup() {
  [[ -z $puller ]] || kill "$puller" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

pull() {
  timeout "$download_s" docker pull "$source_image" >"$work/pull.log" 2>&1 &
  puller=$!
  local waited=0
  while kill -0 "$puller" 2>/dev/null && ! grep -q '^Digest\|: Pull\|: Download\|: Already' "$work/pull.log"; do
    if ((waited++ >= answer_s * 10)); then
      kill "$puller" 2>/dev/null || true
      break
    fi
    sleep 0.1
  done
  local status=0
  wait "$puller" || status=$?
  puller=""
  return "$status"
}

make_here() {
  if ! command -v mmdebstrap >/dev/null; then
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
      die "no registry answers and mmdebstrap is missing. As root: apt-get install mmdebstrap, then run this again."
    fi
    say "installing mmdebstrap"
    { DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap; } >"$work/apt.log" 2>&1 ||
      { tail -n 5 "$work/apt.log" >&2; die "apt-get could not install mmdebstrap."; }
  fi
  say "making Debian 13 with mmdebstrap (about 20 s)"
  local drop=()
  for path in doc man info locale; do drop+=(--dpkgopt="path-exclude=/usr/share/$path/*"); done
  timeout "$bootstrap_s" mmdebstrap --quiet --variant=minbase "${drop[@]}" \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' trixie "$work/base.tar" 2>"$work/mmdebstrap.log" ||
    { tail -n 10 "$work/mmdebstrap.log" >&2; die "mmdebstrap failed. It needs Debian's mirrors (and, when not root, user namespaces)."; }
  docker import --change 'CMD ["bash"]' "$work/base.tar" "$image" >/dev/null
}

docker version >/dev/null 2>&1 || die "the Docker Engine does not answer. Run scripts/bootstrap.sh docker."
if docker image inspect "$image" >/dev/null 2>&1; then
  say "$image is there"
  exit 0
fi
if pull; then
  docker tag "$source_image" "$image"
else
  say "no registry gives $source_image; making it here"
  make_here
fi
say "$image made, $(docker image inspect --format '{{.Size}}' "$image" | awk '{printf "%.0f MB", $1 / 1e6}')"
