#!/usr/bin/env bash
# Brings a fresh Debian machine to where `make` works. Usage: bootstrap.sh [env] [docker] [image] [tests]   (default: all but the last)
#
#   env     git, uv, and the Python environment .venv from requirements.lock
#   docker  a Docker Engine that answers: Debian's docker.io, started here when none runs; where it is this machine's and
#           we are root also crun, a runtime that starts containers faster
#   image   the base image and the workspace image
#   tests   what only tests use
#
# Asks nothing, is safe to repeat and to run twice at once, and takes under a second when nothing is to do. What it
# cannot do (it installs packages only as root, on Debian) it names, with the command to type, and exits 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv_version=0.13.9
python_wanted='>=3.11'
state=.ff-dev # logs and the lock; git ignores it
docker_wait_s=60
lock_wait_s=1800
apt_lock_wait_s=300

say() { echo "bootstrap: $*"; }
die() {
  echo "bootstrap: $1" >&2
  shift
  for line in "$@"; do echo "           $line" >&2; done
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

apt_install() { # apt_install WHY PACKAGE...
  local why=$1
  shift
  if [[ $EUID -ne 0 ]] || ! have apt-get; then
    die "$why. As root on Debian: apt-get install $*" "then run scripts/bootstrap.sh again."
  fi
  say "$why: installing $*"
  local apt=(apt-get -o "DPkg::Lock::Timeout=$apt_lock_wait_s" -qq)
  { DEBIAN_FRONTEND=noninteractive "${apt[@]}" update &&
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "$@"; } >"$state/apt.log" 2>&1 ||
    { tail -n 5 "$state/apt.log" >&2; die "apt-get could not install $* (all of its output: $state/apt.log)."; }
}

# --- env ------------------------------------------------------------------------------------------------------------

find_python() { # prints a Python that is new enough; version managers leave shims that exist and don't run
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  return 1
}

ensure_python() {
  find_python >/dev/null || apt_install "there is no Python $python_wanted" python3 python3-venv
  find_python >/dev/null || die "Debian's python3 here is older than 3.11. Use Debian 12 or 13, or put a newer python3 on PATH."
}

ensure_uv() { # sets $uv
  uv=uv
  if uv --version >/dev/null 2>&1; then return; fi
  uv=$PWD/.tools/uv/bin/uv
  if [[ $("$uv" --version 2>/dev/null) == "uv $uv_version"* ]]; then return; fi
  ensure_python
  local python
  python=$(find_python)
  "$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install "Python's venv module is missing" python3-venv
  say "installing uv $uv_version under .tools"
  mkdir -p .tools
  { "$python" -m venv --clear .tools/uv && .tools/uv/bin/pip install --quiet --disable-pip-version-check "uv==$uv_version"; } \
    >"$state/uv.log" 2>&1 ||
    { tail -n 5 "$state/uv.log" >&2; die "uv could not be installed with pip (all of its output: $state/uv.log)." \
      "Check that the Python package index is reachable, or install uv yourself and put it on PATH."; }
}

ensure_env() {
  have git || apt_install "git is missing" git ca-certificates
  [[ -x $(git --exec-path)/git-http-backend ]] || apt_install "git's http-backend is missing" git

  local stamp
  stamp=$({ pwd; cat requirements.lock pyproject.toml packages/*/pyproject.toml; } | sha256sum | cut -d' ' -f1)
  if [[ -x .venv/bin/python && $(cat .venv/.ff-stamp 2>/dev/null) == "$stamp" ]]; then
    say "env: .venv is up to date"
    return
  fi
  ensure_python
  ensure_uv
  export UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=true VIRTUAL_ENV=$PWD/.venv
  rm -f .venv/.ff-stamp
  if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "env: making .venv"
    "$uv" venv --quiet --clear --python "$(find_python)" .venv
  fi
  say "env: installing requirements.lock into .venv"
  "$uv" pip sync --compile-bytecode --quiet --require-hashes requirements.lock || die "the packages of requirements.lock could not be installed (uv's reason is above)." \
    "Check that the Python package index is reachable; behind TLS inspection set SSL_CERT_FILE to the CA bundle."
  "$uv" pip install --quiet --no-build-isolation --no-deps -e packages/core -e packages/cloud -e packages/desktop
  echo "$stamp" >.venv/.ff-stamp
  say "env: ready, $(.venv/bin/python --version)"
}

# --- docker ---------------------------------------------------------------------------------------------------------

docker_answers() { timeout 10 docker version >/dev/null 2>&1; }

running() { # running NAME PIDFILE: does the file name a live process of that program? A zombie has no program any more
  local pid program
  pid=$(cat "$2" 2>/dev/null) && program=$(readlink "/proc/$pid/exe" 2>/dev/null) && [[ ${program##*/} == "$1"* ]]
}

drop_stale() { # drop_stale NAME PIDFILE: what a crash left makes the next dockerd give up, or wait for a stranger
  if [[ -e $2 ]] && ! running "$1" "$2"; then
    say "docker: removing the stale $2"
    rm -f "$2"
  fi
}

install_docker() {
  have dockerd || apt_install "the Docker Engine is missing" docker.io
  have docker || apt_install "Docker's client is missing" docker-cli # a package of its own since Debian 13
}

start_docker() {
  if [[ -d /run/systemd/system ]]; then
    say "docker: starting the service"
    systemctl start docker || die "systemd could not start Docker. See: journalctl -u docker"
    return
  fi
  drop_stale dockerd /run/docker.pid
  drop_stale containerd /run/docker/containerd/containerd.pid
  if running dockerd /run/docker.pid; then
    say "docker: dockerd runs already, waiting for it"
    return
  fi
  say "docker: starting dockerd (log: $state/dockerd.log)"
  setsid dockerd >>"$state/dockerd.log" 2>&1 </dev/null 9>&- &
}

# crun is worth having and not needed: whatever fails here is told, and VMs run with the Engine's own runtime.

mount_cgroups() { # crun refuses version 1 of cgroups while version 2 has controllers left; systemd leaves none
  local v2 name names
  [[ ! -d /run/systemd/system && -d /sys/fs/cgroup/memory ]] || return 0
  v2=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
  [[ -n $v2 ]] || return 0
  read -ra names <"$v2/cgroup.controllers" || true
  for name in "${names[@]}"; do
    if ! { mkdir -p "/sys/fs/cgroup/$name" && mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name"; }; then
      say "docker: the cgroup controller $name could not be mounted, so that crun may not work here"
    fi
  done
}

register_crun() { # in the Engine's configuration, with all that is there; prints "changed" when it did
  "$(find_python)" - /etc/docker/daemon.json "$(command -v crun)" <<'PYTHON'
import json, os, pathlib, sys, tempfile

path, crun = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
text = path.read_text() if path.exists() else ""
config = json.loads(text) if text.strip() else {}
if "crun" in config.setdefault("runtimes", {}):
    sys.exit()
config["runtimes"]["crun"] = {"path": crun}
path.parent.mkdir(parents=True, exist_ok=True)
handle, new = tempfile.mkstemp(dir=path.parent, prefix=".daemon-")
with os.fdopen(handle, "w") as file:
    file.write(json.dumps(config, indent=2) + "\n")
os.chmod(new, path.stat().st_mode & 0o777 if path.exists() else 0o644)
os.replace(new, path)
print("changed")
PYTHON
}

ensure_crun() {
  [[ $EUID -eq 0 && -z ${DOCKER_HOST:-} && ! -e $state/no-crun ]] || return 0
  if docker info --format '{{json .Runtimes}}' 2>/dev/null | grep -q '"crun"'; then
    mount_cgroups
    return
  fi
  if ! have crun && ! (apt_install "crun, which starts containers faster, is missing" crun); then
    say "docker: going on without crun (remove $state/no-crun to have it tried again)"
    : >"$state/no-crun"
    return
  fi
  mount_cgroups
  local changed
  changed=$(register_crun) || { say "docker: /etc/docker/daemon.json could not be read or written, so crun is not used"; return; }
  if [[ $changed == changed ]] && docker_answers; then
    say "docker: telling the Engine of crun"
    if [[ -d /run/systemd/system ]]; then systemctl reload docker || true; else kill -HUP "$(cat /run/docker.pid)" || true; fi
  fi
}

ensure_docker() {
  if have docker && docker_answers; then
    say "docker: Engine $(docker version --format '{{.Server.Version}}') answers"
    ensure_crun
    return
  fi
  [[ -z ${DOCKER_HOST:-} ]] || die "the Docker Engine at DOCKER_HOST=$DOCKER_HOST does not answer." "Start it, or unset DOCKER_HOST to have a local one started."
  if [[ $EUID -ne 0 ]]; then
    ! have docker || [[ ! -S /var/run/docker.sock || -w /var/run/docker.sock ]] ||
      die "a Docker Engine is here, but $(id -un) may not use it." "As root: usermod -aG docker $(id -un); then log in again."
    die "no Docker Engine answers, and only root can start one. As root: scripts/bootstrap.sh docker"
  fi
  install_docker
  ensure_crun
  docker_answers || start_docker
  local waited
  for ((waited = 0; waited < docker_wait_s * 10; waited++)); do
    if docker_answers; then
      say "docker: Engine $(docker version --format '{{.Server.Version}}') answers"
      return
    fi
    sleep 0.1
  done
  tail -n 10 "$state/dockerd.log" >&2 2>/dev/null || true
  die "dockerd did not answer within $docker_wait_s s (its log: $state/dockerd.log)." \
    "It needs a kernel with cgroups, overlayfs and iptables; inside a container it needs --privileged."
}

# --- image ----------------------------------------------------------------------------------------------------------

ensure_image() {
  [[ -x .venv/bin/python ]] || die "there is no .venv yet. Run scripts/bootstrap.sh env first."
  scripts/base-image.sh
  .venv/bin/python -m ff_cloud.vms.image --root .
}

# --- tests ----------------------------------------------------------------------------------------------------------

ensure_tests() { # what only tests use
  have ip || apt_install "ip, by which tests make networks of their own, is missing" iproute2
}

for part in "$@"; do
  [[ $part == env || $part == docker || $part == image || $part == tests ]] || die "'$part' is not a part. Usage: scripts/bootstrap.sh [env] [docker] [image] [tests]"
done
(($#)) || set -- env docker image
mkdir -p "$state"
exec 9>"$state/bootstrap.lock"
flock --wait "$lock_wait_s" 9 || die "another bootstrap has held $state/bootstrap.lock for $lock_wait_s s."
for part in "$@"; do "ensure_$part"; done
