#!/bin/sh
cat /token.mode
ls -A /tmp /var/cache/apt/archives
exec /opt/app/bin/python -c 'import itsdangerous; print(itsdangerous.Signer("k").sign("v"))'
