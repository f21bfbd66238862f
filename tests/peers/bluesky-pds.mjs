// bluesky-pds.mjs - run a real Bluesky Personal Data Server, plus an
// in-memory PLC directory, on loopback, as the peer of an integration test.
//
//   node bluesky-pds.mjs <workdir> [options]
//
//   <workdir>            holds node_modules with @atproto/dev-env installed;
//                        repos and blobs go to a new folder in TMPDIR, since
//                        the PLC directory forgets its accounts
//   --port N             PDS port            (default 0: a free one)
//   --plc-port N         PLC port            (default 0: a free one)
//   --account h:pw       create this account; repeatable. h without a dot
//                        gets ".test" appended
//   --rate-limits        switch the PDS's own rate limiter on (429 answers)
//   --appview            also start the AppView (real like and repost counts,
//                        feeds, profiles); needs DB_POSTGRES_URL (an empty
//                        database) and REDIS_HOST (host:port) in the environment
//   --appview-port N     AppView port        (default 0: a free one)
//
// When all is up, one JSON line is printed on stdout:
//   {"ready":true,"pid":1,"pds":"http://...","plc":"http://...","appview":null,"accounts":[...]}
// SIGTERM or SIGINT stops both servers and exits 0.
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

// ---- arguments ---------------------------------------------------------
const argv = process.argv.slice(2)
const workdir = path.resolve(argv.shift() ?? '.')
const opt = { port: 0, plcPort: 0, accounts: [], rateLimits: false, appview: false, appviewPort: 0 }
while (argv.length) {
  const a = argv.shift()
  if (a === '--port') opt.port = Number(argv.shift())
  else if (a === '--plc-port') opt.plcPort = Number(argv.shift())
  else if (a === '--account') opt.accounts.push(argv.shift())
  else if (a === '--rate-limits') opt.rateLimits = true
  else if (a === '--appview') opt.appview = true
  else if (a === '--appview-port') opt.appviewPort = Number(argv.shift())
  else throw new Error(`unknown option ${a}`)
}

// ---- loopback only -----------------------------------------------------
// The servers call listen(port) with no host, which means every interface.
// Give such calls a loopback host before any server module is loaded.
const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (...args) {
  if (typeof args[0] === 'number' && typeof args[1] !== 'string') {
    args.splice(1, 0, '127.0.0.1')
  } else if (args[0] && typeof args[0] === 'object' && 'port' in args[0]) {
    args[0] = { host: '127.0.0.1', ...args[0] }
  }
  return listen.apply(this, args)
}

const freePort = () =>
  new Promise((resolve, reject) => {
    const s = net.createServer()
    s.once('error', reject)
    s.listen(0, () => {
      const { port } = s.address()
      s.close(() => resolve(port))
    })
  })

// ---- servers -----------------------------------------------------------
// Resolve the package from the work dir, not from where this script lies.
const require = createRequire(path.join(workdir, 'package.json'))
const load = (name) => import(pathToFileURL(require.resolve(name)).href)
const { TestNetwork, TestNetworkNoAppView } = await load('@atproto/dev-env')

const data = fs.mkdtempSync(path.join(os.tmpdir(), 'pds-'))
fs.mkdirSync(path.join(data, 'repos'), { recursive: true })
fs.mkdirSync(path.join(data, 'blobs'), { recursive: true })

const plc = { port: opt.plcPort || (await freePort()) }
const pds = { port: opt.port || (await freePort()), rateLimitsEnabled: opt.rateLimits }
let network
if (opt.appview) {
  // Here the PDS options are used for a second, short-lived PDS too, so the
  // two may not be given one data directory: let them choose (TMPDIR).
  network = await TestNetwork.create({
    plc,
    pds,
    bsky: { port: opt.appviewPort || (await freePort()) },
    dbPostgresSchema: 'it',
  })
} else {
  network = await TestNetworkNoAppView.create({
    plc,
    pds: {
      ...pds,
      dataDirectory: path.join(data, 'repos'),
      blobstoreDiskLocation: path.join(data, 'blobs'),
    },
  })
}

// ---- accounts ----------------------------------------------------------
const accounts = []
for (const spec of opt.accounts) {
  const cut = spec.indexOf(':')
  const name = spec.slice(0, cut)
  const password = spec.slice(cut + 1)
  const handle = name.includes('.') ? name : `${name}.test`
  const res = await fetch(`${network.pds.url}/xrpc/com.atproto.server.createAccount`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ handle, password, email: `${name}@example.test` }),
  })
  const body = await res.json()
  if (!res.ok) throw new Error(`createAccount ${handle}: ${res.status} ${JSON.stringify(body)}`)
  accounts.push({ handle, did: body.did, password })
}

console.log(
  JSON.stringify({
    ready: true,
    pid: process.pid,
    pds: network.pds.url,
    plc: network.plc.url,
    appview: network.bsky?.url ?? null,
    accounts,
  }),
)

let stopping = false
const stop = async () => {
  if (stopping) return
  stopping = true
  // Closing waits for idle keep-alive connections; do not wait for ever.
  setTimeout(() => process.exit(0), 3000).unref()
  await network.close().catch(() => {})
  process.exit(0)
}
process.on('SIGTERM', stop)
process.on('SIGINT', stop)
