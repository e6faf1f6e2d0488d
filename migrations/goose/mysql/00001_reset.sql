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

CREATE TABLE IF NOT EXISTS reset_sent ( -- mail for public requests that counts for a user's budget
    mail    BINARY(16)     NOT NULL PRIMARY KEY,
    realm   VARBINARY(64)  NOT NULL DEFAULT '',
    user_id VARBINARY(255) NOT NULL,
    sent    BIGINT         NOT NULL,
    expires BIGINT         NOT NULL,
    INDEX reset_sent_user (realm, user_id, sent),
    INDEX reset_sent_expires (expires)
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

DROP TABLE reset_sent;

DROP TABLE reset_realms;

DROP TABLE reset_schema;
