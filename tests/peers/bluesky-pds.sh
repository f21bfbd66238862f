#!/bin/sh
# bluesky-pds.sh - install what a local Bluesky network needs, and run it.
#
#   bluesky-pds.sh <workdir> install               nothing to do where it is
#   bluesky-pds.sh <workdir> have                  exits 0 where it is, and whole
#   bluesky-pds.sh <workdir> run [options of bluesky-pds.mjs]
#   bluesky-pds.sh <workdir> run-appview [options]    the same plus AppView;
#                          starts its own PostgreSQL and Redis on loopback
#
# 'run' prints one JSON line when ready and ends on SIGTERM.  tests/peers/pds.py
# is how the tests use it.  What the servers store goes to PEERS_TMP, which the
# caller removes (default <workdir>/tmp).
set -eu

dev_env=0.6.7
here=$(dirname "$(realpath "$0")")
work=$(realpath -m "${1:?work dir}")
verb=${2:?install, have, run or run-appview}
shift 2
. "$here/node.sh"
# Written when all of it is there, so that half an installation is none.
whole=$work/.whole
pins="dev-env $dev_env"

have() { use_node && [ "$(cat "$whole" 2>/dev/null)" = "$pins" ]; }

case $verb in
have)
    have
    ;;
install)
    if have; then echo "$pins is there"; exit; fi
    mkdir -p "$work/tmp"
    install_node
    cd "$work"
    [ -f package.json ] || echo '{"private":true,"type":"module"}' > package.json
    # The one native module is compiled here when no ready-made binary can be
    # downloaded (gcc, make and python3 needed; about a minute).
    npm install --no-audit --no-fund --loglevel=error "@atproto/dev-env@$dev_env" >&2
    node -e 'new (require("better-sqlite3"))(":memory:").prepare("select 1").get()'
    echo "$pins" > "$whole"
    echo "installed $pins on node $(node --version)"
    ;;
run)
    use_node
    cd "$work"
    export LOG_ENABLED="${LOG_ENABLED:-false}" TMPDIR="${PEERS_TMP:-$work/tmp}"
    exec node "$here/bluesky-pds.mjs" "$work" "$@"
    ;;
run-appview)
    use_node
    pgbin=$(dirname "$(find /usr/lib/postgresql -name initdb | sort -V | tail -1)")
    pgport=${PGPORT:-54329}
    redisport=${REDISPORT:-63799}
    as=; [ "$(id -u)" -ne 0 ] || as="setpriv --reuid=postgres --regid=postgres --clear-groups"
    pg=$(mktemp -d "${TMPDIR:-/tmp}/bsky-pg.XXXXXX")     # where postgres may enter
    [ -z "$as" ] || chown postgres "$pg"
    cd "$pg"
    $as "$pgbin/initdb" -D "$pg/data" -A trust -U postgres -N >/dev/null
    $as "$pgbin/pg_ctl" -D "$pg/data" -w -l "$pg/log" -o "-c listen_addresses=127.0.0.1 -p $pgport -c unix_socket_directories=$pg -c fsync=off -c synchronous_commit=off -c full_page_writes=off" start >/dev/null
    redis-server --bind 127.0.0.1 --port "$redisport" --save '' --appendonly no --dir "$pg" >/dev/null &
    redis=$!
    psql -q -h 127.0.0.1 -p "$pgport" -U postgres -c 'create database bsky'
    cd "$work"
    export LOG_ENABLED="${LOG_ENABLED:-false}" TMPDIR="${PEERS_TMP:-$work/tmp}" \
        DB_POSTGRES_URL="postgres://postgres@127.0.0.1:$pgport/bsky" REDIS_HOST="127.0.0.1:$redisport"
    node "$here/bluesky-pds.mjs" "$work" --appview "$@" &
    net=$!
    trap 'kill $net 2>/dev/null' TERM INT
    wait $net || true       # ends early when the trap runs ...
    wait $net || true       # ... so wait until it is really gone
    kill $redis; wait $redis 2>/dev/null || true
    $as "$pgbin/pg_ctl" -D "$pg/data" -m immediate stop >/dev/null
    rm -rf "$pg"
    ;;
*) echo "unknown verb $verb" >&2; exit 2 ;;
esac
