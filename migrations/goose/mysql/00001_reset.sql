-- +goose Up
CREATE TABLE IF NOT EXISTS reset_schema (id INTEGER NOT NULL PRIMARY KEY, version INTEGER NOT NULL);

CREATE TABLE IF NOT EXISTS reset_activations (
    hash    BINARY(32)     NOT NULL PRIMARY KEY, -- SHA-256 of the activation
    request BINARY(16)     NOT NULL,
    user_id VARBINARY(255) NOT NULL,
    email   BLOB,
    expires BIGINT         NOT NULL,             -- times are Unix milliseconds
    claim   BINARY(16),                          -- not NULL: not live
    INDEX reset_activations_user (user_id),
    INDEX reset_activations_expires (expires)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS reset_mails (
    id       BINARY(16)    NOT NULL PRIMARY KEY,
    kind     VARBINARY(32) NOT NULL,
    user_id  VARBINARY(255),                     -- NULL: not bound to a user
    email    BLOB,                               -- empty strings are NULL
    name     BLOB,
    locale   BLOB,
    due      BIGINT        NOT NULL,
    expires  BIGINT        NOT NULL,
    attempts INTEGER       NOT NULL,
    lease    BINARY(16),                         -- NULL: not leased
    INDEX reset_mails_due (due, expires),
    INDEX reset_mails_expires (expires),
    INDEX reset_mails_user (user_id)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS reset_locks (
    user_id     VARBINARY(255) NOT NULL PRIMARY KEY,
    claim       BINARY(16),
    claim_until BIGINT         NOT NULL,
    expires     BIGINT         NOT NULL,         -- from then on the row may be removed
    INDEX reset_locks_expires (expires)
) ENGINE = InnoDB;

INSERT INTO reset_schema (id, version) VALUES (1, 1);

ALTER TABLE reset_activations
    ADD COLUMN realm VARBINARY(64) NOT NULL DEFAULT '',
    DROP INDEX reset_activations_user,
    ADD INDEX reset_activations_user (realm, user_id);

ALTER TABLE reset_mails
    ADD COLUMN realm VARBINARY(64) NOT NULL DEFAULT '',
    ADD COLUMN class INTEGER       NOT NULL DEFAULT 0,
    DROP INDEX reset_mails_due,
    ADD INDEX reset_mails_due (realm, class, due, expires),
    DROP INDEX reset_mails_user,
    ADD INDEX reset_mails_user (realm, user_id);

UPDATE reset_mails SET kind = 'notification' WHERE kind = 'notice';

ALTER TABLE reset_locks
    ADD COLUMN realm       VARBINARY(64) NOT NULL DEFAULT '',
    ADD COLUMN quiet_until BIGINT        NOT NULL DEFAULT 0, -- until then no mail for public requests
    ADD COLUMN written     BIGINT        NOT NULL DEFAULT 0, -- changes with every lock
    DROP PRIMARY KEY,
    ADD PRIMARY KEY (realm, user_id);

CREATE TABLE IF NOT EXISTS reset_history ( -- what became of requests and mail; public requests count for budgets
    realm      VARBINARY(64)  NOT NULL DEFAULT '',
    user_id    VARBINARY(255) NOT NULL,
    id         BINARY(16)     NOT NULL,            -- of the mail, or of a request without one
    kind       VARBINARY(32)  NOT NULL,            -- public, trusted, notification
    requests   INTEGER        NOT NULL DEFAULT 1,  -- how many the row is about
    bound      BIGINT         NOT NULL DEFAULT 0,  -- a public request, for the user's budget; 0: none
    attempts   INTEGER        NOT NULL DEFAULT 0,
    attempted  BIGINT         NOT NULL DEFAULT 0,  -- the latest attempt, unless it failed: then 0
    refused    BIGINT         NOT NULL DEFAULT 0,  -- by the mail system; 0: never
    refusal    BLOB,                               -- in its words
    outcome    VARBINARY(32),                      -- of the mail; NULL: it is queued, was sent at attempted, or there is none
    outcome_at BIGINT         NOT NULL DEFAULT 0,
    joined     BINARY(16),                         -- the request whose link was mailed again
    ends       BIGINT         NOT NULL DEFAULT 0,  -- when the link expires
    ending     VARBINARY(32),                      -- redeemed, superseded, revoked
    ended      BIGINT         NOT NULL DEFAULT 0,
    expires    BIGINT         NOT NULL,            -- from then on the row may be removed
    PRIMARY KEY (realm, user_id, id),
    INDEX reset_history_expires (expires)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS reset_realms (
    realm         VARBINARY(64) NOT NULL PRIMARY KEY,
    ran           BIGINT        NOT NULL, -- when a process last ran Run
    mailer_failed BIGINT        NOT NULL, -- when mail last failed there
    base_url      BLOB
) ENGINE = InnoDB;

UPDATE reset_schema SET version = 2 WHERE id = 1;

-- +goose Down
DROP TABLE reset_activations;

DROP TABLE reset_mails;

DROP TABLE reset_locks;

DROP TABLE reset_history;

DROP TABLE reset_realms;

DROP TABLE reset_schema;
