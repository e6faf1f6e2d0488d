// The client against the demo host, as a back end would use it.
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import http from 'node:http'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Auth, ResetError } from '@gopassreset/client'

const apiKey = 'Kz4v0bQm8TnYx2RsWc7JdLh5PgUa9EfB'
const alice = 'alice@example.com'
const bob = 'bob@example.com'

let dir, host, baseURL, auth

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'reset-client-'))
  const program = join(dir, 'example')
  const built = spawnSync('go', ['build', '-o', program, '.'], { cwd: new URL('../../../example', import.meta.url), encoding: 'utf8' })
  assert.equal(built.status, 0, built.stderr)
  host = spawn(program, ['-addr', '127.0.0.1:0', '-api-key', apiKey, '-db', join(dir, 'demo.db')])
  let output = ''
  for await (const chunk of host.stdout) {
    output += chunk
    baseURL = /Contract\s+(\S+)\/v1\/auth\/\n/.exec(output)?.[1]
    if (baseURL) break
  }
  assert.ok(baseURL, `the demo host did not start: ${output}`)
  auth = new Auth({ baseURL, apiKey })
})

after(async () => {
  if (host?.exitCode === null) {
    host.kill('SIGTERM')
    await once(host, 'exit')
  }
  if (dir) await rm(dir, { recursive: true })
})

// rejects returns the ResetError that a promise is rejected with.
async function rejects (promise, want) {
  let error
  try { await promise } catch (e) { error = e }
  assert.ok(error instanceof ResetError, `got ${error}, want a ResetError`)
  for (const [name, value] of Object.entries(want)) assert.equal(error[name], value, name)
  return error
}

// answering serves one canned answer.
async function answering (t, handler) {
  const server = http.createServer(handler)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => { server.closeAllConnections(); server.close() })
  return `http://127.0.0.1:${server.address().port}`
}

describe('requestPasswordReset', () => {
  test('returns an activation for a user', async () => {
    const { activation } = await auth.requestPasswordReset(alice, { maxConcurrentRequestsPerEmail: 3, preventEmailSending: false })
    assert.match(activation, /^[A-Za-z0-9_-]{23}[A-Za-z0-9]$/)
  })

  test('returns an object without one for nobody', async () => {
    assert.deepEqual(await auth.requestPasswordReset('nobody@example.com'), {})
  })

  test('rejects over the cap, with the time to wait', async () => {
    await auth.requestPasswordReset(bob, { maxConcurrentRequestsPerEmail: 1, preventEmailSending: true })
    const error = await rejects(auth.requestPasswordReset(bob, { maxConcurrentRequestsPerEmail: 1 }), { code: 'TOO_MANY_REQUESTS', status: 429 })
    assert.ok(error.retryAfter > 3000 && error.retryAfter <= 3600, `retryAfter is ${error.retryAfter}`)
  })

  test('rejects a malformed address and options', async () => {
    const want = { code: 'BAD_REQUEST', status: 400, message: 'One or more body params are invalid.' }
    await rejects(auth.requestPasswordReset('not an address'), want)
    await rejects(auth.requestPasswordReset(undefined), want)
    await rejects(auth.requestPasswordReset(alice, { maxConcurrentRequestsPerEmail: 0 }), want)
    await rejects(auth.requestPasswordReset(alice, { preventEmailSending: 'yes' }), want)
  })
})

describe('changePasswordUsingRequest', () => {
  test('changes the password once', async () => {
    const { activation } = await auth.requestPasswordReset(alice, { maxConcurrentRequestsPerEmail: 100, preventEmailSending: true })
    await rejects(auth.changePasswordUsingRequest(activation, 'short'), { code: 'BAD_REQUEST', reason: 'too_short' })
    assert.equal(await auth.changePasswordUsingRequest(activation, 'a new secret of mine'), undefined)
    await rejects(auth.changePasswordUsingRequest(activation, 'a new secret of mine'), { code: 'BAD_REQUEST', reason: 'invalid_activation' })
  })

  test('rejects an unknown activation', async () => {
    await rejects(auth.changePasswordUsingRequest('AbCdEfGhIjKlMnOpQrStUvWx', 'a new secret of mine'), { code: 'BAD_REQUEST', status: 400 })
  })
})

describe('errors', () => {
  test('a wrong key', async () => {
    await rejects(new Auth({ baseURL, apiKey: apiKey + 'x' }).requestPasswordReset(alice), { code: 'UNAUTHORIZED', status: 401 })
  })

  test('a server that is not there', async () => {
    await rejects(new Auth({ baseURL: 'http://127.0.0.1:1', apiKey }).requestPasswordReset(alice), { code: 'NETWORK_ERROR', status: undefined })
  })

  test('a server that does not answer', async t => {
    const silent = await answering(t, () => {})
    await rejects(new Auth({ baseURL: silent, apiKey, timeout: 50 }).requestPasswordReset(alice), { code: 'TIMEOUT' })
  })

  test('a caller that gives up', async t => {
    const silent = await answering(t, () => {})
    const signal = AbortSignal.abort(new Error('enough'))
    await assert.rejects(new Auth({ baseURL: silent, apiKey }).requestPasswordReset(alice, { signal }), /enough/)
  })

  test('an answer of something else', async t => {
    const proxy = await answering(t, (_, response) => { response.statusCode = 502; response.end('<h1>Bad gateway</h1>') })
    await rejects(new Auth({ baseURL: proxy, apiKey }).requestPasswordReset(alice), { code: 'UNEXPECTED_ANSWER', status: 502 })
    const page = await answering(t, (_, response) => response.end('<h1>Welcome</h1>'))
    await rejects(new Auth({ baseURL: page, apiKey }).requestPasswordReset(alice), { code: 'UNEXPECTED_ANSWER', status: 200 })
  })

  test('a redirect is not followed', async t => {
    let followed = false
    const away = await answering(t, (request, response) => {
      followed ||= request.url === '/elsewhere'
      response.writeHead(307, { Location: '/elsewhere' }).end()
    })
    await rejects(new Auth({ baseURL: away, apiKey }).requestPasswordReset(alice), { code: 'NETWORK_ERROR' })
    assert.equal(followed, false)
  })
})

describe('options', () => {
  test('mistakes are found at once', () => {
    for (const baseURL of [undefined, '', 'app.example.com', 'ftp://example.com', 'https://u:p@example.com', 'https://example.com/?a']) {
      assert.throws(() => new Auth({ baseURL, apiKey }), /baseURL is/, String(baseURL))
    }
    assert.throws(() => new Auth({ baseURL, apiKey: undefined }), /apiKey is missing/)
    assert.throws(() => new Auth({ baseURL, apiKey, timeout: 0 }), /timeout is not/)
  })

  test('a path and a slash at the end of baseURL are kept and dropped', async t => {
    let url
    const server = await answering(t, (request, response) => { url = request.url; response.end('{"message":"ok"}') })
    await new Auth({ baseURL: server + '/api/', apiKey }).requestPasswordReset(alice)
    assert.equal(url, '/api/v1/auth/reset-password')
  })

  test('CommonJS gets the same classes', () => {
    const client = createRequire(import.meta.url)('@gopassreset/client')
    assert.equal(client.Auth, Auth)
    assert.equal(client.ResetError, ResetError)
  })
})
