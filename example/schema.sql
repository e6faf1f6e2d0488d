CREATE TABLE IF NOT EXISTS users (
    id         VARCHAR(64)  NOT NULL PRIMARY KEY,
    address    VARCHAR(254) NOT NULL UNIQUE, -- the canonical form of email
    email      VARCHAR(254) NOT NULL,        -- as it was typed
    name       VARCHAR(100) NOT NULL,
    locale     VARCHAR(35)  NOT NULL,
    hash       VARCHAR(255) NOT NULL,        -- of the password
    disabled   BOOLEAN      NOT NULL,
    created    BIGINT       NOT NULL,        -- times are Unix milliseconds
    last_login BIGINT       NOT NULL
);

CREATE TABLE IF NOT EXISTS sessions (
    hash    VARCHAR(64)  NOT NULL PRIMARY KEY, -- SHA-256 of the cookie's value
    user_id VARCHAR(64)  NOT NULL REFERENCES users (id),
    device  VARCHAR(200) NOT NULL,
    created BIGINT       NOT NULL,
    expires BIGINT       NOT NULL
);

CREATE INDEX IF NOT EXISTS sessions_user ON sessions (user_id);
