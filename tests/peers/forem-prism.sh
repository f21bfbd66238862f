#!/bin/sh
# forem-prism.sh - serve Forem's own OpenAPI document with Prism, which checks
# every request against it, as the peer of a Dev.to client under test.
#
#   forem-prism.sh <workdir> install               nothing to do where it is
#   forem-prism.sh <workdir> have                  exits 0 where it is, and whole
#   forem-prism.sh <workdir> run <api_v1.json> [port]
#
# 'run' makes a prepared copy of the document in <workdir>/prism (see below), and
# serves it on 127.0.0.1:port (default 4010) until SIGTERM.  It prints one JSON
# line with the base URL when it is ready.
#
# The document as published is too loose, and in places wrong, for a contract
# test; the copy differs in these ways only:
#   - paths get the "/api" that the public server has before them;
#   - answers also exist as application/vnd.forem.api-v1+json, the media type
#     that clients are asked to send in Accept;
#   - a body must have article.title and article.body_markdown (on POST) and
#     may hold no field that neither the document nor the server's code names
#     (the code also permits published_at, language and ai_disclosure_level);
#   - tags: the document says one string, the server's code takes a list and
#     drops a bare string, so both pass here (PRISM_TAGS=list or =string
#     narrows it); at most four, each of at most 30 letters and digits;
#   - canonical_url and main_image are absolute http(s) URLs; a title has at
#     most 128 characters;
#   - writes may answer 429 with Retry-After (header "Prefer: code=429").
set -eu
here=$(dirname "$(realpath "$0")")
work=$(realpath -m "${1:?work dir}")
verb=${2:?install, have or run}
. "$here/node.sh"
prism=5.14.2
# It has a folder of its own in there, beside Bluesky's node_modules.
prism_work=$work/prism
# Written when all of it is there, so that half an installation is none.
whole=$prism_work/.whole
pins="prism $prism"

have() { use_node && [ "$(cat "$whole" 2>/dev/null)" = "$pins" ]; }

case $verb in
have)
    have
    exit
    ;;
install)
    if have; then echo "$pins is there"; exit; fi
    install_node
    mkdir -p "$prism_work"
    cd "$prism_work"
    [ -f package.json ] || echo '{"private":true}' > package.json
    npm install --no-audit --no-fund --loglevel=error "@stoplight/prism-cli@$prism" >&2
    node node_modules/.bin/prism --version >/dev/null
    echo "$pins" > "$whole"
    echo "installed $pins on node $(node --version)"
    exit
    ;;
run) ;;
*) echo "unknown verb $verb" >&2; exit 2 ;;
esac

spec=$(realpath "${3:?OpenAPI document}")
port=${4:-4010}
use_node
cd "$prism_work"

python3 - "$spec" forem-strict.json <<'PY'
import copy, json, os, sys
doc = json.load(open(sys.argv[1]))
VND = 'application/vnd.forem.api-v1+json'
METHODS = {'get', 'post', 'put', 'delete', 'patch'}

doc['paths'] = {p if p.startswith('/api/') else '/api' + p: ops for p, ops in doc['paths'].items()}
doc['servers'] = [{'url': '/'}]

article = doc['components']['schemas']['Article']
article['additionalProperties'] = False
article['required'] = ['article']
inner = article['properties']['article']
inner['additionalProperties'] = False
fields = inner['properties']
tag = '[A-Za-z0-9]{1,30}'
as_string = {'type': 'string', 'pattern': rf'^\s*({tag}(\s*,\s*{tag}){{0,3}})?\s*$'}
as_list = {'type': 'array', 'maxItems': 4, 'items': {'type': 'string', 'pattern': f'^{tag}$'}}
fields['tags'] = {'list': as_list, 'string': as_string}.get(
    os.environ.get('PRISM_TAGS', ''), {'anyOf': [as_list, as_string]})
for name in ('canonical_url', 'main_image'):
    fields[name]['pattern'] = r'^https?://[^\s/]+'
fields['title'].update(minLength=1, maxLength=128)
fields['published_at'] = {'type': 'string', 'format': 'date-time'}
fields['language'] = {'type': 'string', 'pattern': '^[a-z]{2}$'}
fields['ai_disclosure_level'] = {
    'type': 'string', 'enum': ['not_disclosed', 'no_ai', 'some_ai', 'fully_autonomous']}

limited = {
    'description': 'too many requests',
    'headers': {'Retry-After': {'schema': {'type': 'integer', 'enum': [30]}}},
    'content': {'application/json': {'example': {'error': 'Rate limit reached, try again in 30 seconds', 'status': 429}}},
}
for path, ops in doc['paths'].items():
    for method, op in ops.items():
        if method not in METHODS:
            continue
        if 'requestBody' in op:
            op['requestBody']['required'] = True
            op['responses'].setdefault('429', copy.deepcopy(limited))
        for answer in op['responses'].values():
            content = answer.get('content', {})
            if 'application/json' in content:
                content[VND] = copy.deepcopy(content['application/json'])

create = copy.deepcopy(article)
create['properties']['article']['required'] = ['title', 'body_markdown']
doc['components']['schemas']['ArticleCreate'] = create
doc['paths']['/api/articles']['post']['requestBody']['content']['application/json']['schema'] = {
    '$ref': '#/components/schemas/ArticleCreate'}
json.dump(doc, open(sys.argv[2], 'w'), indent=1)
PY

# The last run's word that it listens is not to be taken for this one's.
rm -f prism.log
node node_modules/.bin/prism mock --errors -h 127.0.0.1 -p "$port" forem-strict.json > prism.log 2>&1 &
pid=$!
trap 'kill $pid 2>/dev/null; wait $pid 2>/dev/null; exit 0' TERM INT
i=0
until grep -qs 'Prism is listening' prism.log; do
    i=$((i+1))
    { [ $i -lt 150 ] && kill -0 $pid 2>/dev/null; } || { cat prism.log >&2; kill $pid 2>/dev/null; exit 1; }
    sleep 0.2
done
echo "{\"ready\":true,\"url\":\"http://127.0.0.1:$port/api\",\"pid\":$pid}"
wait $pid
