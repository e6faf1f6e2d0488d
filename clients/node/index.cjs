'use strict'

const defaultTimeout = 15_000 // milliseconds; the server answers within 10 s

/** An error that the server answered, or the reason why there was no answer. */
class ResetError extends Error {
  constructor (message, { code, status, reason, retryAfter, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'ResetError'
    this.code = code
    this.status = status
    this.reason = reason
    this.retryAfter = retryAfter
  }
}

/** The endpoints of one server, with one API key. */
class Auth {
  #base
  #key
  #timeout
  #fetch

  constructor ({ baseURL, apiKey, timeout = defaultTimeout, fetch = globalThis.fetch } = {}) {
    const url = parseURL(baseURL)
    if (url === undefined) {
      throw new TypeError(`baseURL is ${JSON.stringify(baseURL)}, not an http(s) URL without query, fragment and credentials`)
    }
    if (typeof apiKey !== 'string' || apiKey === '') {
      throw new TypeError('apiKey is missing: is its environment variable set?')
    }
    if (typeof timeout !== 'number' || !(timeout > 0)) {
      throw new TypeError('timeout is not a positive number of milliseconds')
    }
    this.#base = url.href.replace(/\/+$/, '')
    this.#key = apiKey
    this.#timeout = timeout
    this.#fetch = fetch
  }

  async requestPasswordReset (email, { maxConcurrentRequestsPerEmail, preventEmailSending, signal } = {}) {
    const answer = await this.#post('/v1/auth/reset-password', {
      email,
      maxRequests: maxConcurrentRequestsPerEmail,
      preventEmailSending
    }, signal)
    return answer.activation === undefined ? {} : { activation: answer.activation }
  }

  async changePasswordUsingRequest (requestId, newPassword, { signal } = {}) {
    await this.#post('/v1/auth/new-password', { requestId, newPassword }, signal)
  }

  async #post (path, body, signal) {
    const timeout = AbortSignal.timeout(this.#timeout)
    let response, text
    try {
      response = await this.#fetch(this.#base + path, {
        method: 'POST',
        headers: { Authorization: this.#key, 'Content-Type': 'application/json' },
        body: JSON.stringify(body),
        redirect: 'error', // a redirect would carry the password elsewhere
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout
      })
      text = await response.text()
    } catch (cause) {
      if (signal?.aborted) throw cause
      if (timeout.aborted) throw new ResetError(`no answer within ${this.#timeout} ms`, { code: 'TIMEOUT', cause })
      throw new ResetError('the server could not be reached', { code: 'NETWORK_ERROR', cause })
    }
    const answer = parseObject(text)
    if (response.ok && answer !== undefined) return answer
    throw new ResetError(answer?.message ?? `unexpected answer with status ${response.status}`, {
      code: answer?.error ?? 'UNEXPECTED_ANSWER',
      status: response.status,
      reason: response.headers.get('Reset-Reason') ?? undefined,
      retryAfter: seconds(response.headers.get('Retry-After'))
    })
  }
}

function parseURL (s) {
  if (typeof s !== 'string' || !URL.canParse(s)) return undefined
  const url = new URL(s)
  const plain = url.search === '' && url.hash === '' && url.username === '' && url.password === ''
  return plain && /^https?:$/.test(url.protocol) ? url : undefined
}

function parseObject (text) {
  try {
    const value = JSON.parse(text)
    return value !== null && typeof value === 'object' ? value : undefined
  } catch {
    return undefined
  }
}

function seconds (header) {
  return header !== null && /^\d+$/.test(header) ? Number(header) : undefined
}

module.exports = { Auth, ResetError }
