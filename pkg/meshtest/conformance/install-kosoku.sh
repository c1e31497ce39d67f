#!/usr/bin/env bash
# Installs kosoku, which runs the Autobahn testsuite's cases, from PyPI into bin/tools/kosoku.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

dir=bin/tools/kosoku
version=0.1.0

fail() { echo "install-kosoku: $*" >&2; exit 1; }

python3 -c 'import ensurepip, venv' 2>/dev/null || fail "Python's venv is missing; install python3-venv"
python3 -m venv --clear "$dir" || fail "python3 -m venv $dir failed"
"$dir/bin/pip" install --quiet --disable-pip-version-check "kosoku==$version" ||
  fail "pip install kosoku==$version failed (it needs Python 3.10; the package exists for Linux, macOS and Windows)"
touch "$dir/bin/kosoku" # newer than this script
