import client from './index.cjs'

export const { Auth, ResetError } = client
