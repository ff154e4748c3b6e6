#!/usr/bin/env bash
# Prepares a machine for the chat room: a Docker engine, Compose v2, Buildx
# and the base image. Run without an argument for the usage.
set -euo pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly TOP
readonly SETTINGS=$TOP/.env # where docker compose reads PYTHON_IMAGE, too
readonly OFFICIAL_IMAGE=python:3.13-slim
# What is made here where no registry answers. Not the official name: other projects on this machine use that.
readonly STAND_IN=chatroom-base:debootstrap
BASE_IMAGE=${PYTHON_IMAGE:-$(if [[ -r $SETTINGS ]]; then sed -n 's/^PYTHON_IMAGE=//p' "$SETTINGS"; fi)}
BASE_IMAGE=${BASE_IMAGE:-$OFFICIAL_IMAGE}
# The Debian release that carries Compose v2, Buildx and Python 3.13.
readonly RELEASE=trixie
readonly KEYRING_OF_PACKAGE=/usr/share/keyrings/debian-archive-keyring.gpg
readonly HOST_CERTIFICATES=/etc/ssl/certs/ca-certificates.crt

readonly PID_FILE=/run/chatroom-dockerd.pid
readonly LOCK_FILE=/run/chatroom-engine.lock
readonly ENGINE_LOG=/var/log/chatroom-dockerd.log
readonly STEP_LOG=/var/log/chatroom-engine.log
readonly POLICY_FILE=/usr/sbin/policy-rc.d

readonly START_SECONDS=60   # until a started engine has to answer
readonly STOP_SECONDS=90    # dockerd gives each container its stop time first
readonly PULL_SECONDS=20    # until the image registry has to answer
readonly PULL_MAX_SECONDS=900 # for a pull that has begun

WORK=            # scratch folder, removed at the end
POLICY_IS_OURS=  # set while this script's policy-rc.d is in place
LISTS_ARE_FRESH= # set once the machine's apt lists were refreshed
MIRROR=          # the Debian mirror of this machine, see find_archive
KEYRING=         # a keyring that has the key of $RELEASE, see find_archive
ENDING=          # the processes whose end "down" waits for

# Daemons and administration tools may be outside a plain user's PATH.
export PATH="$PATH:/usr/sbin:/sbin"

usage() {
  cat <<USAGE
usage: ops/engine.sh up|down|status|help

  up      make sure that a Docker engine answers, that Compose v2 and Buildx
          work and that the base image $BASE_IMAGE is there; installs and
          starts only what is missing (this needs Debian 12 or newer, and root)
  down    end the engine, if it was "up" that started it; images, volumes and
          installed packages stay
  status  say what there is; exit 0 if the engine, Compose and Buildx work

PYTHON_IMAGE, in the environment or in .env, names another base image. Where no
image registry answers, "up" makes $STAND_IN and puts that into .env.
Logs: $ENGINE_LOG (engine), $STEP_LOG (packages and
base image).
USAGE
}

say() { printf 'engine: %s\n' "$*"; }

die() { # exit code, message
  printf 'engine: %s\n' "$2" >&2
  exit "$1"
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command with a time limit where the machine has timeout(1).
limited() { # seconds, command...
  local seconds=$1
  shift
  if have timeout; then timeout "$seconds" "$@"; else "$@"; fi
}

# Keeps the screen plain: the output of a long step goes to a log.
logged() {
  if "$@" </dev/null >>"$STEP_LOG" 2>&1; then return; fi
  tail -n 25 "$STEP_LOG" >&2
  die 1 "this failed: $* (the lines above end $STEP_LOG)"
}

# shellcheck source=/dev/null
os_value() { (. /etc/os-release && printf '%s' "${!1:-}"); } # ID or VERSION_ID

is_debian() { [[ -r /etc/os-release && $(os_value ID) == debian ]]; }

is_old_debian() { # testing and unstable carry no VERSION_ID
  local version
  version=$(os_value VERSION_ID)
  [[ -n $version ]] && ((version < 12))
}

need_debian_root() { # what is missing
  is_debian || die 2 "$1 is missing and this is not Debian: install it by hand, then run this again"
  ! is_old_debian || die 2 "$1 is missing and this Debian is older than 12: install it by hand, then run this again"
  ((EUID == 0)) || die 2 "$1 is missing: run this as root, for example: sudo ops/engine.sh up"
}

# --- scratch folder and lock -------------------------------------------------

prepare_work() {
  trap cleanup EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  # Not /tmp: it may forbid device files, which debootstrap makes.
  WORK=$(mktemp -d /var/tmp/chatroom-engine.XXXXXX)
  chmod 755 "$WORK" # apt reads it as another user
}

cleanup() {
  release_services
  if [[ -z $WORK ]] || ! unmount_below "$WORK"; then return; fi
  rm -rf "$WORK"
}

# An interrupted debootstrap leaves /proc and /sys mounted in its tree.
unmount_below() {
  [[ -r /proc/mounts ]] || return 0
  local point
  while read -r point; do
    umount "$point" || return 1
  done < <(awk -v top="$1/" 'index($2, top) == 1 { print $2 }' /proc/mounts | sort -r)
}

# Two runs at a time would both install or both start an engine.
take_lock() {
  if ((EUID != 0)) || ! have flock; then return; fi
  exec 9>"$LOCK_FILE"
  flock -n 9 && return
  say "waiting for another run of this script"
  flock -w 900 9 || die 1 "another run of this script holds $LOCK_FILE"
}

# --- apt ---------------------------------------------------------------------

refresh_lists() {
  [[ -z $LISTS_ARE_FRESH ]] || return 0
  say "refreshing the apt lists"
  apt-get -q update </dev/null >>"$STEP_LOG" 2>&1 ||
    say "some apt sources could not be refreshed (see $STEP_LOG); going on with the others"
  LISTS_ARE_FRESH=1
}

# Where no systemd runs, a package must not start its engine itself: "down"
# could not tell that engine from the user's.
hold_services() {
  if [[ -d /run/systemd/system || -e $POLICY_FILE ]]; then return; fi
  POLICY_IS_OURS=1
  printf '#!/bin/sh\nexit 101\n' >"$POLICY_FILE"
  chmod 755 "$POLICY_FILE"
}

release_services() {
  [[ -n $POLICY_IS_OURS ]] || return 0
  rm -f "$POLICY_FILE"
  POLICY_IS_OURS=
}

install_packages() { # package names or .deb files
  hold_services
  # --no-remove: rather fail than take away something of the user's.
  logged env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-remove \
    --no-install-recommends install "$@"
  release_services
  hash -r
}

candidate_version() { # package; prints nothing if apt knows none
  LC_ALL=C apt-cache policy "$1" | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'
}

has_candidate() { # package, lowest version
  local version
  version=$(candidate_version "$1")
  [[ -n $version ]] && dpkg --compare-versions "$version" ge "$2"
}

# --- the Debian archive, as this machine's own apt settings name it ----------

# Sets MIRROR and KEYRING, and leaves a private apt state for $RELEASE.
find_archive() {
  [[ -z $KEYRING ]] || return 0
  refresh_lists
  local entry
  entry=$(archive_entry)
  [[ -n $entry ]] || die 1 "the apt sources of this machine name no Debian mirror"
  MIRROR=$(mirror_address "${entry%% *}")
  local keyring
  keyring=$(configured_keyring "${entry%% *}" "${entry#* }")
  if [[ -r $keyring ]] && refresh_private_lists "$keyring"; then
    KEYRING=$keyring
    return
  fi
  say "installing debian-archive-keyring, for the key of Debian $RELEASE"
  install_packages debian-archive-keyring
  refresh_private_lists "$KEYRING_OF_PACKAGE" ||
    die 1 "Debian $RELEASE cannot be read from this machine's mirror, or its signature is not good (see $STEP_LOG)"
  KEYRING=$KEYRING_OF_PACKAGE
}

# Prints the address of the mirror and the file that names it. The security
# archive and other people's archives carry another label.
archive_entry() {
  # shellcheck disable=SC2016 # apt, not the shell, fills these in
  apt-get indextargets --format '$(REPO_URI) $(SOURCESENTRY)' \
    'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' |
    sed -n '1s/:[0-9]*$//p'
}

# Cloud images name a file with a list of mirrors; debootstrap needs one.
mirror_address() {
  local list=${1#mirror+file:}
  case $1 in
    mirror+file:*) grep -Eom1 'https?://[^[:space:]]+' "${list%/}" | sed -n 1p ;;
    *) printf '%s\n' "$1" ;;
  esac
}

# Prints the keyring that the apt source of this address is signed by.
configured_keyring() { # address, file of the source
  local found
  found=$(awk -v RS= -v address="${1%/}" \
    '{ for (i = 1; i <= NF; i++) { sub("/$", "", $i); if ($i == address) { print; next } } }' "$2" |
    sed -nE 's/.*signed-by[:=][[:space:]]*(\/[^],[:space:]]+).*/\1/Ip' | sed -n 1p)
  printf '%s\n' "${found:-$KEYRING_OF_PACKAGE}"
}

# apt with lists, cache and sources of its own: the user's stay as they are.
private_apt() {
  apt-get -q -o Dir::Etc::sourcelist="$WORK/apt/sources.list" -o Dir::Etc::sourceparts=- \
    -o Dir::State::lists="$WORK/apt/lists" -o Dir::Cache="$WORK/apt/cache" "$@"
}

refresh_private_lists() { # keyring
  mkdir -p "$WORK/apt/lists/partial" "$WORK/apt/cache/archives/partial"
  printf 'deb [signed-by=%s] %s %s main\n' "$1" "$MIRROR" "$RELEASE" >"$WORK/apt/sources.list"
  private_apt -o APT::Update::Error-Mode=any update </dev/null >>"$STEP_LOG" 2>&1
}

# Installs one package of $RELEASE; what it depends on comes from the
# machine's own release, so nothing else moves to the newer one.
install_from_release() { # package
  find_archive
  (cd "$WORK/apt" && logged private_apt download "$1")
  install_packages "$WORK/apt/$1"_*.deb
}

# --- the engine --------------------------------------------------------------

engine_version() { limited 20 docker version --format '{{.Server.Version}}' 2>/dev/null; }

engine_answers() { have docker && engine_version >/dev/null; }

endpoint() {
  printf '%s\n' "${DOCKER_HOST:-$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null)}"
}

# Prints the process id of the engine that this script started, if it lives.
# The id alone is no proof, for it may be in use by another process by now.
own_pid() {
  local pid
  [[ -r $PID_FILE ]] || return 1
  pid=$(<"$PID_FILE")
  [[ $pid =~ ^[0-9]+$ && -r /proc/$pid/cmdline ]] || return 1
  [[ $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]] || return 1
  grep -qzxF -e "--pidfile=$PID_FILE" "/proc/$pid/cmdline" 2>/dev/null || return 1
  printf '%s\n' "$pid"
}

ensure_client() {
  if have docker; then return; fi
  need_debian_root "the docker command"
  refresh_lists
  # Up to Debian 12 the package of the engine carries the command.
  local package=docker.io
  if has_candidate docker-cli 20; then package=docker-cli; fi
  say "installing the docker command: package $package"
  install_packages "$package"
}

ensure_engine() {
  local version
  if version=$(engine_version); then
    say "nothing to do, engine $version answers"
    return
  fi
  check_endpoint
  if ! have dockerd; then
    need_debian_root "a Docker engine"
    refresh_lists
    say "installing a Docker engine: packages docker.io and iptables"
    install_packages docker.io iptables
  fi
  ((EUID == 0)) || die 2 "no Docker engine answers this user: start the one that is installed, or run this as root"
  check_other_dockerd
  start_engine
  say "engine $(engine_version) answers"
}

# A local engine would be no answer to a user who chose another one.
check_endpoint() {
  case $(endpoint) in
    unix:///var/run/docker.sock | unix:///run/docker.sock | '') ;;
    *) die 2 "no engine answers at $(endpoint), which DOCKER_HOST or the docker context names: start it or choose another" ;;
  esac
}

check_other_dockerd() {
  local pid
  pid=$(cat /run/docker.pid 2>/dev/null) || return 0
  [[ $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]] || return 0
  die 1 "a dockerd that this script did not start runs (process $pid) but does not answer: see its log"
}

start_engine() {
  local pid
  if [[ -d /run/systemd/system ]] && systemctl cat docker.service >/dev/null 2>&1; then
    say "starting the engine: systemctl start docker"
    systemctl start docker || die 1 "systemd could not start the engine: see journalctl -u docker"
    wait_for_engine "" || die 1 "the engine does not answer: see journalctl -u docker"
    return
  fi
  if pid=$(own_pid); then
    say "waiting for the dockerd that runs already (process $pid)"
  else
    say "starting the engine: dockerd, log in $ENGINE_LOG"
    launch_dockerd
    pid=$!
  fi
  if wait_for_engine "$pid"; then return; fi
  tail -n 25 "$ENGINE_LOG" >&2
  die 1 "the engine does not answer (the lines above end $ENGINE_LOG)"
}

# A session of its own, no descriptor of ours: dockerd outlives the terminal
# and keeps neither a pipe of "make" nor the lock open.
launch_dockerd() {
  rm -f "$PID_FILE"
  forget_dead_containerd
  (
    cd /
    # Containers inherit this limit, and each chat connection takes a file.
    ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -Hn)"
    exec setsid dockerd --pidfile="$PID_FILE" </dev/null >>"$ENGINE_LOG" 2>&1 9>&-
  ) &
}

# After a crash dockerd would wait in vain for the containerd that this file
# names, if its id is in use by another process or is not yet reaped.
forget_dead_containerd() {
  local file=/run/docker/containerd/containerd.pid pid
  pid=$(cat "$file" 2>/dev/null) || return 0
  if ! grep -q containerd "/proc/$pid/cmdline" 2>/dev/null; then rm -f "$file"; fi
}

wait_for_engine() { # process id, or nothing
  local deadline=$((SECONDS + START_SECONDS))
  until engine_answers; do
    if [[ -n $1 ]] && ! kill -0 "$1" 2>/dev/null; then return 1; fi
    if ((SECONDS >= deadline)); then return 1; fi
    sleep 0.5
  done
}

# --- ending the engine -------------------------------------------------------

# Prints the containerd of our dockerd and its shims, which name its socket.
# Those of an engine inside some container live in another process namespace.
containerd_pids() {
  local pid
  for pid in $(pgrep -f '^([^ ]*/)?containerd(-shim[^ ]*)? .*/run/docker/containerd/' || true); do
    if [[ $(readlink "/proc/$pid/ns/pid") == "$(readlink /proc/self/ns/pid)" ]]; then echo "$pid"; fi
  done
}

# Prints a process and all its descendants.
family() {
  local child
  echo "$1"
  for child in $(pgrep -P "$1" || true); do family "$child"; done
}

ending_pids() {
  local pid
  for pid in $ENDING; do
    if [[ -d /proc/$pid ]]; then echo "$pid"; fi
  done
}

wait_until_gone() { # seconds, function that prints something while they live
  local deadline=$((SECONDS + $1))
  while [[ -n $("$2" || true) ]]; do
    if ((SECONDS >= deadline)); then return 1; fi
    sleep 0.2
  done
}

kill_containerd() {
  local pid member
  say "killing the containerd processes and containers that dockerd left"
  for pid in $(containerd_pids); do
    for member in $(family "$pid"); do kill -KILL "$member" 2>/dev/null || true; done
  done
  wait_until_gone 10 containerd_pids || die 1 "some containerd processes cannot be killed"
}

# dockerd removes its pid file when it ends in order. With the file there and
# no dockerd at all, what is left of an engine is left of ours.
clear_after_crash() {
  # A dockerd that is not reaped yet does not count, hence the states.
  if [[ -e $PID_FILE ]] && ((EUID == 0)) && ! pgrep -r R,S,D,T -x dockerd >/dev/null; then
    say "the engine of this script ended out of order earlier"
    if [[ -n $(containerd_pids) ]]; then kill_containerd; fi
    rm -f "$PID_FILE"
  fi
  say "no engine that this script started runs: nothing to end"
}

stop_engine() {
  local pid
  if ! pid=$(own_pid); then
    clear_after_crash
    return
  fi
  ((EUID == 0)) || die 2 "the engine was started by root: run this as root, for example: sudo ops/engine.sh down"
  say "ending the engine (process $pid); it stops its containers first"
  ENDING=$(family "$pid" && containerd_pids)
  kill -TERM "$pid"
  if ! wait_until_gone "$STOP_SECONDS" own_pid; then
    say "dockerd has not ended after $STOP_SECONDS s: killing it"
    kill -KILL "$pid" 2>/dev/null || true
    wait_until_gone 10 own_pid || die 1 "dockerd (process $pid) cannot be killed"
  fi
  if ! wait_until_gone 10 containerd_pids; then kill_containerd; fi
  # Process 1 of some machines takes a moment to reap what has ended.
  wait_until_gone 5 ending_pids || true
  rm -f "$PID_FILE"
  say "the engine has ended; its images, volumes and packages stay"
}

# --- Compose and Buildx ------------------------------------------------------

plugin_version() { # compose or buildx
  local answer
  answer=$(limited 20 docker "$1" version 2>/dev/null) || return 1
  grep -Eo '[0-9]+\.[0-9]+\.[0-9]+[^ ]*' <<<"$answer" | sed -n 1p
}

ensure_plugin() { # compose or buildx, lowest version
  local version package
  if version=$(plugin_version "$1"); then
    say "nothing to do, $1 $version works"
    return
  fi
  need_debian_root "docker $1"
  if [[ $1 == compose && $(dpkg-query -W -f '${Version}' docker-compose 2>/dev/null) == 1.* ]]; then
    die 2 "docker-compose 1 is installed where version 2 has to go: apt-get remove docker-compose, then run this again"
  fi
  refresh_lists
  # The second name is the one in Docker's own archive, if the user has that.
  for package in "docker-$1" "docker-$1-plugin"; do
    has_candidate "$package" "$2" || continue
    say "installing $1: package $package"
    install_packages "$package"
    check_plugin "$1"
    return
  done
  say "installing $1: package docker-$1 of Debian $RELEASE, without adding an apt source"
  install_from_release "docker-$1"
  check_plugin "$1"
}

check_plugin() {
  plugin_version "$1" >/dev/null || die 1 "docker $1 was installed but does not work: try \"docker $1 version\""
}

# --- the base image ----------------------------------------------------------

image_is_there() { docker image inspect "$1" >/dev/null 2>&1; } # image

ensure_base_image() {
  rename_old_stand_in
  if image_is_there "$BASE_IMAGE"; then
    say "nothing to do, base image $BASE_IMAGE is there"
    return
  fi
  if [[ $BASE_IMAGE != "$STAND_IN" ]]; then
    say "pulling the base image $BASE_IMAGE"
    if pull_base_image; then return; fi
    say "the image registry cannot be reached or lacks it: $(sed -n '$p' "$WORK/pull.log")"
    [[ $BASE_IMAGE == "$OFFICIAL_IMAGE" ]] ||
      die 1 "PYTHON_IMAGE names $BASE_IMAGE, which is not there; without PYTHON_IMAGE, a base image is made here"
  fi
  if ! image_is_there "$STAND_IN"; then build_stand_in; fi
  use_stand_in
}

# Earlier versions gave the stand-in the official image's name.
rename_old_stand_in() {
  [[ $(docker image inspect --format '{{index .Config.Labels "chatroom.base"}}' "$OFFICIAL_IMAGE" 2>/dev/null) == debootstrap ]] ||
    return 0
  docker tag "$OFFICIAL_IMAGE" "$STAND_IN"
  docker rmi "$OFFICIAL_IMAGE" >>"$STEP_LOG"
  say "the stand-in that was called $OFFICIAL_IMAGE is now called $STAND_IN"
}

use_stand_in() {
  if ! grep -q '^PYTHON_IMAGE=' "$SETTINGS" 2>/dev/null; then
    # The last line of a file may lack its end.
    if [[ -s $SETTINGS && -n $(tail -c 1 "$SETTINGS") ]]; then echo >>"$SETTINGS"; fi
    echo "PYTHON_IMAGE=$STAND_IN" >>"$SETTINGS"
    chown --reference="$TOP" "$SETTINGS"
  fi
  say "PYTHON_IMAGE=$STAND_IN stands in $SETTINGS; to undo it, remove that line, and docker rmi $STAND_IN"
}

# The registry has to answer soon; a pull that has begun may take its time.
pull_base_image() {
  local pull begun='' deadline=$((SECONDS + PULL_SECONDS))
  echo "no answer within $PULL_SECONDS s" >"$WORK/pull.log"
  docker pull "$BASE_IMAGE" </dev/null >>"$WORK/pull.log" 2>&1 9>&- &
  pull=$!
  while kill -0 "$pull" 2>/dev/null; do
    if [[ -z $begun ]] && grep -q 'fs layer' "$WORK/pull.log"; then
      begun=1
      deadline=$((SECONDS + PULL_MAX_SECONDS))
    fi
    if ((SECONDS >= deadline)); then kill "$pull" 2>/dev/null || true; fi
    sleep 0.5
  done
  wait "$pull"
}

build_stand_in() {
  need_debian_root "the base image $BASE_IMAGE"
  if ! have debootstrap; then
    refresh_lists
    say "installing debootstrap"
    install_packages debootstrap
  fi
  find_archive
  say "making a base image of Debian $RELEASE with debootstrap (about a minute)"
  make_tree "$WORK/tree"
  copy_certificates "$WORK/tree"
  trim_tree "$WORK/tree"
  import_tree "$WORK/tree"
}

make_tree() { # folder
  local http_proxy=${http_proxy:-} settings
  # debootstrap knows nothing of the proxy in the settings of apt.
  settings=$(apt-config shell http_proxy Acquire::http::Proxy)
  eval "$settings"
  if [[ -n $http_proxy ]]; then export http_proxy; fi
  logged env LC_ALL=C debootstrap --variant=minbase --keyring="$KEYRING" \
    --include=python3,python3-venv,ca-certificates "$RELEASE" "$1" "$MIRROR"
}

# Where the network answers with certificates of its own, pip in a build
# needs the authorities that this machine trusts.
copy_certificates() { # folder
  [[ -s $HOST_CERTIFICATES ]] || return 0
  cp -L "$HOST_CERTIFICATES" "$1$HOST_CERTIFICATES"
  # From here update-ca-certificates in an image takes them up again.
  if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
    mkdir -p "$1/usr/local/share/ca-certificates"
    cp -L /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/"
  fi
}

trim_tree() { # folder
  rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/log/* "$1"/tmp/* \
    "$1"/usr/share/man/* "$1"/usr/share/info/* "$1"/usr/share/locale/* \
    "$1"/etc/resolv.conf "$1"/etc/hostname
  find "$1/usr/share/doc" ! -type d ! -name copyright -delete
  find "$1/usr/share/doc" -type d -empty -delete
}

import_tree() { # folder
  tar -C "$1" --numeric-owner --exclude='./dev/*' -c . | docker import \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENV LANG=C.UTF-8' \
    --change "ENV PIP_CERT=$HOST_CERTIFICATES" \
    --change 'LABEL chatroom.base=debootstrap' \
    --change 'CMD ["python3"]' \
    - "$STAND_IN" >>"$STEP_LOG"
}

# --- commands ----------------------------------------------------------------

up() {
  prepare_work
  take_lock
  ensure_client
  ensure_engine
  ensure_plugin compose 2.24
  ensure_plugin buildx 0
  ensure_base_image
}

down() {
  take_lock
  stop_engine
}

status() {
  local version pid code=0
  if have docker && version=$(engine_version); then
    if pid=$(own_pid); then pid="started by this script (process $pid)"; else pid="not started by this script"; fi
    say "engine $version answers at $(endpoint), $pid"
    if image_is_there "$BASE_IMAGE"; then say "base image $BASE_IMAGE is there"; else say "base image $BASE_IMAGE is missing"; fi
  else
    say "no engine answers"
    code=1
  fi
  local name
  for name in compose buildx; do
    if version=$(plugin_version "$name"); then
      say "$name $version works"
    else
      say "$name is missing"
      code=1
    fi
  done
  return "$code"
}

case ${1:-help} in
  up | down | status) "$1" ;;
  help | -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
