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

CREATE TABLE reset_sent ( -- mail for public requests that counts for a user's budget
    mail    BLOB    NOT NULL PRIMARY KEY,
    realm   BLOB    NOT NULL DEFAULT x'',
    user_id BLOB    NOT NULL,
    sent    INTEGER NOT NULL,
    expires INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX reset_sent_user ON reset_sent (realm, user_id, sent);

CREATE INDEX reset_sent_expires ON reset_sent (expires);

CREATE TABLE reset_realms (
    realm         BLOB    NOT NULL PRIMARY KEY,
    ran           INTEGER NOT NULL, -- when a process last ran Run
    mailer_failed INTEGER NOT NULL, -- when mail last failed there
    base_url      BLOB
) WITHOUT ROWID;
