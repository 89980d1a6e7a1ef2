#!/bin/sh
set -e
if [ "$1" = check ]; then
    shift
    id -un
    pwd
    exec python3 -c 'import app; print(app.page("world"))'
fi
exec "$@"
