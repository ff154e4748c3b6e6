#!/usr/bin/env bash
# Prepares a Debian machine (12 or newer) for the tests in containers. Installing needs root.
#   ops/engine.sh up    install and start what is missing: a Docker engine, Compose, Buildx and a base image
#   ops/engine.sh down  stop the engine if "up" started it; images, volumes and packages stay
# A machine with Docker, Compose 2.24 and a reachable image registry needs none of this.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly OFFICIAL_IMAGE=python:3.13-slim
# The substitute has another name, because other projects on the machine may use the official image.
readonly SUBSTITUTE_IMAGE=chatroom-base:debootstrap
# The Debian release that has Compose 2, Buildx and Python 3.13.
readonly RELEASE=trixie
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
readonly CERTIFICATES=/etc/ssl/certs/ca-certificates.crt
readonly PID_FILE=/run/chatroom-dockerd.pid
readonly LOCK_FILE=/run/chatroom-engine.lock
readonly ENGINE_LOG=/var/log/chatroom-dockerd.log
readonly STEP_LOG=/var/log/chatroom-engine.log
readonly START_SECONDS=60
# Time limit for dockerd, which first waits for the stop time of each container.
readonly STOP_SECONDS=90
readonly REGISTRY_SECONDS=20

work=
mirror=

say() { printf 'engine: %s\n' "$*"; }

die() {
  printf 'engine: %s\n' "$*" >&2
  exit 1
}

# Runs a command with its output in the log; shows the end of the log if the command fails.
logged() {
  if "$@" </dev/null >>"$STEP_LOG" 2>&1; then return; fi
  tail -n 25 "$STEP_LOG" >&2
  die "failed: $* (log: $STEP_LOG)"
}

# Two runs at the same time would both install, or both start an engine.
take_lock() {
  ((EUID == 0)) || return 0
  exec 9>"$LOCK_FILE"
  flock -w 900 9 || die "another run holds $LOCK_FILE"
}

# --- packages ---

install() {
  say "installing $*"
  # --no-remove: fail rather than remove a package of the user.
  logged env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-remove --no-install-recommends install "$@"
}

# Sets mirror, and makes a scratch folder with apt lists for $RELEASE. The machine's own apt settings stay as they are.
prepare_release() {
  [[ -z $work ]] || return 0
  [[ -r /etc/debian_version ]] || die "this is not Debian: install Docker, Compose 2.24 and Buildx by hand"
  # Not /tmp: it may forbid device files, which debootstrap makes.
  work=$(mktemp -d /var/tmp/chatroom-engine.XXXXXX)
  trap 'umount -q "$work"/tree/{proc,sys} || true; rm -rf --one-file-system "$work"' EXIT
  chmod 755 "$work"
  say "refreshing the apt lists"
  apt-get -q update </dev/null >>"$STEP_LOG" 2>&1 || say "some apt sources failed (log: $STEP_LOG)"
  install debian-archive-keyring
  # shellcheck disable=SC2016 # apt fills in REPO_URI
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' 'Component: main' | sed -n 1p)
  mkdir -p "$work"/lists/partial "$work"/cache/archives/partial
  echo "deb [signed-by=$KEYRING] $mirror $RELEASE main" >"$work/sources.list"
  logged release_apt update
}

release_apt() {
  apt-get -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
    -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" "$@"
}

# Installs a plugin of $RELEASE. Its dependencies come from the machine's own release.
ensure_plugin() { # compose or buildx
  if docker "$1" version >/dev/null 2>&1; then return; fi
  prepare_release
  (cd "$work" && logged release_apt download "docker-$1")
  install "$work/docker-$1"_*.deb
  docker "$1" version >/dev/null || die "docker $1 is installed but does not work"
}

# --- the engine ---

engine_answers() { timeout 20 docker version >/dev/null 2>&1; }

# Prints the process id of the engine that "up" started, if it runs. The id alone proves nothing: another process may have it by now.
own_pid() {
  local pid
  pid=$(cat "$PID_FILE" 2>/dev/null) && grep -qzxF -e "--pidfile=$PID_FILE" "/proc/$pid/cmdline" 2>/dev/null && echo "$pid"
}

ensure_engine() {
  if engine_answers; then return; fi
  if ! command -v dockerd >/dev/null; then
    prepare_release
    install docker.io iptables
    # Debian 12 has no package docker-cli: there docker.io contains the command.
    command -v docker >/dev/null || install docker-cli
  fi
  say "starting the engine (log: $ENGINE_LOG)"
  if [[ -d /run/systemd/system ]]; then systemctl start docker; elif ! own_pid >/dev/null; then start_dockerd; fi
  local deadline=$((SECONDS + START_SECONDS))
  until engine_answers; do
    ((SECONDS < deadline)) || die "the engine does not answer (log: $ENGINE_LOG)"
    sleep 0.5
  done
}

start_dockerd() {
  # After a crash dockerd would wait for the containerd that this file names, even if its id now belongs to another process.
  pgrep -r R,S,D -x containerd >/dev/null || rm -f /run/docker/containerd/containerd.pid
  rm -f "$PID_FILE"
  # Containers inherit this limit, and each chat connection needs a file.
  # In a new session and without inherited descriptors, so that dockerd outlives the terminal and does not keep the lock.
  (
    ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -Hn)"
    cd / && exec setsid dockerd --pidfile="$PID_FILE" </dev/null >>"$ENGINE_LOG" 2>&1 9>&-
  ) &
}

stop_engine() {
  local pid deadline=$((SECONDS + STOP_SECONDS))
  if ! pid=$(own_pid); then
    say "no engine that this script started is running"
    return
  fi
  say "stopping the engine (process $pid)"
  kill -TERM "$pid"
  while own_pid >/dev/null; do
    ((SECONDS < deadline)) || die "process $pid has not ended after $STOP_SECONDS s"
    sleep 0.2
  done
}

# --- the base image ---

image_exists() { docker image inspect "$1" >/dev/null 2>&1; }

# Leaves the base image to `docker build` if it can be pulled; otherwise makes a substitute and names it in .env.
ensure_base_image() {
  if grep -qs '^PYTHON_IMAGE=' .env && image_exists "$(sed -n 's/^PYTHON_IMAGE=//p' .env)"; then return; fi
  if image_exists "$OFFICIAL_IMAGE"; then return; fi
  if ! image_exists "$SUBSTITUTE_IMAGE"; then
    if timeout "$REGISTRY_SECONDS" docker manifest inspect "$OFFICIAL_IMAGE" >/dev/null 2>&1; then return; fi
    build_substitute
  fi
  if grep -qs '^PYTHON_IMAGE=' .env; then die ".env names an image that does not exist: remove PYTHON_IMAGE from it"; fi
  say "adding PYTHON_IMAGE=$SUBSTITUTE_IMAGE to .env, because $OFFICIAL_IMAGE cannot be pulled"
  printf '\nPYTHON_IMAGE=%s\n' "$SUBSTITUTE_IMAGE" >>.env
  chown --reference=. .env
}

build_substitute() {
  prepare_release
  local tree=$work/tree
  install debootstrap
  say "building $SUBSTITUTE_IMAGE from Debian $RELEASE with debootstrap (about a minute)"
  logged env LC_ALL=C debootstrap --variant=minbase --keyring="$KEYRING" \
    --include=python3,python3-venv,ca-certificates "$RELEASE" "$tree" "$mirror"
  # pip in a build needs the certificate authorities of this machine.
  cp -L "$CERTIFICATES" "$tree$CERTIFICATES"
  rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/usr/share/{man,locale,doc}/* \
    "$tree"/etc/{resolv.conf,hostname}
  tar -C "$tree" --numeric-owner --exclude='./dev/*' -c . | docker import \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENV LANG=C.UTF-8' --change "ENV PIP_CERT=$CERTIFICATES" --change 'CMD ["python3"]' \
    - "$SUBSTITUTE_IMAGE" >>"$STEP_LOG"
}

case ${1:-} in
  up)
    take_lock
    ensure_engine
    ensure_plugin compose
    ensure_plugin buildx
    ensure_base_image
    say "the engine, Compose, Buildx and a base image are ready"
    ;;
  down)
    take_lock
    stop_engine
    ;;
  *) die "usage: ops/engine.sh up|down" ;;
esac
