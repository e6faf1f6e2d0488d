CREATE TABLE users (
    id      VARCHAR(26)  PRIMARY KEY,
    address VARCHAR(254) NOT NULL UNIQUE, -- reset.CanonicalAddress(email)
    email   VARCHAR(254) NOT NULL,
    hash    VARCHAR(100) NOT NULL
);

CREATE TABLE sessions (
    id      VARCHAR(26) PRIMARY KEY,
    user_id VARCHAR(26) NOT NULL
);
