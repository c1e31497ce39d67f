#!/usr/bin/env bash
# Installs the servers of this package from Debian: PostgreSQL and MariaDB, for `make saga-databases` and `make bench-sagas`. What is there
# already stays as it is.
set -euo pipefail
PATH=$PATH:/usr/sbin:/usr/local/sbin

fail() { echo "dbserver/install.sh: $*" >&2; exit 1; }

# Debian keeps PostgreSQL's programs out of PATH, a directory for each version.
postgresql() { command -v initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1; }

missing=()
[[ -n $(postgresql) ]] || missing+=(postgresql)
# The core is the server without the service and its database. What makes a database needs a program of the client's.
for entry in mariadbd=mariadb-server-core my_print_defaults=mariadb-client-core; do
  command -v "${entry%%=*}" >/dev/null || missing+=("${entry#*=}")
done

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
  if [[ -d /run/systemd/system && " ${missing[*]} " == *" postgresql "* ]]; then
    echo "Debian starts PostgreSQL as a service; the tests do not need it:"
    echo "  systemctl disable --now postgresql"
  fi
fi

[[ -n $(postgresql) ]] || fail "initdb is still missing; is postgresql installed?"
printf '%-10s %s\n' PostgreSQL "$(postgresql)"
printf '%-10s %s\n' MariaDB "$(command -v mariadbd)" || fail "mariadbd is still missing; is mariadb-server-core installed?"
