#!/bin/sh
# install.sh - install every peer that comes from the npm registry, and say aloud
# what a test run will lack.  Nothing to do where all is there.
#
# They go to PENSTOCK_PEERS_DIR (default ~/.cache/penstock-peers), as
# tests/peers/install.py has it.  Exits 1 where a peer cannot be had.
set -u
here=$(dirname "$(realpath "$0")")
folder=${PENSTOCK_PEERS_DIR:-$HOME/.cache/penstock-peers}
lacking=0

# The first tries fail on a network's bad minute, the last one on a reason.
try() {
    for pause in 5 20 0; do
        timeout 600 sh "$@" && return
        [ "$pause" -eq 0 ] || { echo "again in $pause s: $*" >&2; sleep "$pause"; }
    done
    return 1
}

missing() { echo "WARNING: $1: NOT RUN" >&2; lacking=1; }

for program in node npm; do
    command -v "$program" >/dev/null || { missing "there is no $program: Bluesky's PDS and Prism"; exit 1; }
done
try "$here/bluesky-pds.sh" "$folder" install || missing "Bluesky's PDS cannot be installed"
try "$here/forem-prism.sh" "$folder" install || missing "Prism cannot be installed"
{ command -v redis-server && find /usr/lib/postgresql -name initdb | grep .; } >/dev/null 2>&1 ||
    missing "postgresql and redis-server are not on this machine: Bluesky's AppView"
exit "$lacking"
