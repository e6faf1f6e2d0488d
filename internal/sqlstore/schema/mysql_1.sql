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
