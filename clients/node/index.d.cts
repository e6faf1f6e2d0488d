export interface AuthOptions {
  /** Where the handler is mounted, without "/v1/auth/…": "https://app.example.com". */
  baseURL: string
  /** One of the server's API keys, of 32 characters or more. */
  apiKey: string
  /** How long to wait for an answer, in milliseconds. Defaults to 15,000. */
  timeout?: number
  /** Defaults to the global fetch. */
  fetch?: typeof globalThis.fetch
}

export interface RequestOptions {
  /** How many unredeemed, unexpired requests the user may have. Defaults to the server's setting, commonly 3. */
  maxConcurrentRequestsPerEmail?: number
  /** Whether the caller delivers the activation itself. Defaults to false. */
  preventEmailSending?: boolean
  /** Ends the call early. */
  signal?: AbortSignal
}

export class Auth {
  constructor (options: AuthOptions)

  /**
   * Requests a password reset. The activation takes the account over: never
   * pass it to a browser or a log. It is absent if no user has the address.
   * Rejects with a ResetError.
   */
  requestPasswordReset (email: string, options?: RequestOptions): Promise<{ activation?: string }>

  /**
   * Redeems an activation: changes the password and ends the user's sessions.
   * A refused password leaves the activation valid. Rejects with a ResetError.
   */
  changePasswordUsingRequest (requestId: string, newPassword: string, options?: { signal?: AbortSignal }): Promise<void>
}

export type ErrorCode =
  | 'BAD_REQUEST' | 'UNAUTHORIZED' | 'FORBIDDEN' | 'NOT_FOUND' | 'METHOD_NOT_ALLOWED'
  | 'TOO_MANY_REQUESTS' | 'UNKNOWN_ERROR'
  | 'TIMEOUT' | 'NETWORK_ERROR' | 'UNEXPECTED_ANSWER'

export class ResetError extends Error {
  /** What went wrong: the member "error" of the answer, or why there was none. */
  readonly code: ErrorCode
  /** The status of the answer, if there was one. */
  readonly status?: number
  /** Why a request was refused, for instance "too_short", "common" or "invalid_activation". */
  readonly reason?: string
  /** How many seconds to wait before the next attempt. */
  readonly retryAfter?: number
}
