CREATE TABLE IF NOT EXISTS reset_schema (id INTEGER NOT NULL PRIMARY KEY, version INTEGER NOT NULL);

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

INSERT INTO reset_schema (id, version) VALUES (1, 1);

ALTER TABLE reset_activations ADD COLUMN realm BYTEA NOT NULL DEFAULT '';

DROP INDEX reset_activations_user;

CREATE INDEX reset_activations_user ON reset_activations (realm, user_id);

ALTER TABLE reset_mails ADD COLUMN realm BYTEA NOT NULL DEFAULT '', ADD COLUMN class INTEGER NOT NULL DEFAULT 0;

UPDATE reset_mails SET kind = 'notification' WHERE kind = 'notice';

DROP INDEX reset_mails_due;

CREATE INDEX reset_mails_due ON reset_mails (realm, class, due, expires);

ALTER TABLE reset_locks
    ADD COLUMN realm       BYTEA  NOT NULL DEFAULT '',
    ADD COLUMN quiet_until BIGINT NOT NULL DEFAULT 0, -- until then no mail for public requests
    ADD COLUMN written     BIGINT NOT NULL DEFAULT 0, -- changes with every lock
    DROP CONSTRAINT reset_locks_pkey,
    ADD PRIMARY KEY (realm, user_id);

CREATE TABLE reset_history ( -- what became of requests and mail; public requests count for budgets
    realm      BYTEA   NOT NULL DEFAULT '',
    user_id    BYTEA   NOT NULL,
    id         BYTEA   NOT NULL,                   -- of the mail, or of a request without one
    kind       BYTEA   NOT NULL,                   -- public, trusted, notification
    requests   INTEGER NOT NULL DEFAULT 1,         -- how many the row is about
    bound      BIGINT  NOT NULL DEFAULT 0,         -- a public request, for the user's budget; 0: none
    attempts   INTEGER NOT NULL DEFAULT 0,
    attempted  BIGINT  NOT NULL DEFAULT 0,         -- the latest attempt, unless it failed: then 0
    refused    BIGINT  NOT NULL DEFAULT 0,         -- by the mail system; 0: never
    refusal    BYTEA,                              -- in its words
    outcome    BYTEA,                              -- of the mail; NULL: it is queued, was sent at attempted, or there is none
    outcome_at BIGINT  NOT NULL DEFAULT 0,
    joined     BYTEA,                              -- the request whose link was mailed again
    ends       BIGINT  NOT NULL DEFAULT 0,         -- when the link expires
    ending     BYTEA,                              -- redeemed, superseded, revoked
    ended      BIGINT  NOT NULL DEFAULT 0,
    expires    BIGINT  NOT NULL,                   -- from then on the row may be removed
    PRIMARY KEY (realm, user_id, id)
);

CREATE INDEX reset_history_expires ON reset_history (expires);

CREATE TABLE reset_realms (
    realm         BYTEA  NOT NULL PRIMARY KEY,
    ran           BIGINT NOT NULL, -- when a process last ran Run
    mailer_failed BIGINT NOT NULL, -- when mail last failed there
    base_url      BYTEA
);

UPDATE reset_schema SET version = 2 WHERE id = 1;
