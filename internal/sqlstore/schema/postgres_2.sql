ALTER TABLE reset_activations ADD COLUMN realm BYTEA NOT NULL DEFAULT '';

DROP INDEX reset_activations_user;

CREATE INDEX reset_activations_user ON reset_activations (realm, user_id);

ALTER TABLE reset_mails ADD COLUMN realm BYTEA NOT NULL DEFAULT '', ADD COLUMN class INTEGER NOT NULL DEFAULT 0;

UPDATE reset_mails SET kind = 'notification' WHERE kind = 'notice';

DROP INDEX reset_mails_due;

CREATE INDEX reset_mails_due ON reset_mails (realm, class, due, expires);

DROP INDEX reset_mails_user;

CREATE INDEX reset_mails_user ON reset_mails (realm, user_id) WHERE user_id IS NOT NULL;

ALTER TABLE reset_locks
    ADD COLUMN realm       BYTEA  NOT NULL DEFAULT '',
    ADD COLUMN quiet_until BIGINT NOT NULL DEFAULT 0, -- until then no mail for public requests
    ADD COLUMN written     BIGINT NOT NULL DEFAULT 0, -- changes with every lock
    DROP CONSTRAINT reset_locks_pkey,
    ADD PRIMARY KEY (realm, user_id);

CREATE TABLE reset_sent ( -- mail for public requests that counts for a user's budget
    mail    BYTEA  NOT NULL PRIMARY KEY,
    realm   BYTEA  NOT NULL DEFAULT '',
    user_id BYTEA  NOT NULL,
    sent    BIGINT NOT NULL,
    expires BIGINT NOT NULL
);

CREATE INDEX reset_sent_user ON reset_sent (realm, user_id, sent);

CREATE INDEX reset_sent_expires ON reset_sent (expires);

CREATE TABLE reset_realms (
    realm         BYTEA  NOT NULL PRIMARY KEY,
    ran           BIGINT NOT NULL, -- when a process last ran Run
    mailer_failed BIGINT NOT NULL, -- when mail last failed there
    base_url      BYTEA
);
