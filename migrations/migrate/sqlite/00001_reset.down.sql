DROP TABLE reset_activations;

DROP TABLE reset_mails;

DROP TABLE reset_locks;

DROP TABLE reset_history;

DROP TABLE reset_realms;

DROP TABLE reset_schema;
