#!/bin/sh
# Run the command; say in one line what a mounted folder lacks instead of failing after the first epoch.
if [ ! -w /twba/runs ]; then
  echo "error: /twba/runs cannot be written by user $(id -u): run with --user \$(id -u):\$(id -g) of the folder's owner" >&2
  exit 1
fi
exec "$@"
