#!/usr/bin/env bash
set -Eeo pipefail
if [ "$(id -u)" = '0' ]; then
	mkdir -p "$PGDATA"
	chown postgres "$PGDATA"
	chmod 00700 "$PGDATA"
	exec gosu postgres "$BASH_SOURCE" "$@"
fi
if [ "$1" = check ]; then
	id -un
	stat -c '%a %U:%G %n' "$PGDATA" /var/run/postgresql /var/lib/postgresql
	ls "$PGDATA" /var/lib/postgresql
	exit
fi
exec "$@"
