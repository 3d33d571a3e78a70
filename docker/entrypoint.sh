#!/bin/sh
# Run the command. A mounted folder that is not writable fails here with one line, not after the first epoch.
if [ ! -w /twba/runs ]; then
  echo "error: /twba/runs cannot be written by user $(id -u): run with --user \$(id -u):\$(id -g) of the folder's owner" >&2
  exit 1
fi
exec "$@"
