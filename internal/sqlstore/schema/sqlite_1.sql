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
