-- +goose Up
CREATE TABLE IF NOT EXISTS reset_schema (id INTEGER NOT NULL PRIMARY KEY, version INTEGER NOT NULL);

CREATE TABLE reset_activations (
    hash    BLOB    NOT NULL PRIMARY KEY, -- SHA-256 of the activation
    request BLOB    NOT NULL,
    user_id BLOB    NOT NULL,
    email   BLOB,
    expires INTEGER NOT NULL,             -- times are Unix milliseconds
    claim   BLOB                          -- not NULL: not live
) WITHOUT ROWID;

CREATE INDEX reset_activations_user ON reset_activations (user_id);

CREATE INDEX reset_activations_expires ON reset_activations (expires);

CREATE TABLE reset_mails (
    id       BLOB    NOT NULL PRIMARY KEY,
    kind     BLOB    NOT NULL,
    user_id  BLOB,                        -- NULL: not bound to a user
    email    BLOB,                        -- empty strings are NULL
    name     BLOB,
    locale   BLOB,
    due      INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    lease    BLOB                         -- NULL: not leased
) WITHOUT ROWID;

CREATE INDEX reset_mails_due ON reset_mails (due, expires);

CREATE INDEX reset_mails_expires ON reset_mails (expires);

CREATE INDEX reset_mails_user ON reset_mails (user_id) WHERE user_id IS NOT NULL;

CREATE TABLE reset_locks (
    user_id     BLOB    NOT NULL PRIMARY KEY,
    claim       BLOB,
    claim_until INTEGER NOT NULL,
    expires     INTEGER NOT NULL          -- from then on the row may be removed
) WITHOUT ROWID;

CREATE INDEX reset_locks_expires ON reset_locks (expires);

INSERT INTO reset_schema (id, version) VALUES (1, 1);

ALTER TABLE reset_activations ADD COLUMN realm BLOB NOT NULL DEFAULT x'';

DROP INDEX reset_activations_user;

CREATE INDEX reset_activations_user ON reset_activations (realm, user_id);

ALTER TABLE reset_mails ADD COLUMN realm BLOB NOT NULL DEFAULT x'';

ALTER TABLE reset_mails ADD COLUMN class INTEGER NOT NULL DEFAULT 0;

UPDATE reset_mails SET kind = CAST('notification' AS BLOB) WHERE kind = CAST('notice' AS BLOB);

DROP INDEX reset_mails_due;

CREATE INDEX reset_mails_due ON reset_mails (realm, class, due, expires);

DROP INDEX reset_mails_user;

CREATE INDEX reset_mails_user ON reset_mails (realm, user_id) WHERE user_id IS NOT NULL;

ALTER TABLE reset_locks RENAME TO reset_locks_1;

DROP INDEX reset_locks_expires;

CREATE TABLE reset_locks (
    realm       BLOB    NOT NULL DEFAULT x'',
    user_id     BLOB    NOT NULL,
    claim       BLOB,
    claim_until INTEGER NOT NULL,
    quiet_until INTEGER NOT NULL DEFAULT 0, -- until then no mail for public requests
    written     INTEGER NOT NULL DEFAULT 0, -- changes with every lock
    expires     INTEGER NOT NULL,           -- from then on the row may be removed
    PRIMARY KEY (realm, user_id)
) WITHOUT ROWID;

CREATE INDEX reset_locks_expires ON reset_locks (expires);

INSERT INTO reset_locks (user_id, claim, claim_until, expires) SELECT user_id, claim, claim_until, expires FROM reset_locks_1;

DROP TABLE reset_locks_1;

CREATE TABLE reset_history ( -- what became of requests and mail; public requests count for budgets
    realm      BLOB    NOT NULL DEFAULT x'',
    user_id    BLOB    NOT NULL,
    id         BLOB    NOT NULL,                   -- of the mail, or of a request without one
    kind       BLOB    NOT NULL,                   -- public, trusted, notification
    requests   INTEGER NOT NULL DEFAULT 1,         -- how many the row is about
    bound      INTEGER NOT NULL DEFAULT 0,         -- a public request, for the user's budget; 0: none
    attempts   INTEGER NOT NULL DEFAULT 0,
    attempted  INTEGER NOT NULL DEFAULT 0,         -- the latest attempt, unless it failed: then 0
    refused    INTEGER NOT NULL DEFAULT 0,         -- by the mail system; 0: never
    refusal    BLOB,                               -- in its words
    outcome    BLOB,                               -- of the mail; NULL: it is queued, was sent at attempted, or there is none
    outcome_at INTEGER NOT NULL DEFAULT 0,
    joined     BLOB,                               -- the request whose link was mailed again
    ends       INTEGER NOT NULL DEFAULT 0,         -- when the link expires
    ending     BLOB,                               -- redeemed, superseded, revoked
    ended      INTEGER NOT NULL DEFAULT 0,
    expires    INTEGER NOT NULL,                   -- from then on the row may be removed
    PRIMARY KEY (realm, user_id, id)
) WITHOUT ROWID;

CREATE INDEX reset_history_expires ON reset_history (expires);

CREATE TABLE reset_realms (
    realm         BLOB    NOT NULL PRIMARY KEY,
    ran           INTEGER NOT NULL, -- when a process last ran Run
    mailer_failed INTEGER NOT NULL, -- when mail last failed there
    base_url      BLOB
) WITHOUT ROWID;

UPDATE reset_schema SET version = 2 WHERE id = 1;

-- +goose Down
DROP TABLE reset_activations;

DROP TABLE reset_mails;

DROP TABLE reset_locks;

DROP TABLE reset_history;

DROP TABLE reset_realms;

DROP TABLE reset_schema;
