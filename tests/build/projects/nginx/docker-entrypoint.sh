#!/bin/sh
set -e
for f in /docker-entrypoint.d/*; do
    case "$f" in *.sh) [ ! -x "$f" ] || "$f" ;; esac
done
exec "$@"
