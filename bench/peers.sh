#!/usr/bin/env bash
# Installs the peer servers of `make bench` on a Debian machine. Run it as root. No peer is started, now or at boot.
set -euo pipefail

PEERS=(nats-server inspircd ngircd mosquitto)
# Debian runs this program before it starts a service; exit code 101 means no.
POLICY=/usr/sbin/policy-rc.d

if [[ $(id -u) != 0 ]]; then
  echo "bench/peers.sh: installing packages needs root" >&2
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
