#!/bin/sh
echo "listens on ${NGINX_PORT:-80}"
