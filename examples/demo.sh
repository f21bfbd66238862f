#!/bin/sh
# One run of the main job with nothing but this repository: the bundled sample feeds, the free
# digest rung, the outbox. No key, no network, a fresh state folder each time.
set -eu

penstock=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
feeds=$(cd "$(dirname "$0")/feeds" && pwd)
state=$(mktemp -d "${TMPDIR:-/tmp}/penstock-demo.XXXXXX")

# Only what is set here: neither the caller's settings nor a .env shall change the demo.
cd "$state"
run() {
    env -i PATH="$PATH" HOME="$state" LANG="${LANG:-C.UTF-8}" TERM="${TERM:-dumb}" \
        PENSTOCK_STATE_DIR="$state" \
        PENSTOCK_NICHE="small servers, SQLite in production, self-hosting" \
        PENSTOCK_FEEDS="$feeds/millrace.xml,$feeds/sluice.xml,$feeds/backwater.xml" \
        PENSTOCK_FRESH_DAYS=36500 \
        "$penstock" "$@" --env-file "$state/empty.env"
}
: > "$state/empty.env"

run once
article=$(find "$state/outbox" -name '*.md')
echo
echo "── the article: $article"
echo
cat "$article"
echo
echo "── the ledger"
echo
run ledger balance
echo
run ledger check
echo
echo "── penstock status"
echo
run status
echo
echo "Read it in a browser: file://${article%.md}.html"
