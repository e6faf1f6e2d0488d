CREATE TABLE reset_activations (
    hash    BYTEA  NOT NULL PRIMARY KEY, -- SHA-256 of the activation
    request BYTEA  NOT NULL,
    user_id BYTEA  NOT NULL,
    email   BYTEA,
    expires BIGINT NOT NULL,             -- times are Unix milliseconds
    claim   BYTEA                        -- not NULL: not live
);

CREATE INDEX reset_activations_user ON reset_activations (user_id);

CREATE INDEX reset_activations_expires ON reset_activations (expires);

CREATE TABLE reset_mails (
    id       BYTEA   NOT NULL PRIMARY KEY,
    kind     BYTEA   NOT NULL,
    user_id  BYTEA,                      -- NULL: not bound to a user
    email    BYTEA,                      -- empty strings are NULL
    name     BYTEA,
    locale   BYTEA,
    due      BIGINT  NOT NULL,
    expires  BIGINT  NOT NULL,
    attempts INTEGER NOT NULL,
    lease    BYTEA                       -- NULL: not leased
);

CREATE INDEX reset_mails_due ON reset_mails (due, expires);

CREATE INDEX reset_mails_expires ON reset_mails (expires);

CREATE INDEX reset_mails_user ON reset_mails (user_id) WHERE user_id IS NOT NULL;

CREATE TABLE reset_locks (
    user_id     BYTEA  NOT NULL PRIMARY KEY,
    claim       BYTEA,
    claim_until BIGINT NOT NULL,
    expires     BIGINT NOT NULL          -- from then on the row may be removed
);

CREATE INDEX reset_locks_expires ON reset_locks (expires);
