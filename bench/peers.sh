#!/usr/bin/env bash
# Installs what `make bench` measures beside, on a Debian machine, as root. None of it is started, now or at the next boot.
set -euo pipefail

PEERS=(nats-server inspircd ngircd mosquitto)
# Debian asks this program whether a service may be started; 101 is no.
POLICY=/usr/sbin/policy-rc.d

if [[ $(id -u) != 0 ]]; then
  echo "bench/peers.sh: Packages are installed as root." >&2
  exit 1
fi
if [[ ! -e $POLICY ]]; then
  trap 'rm -f "$POLICY"' EXIT
  printf '#!/bin/sh\nexit 101\n' > "$POLICY"
  chmod 755 "$POLICY"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-install-recommends gcc libc6-dev "${PEERS[@]}"
if [[ -d /run/systemd/system ]]; then
  systemctl disable --now "${PEERS[@]}"
fi
