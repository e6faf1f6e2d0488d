CREATE TABLE IF NOT EXISTS users (
    id         VARCHAR(64)    NOT NULL PRIMARY KEY,
    address    VARBINARY(254) NOT NULL UNIQUE, -- the canonical form of email; compares as bytes
    email      VARCHAR(254)   NOT NULL,        -- as it was typed
    name       VARCHAR(100)   NOT NULL,
    locale     VARCHAR(35)    NOT NULL,
    hash       VARCHAR(255)   NOT NULL,        -- of the password
    disabled   BOOLEAN        NOT NULL,
    created    BIGINT         NOT NULL,        -- times are Unix milliseconds
    last_login BIGINT         NOT NULL
) ENGINE = InnoDB, CHARACTER SET = utf8mb4, COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS sessions (
    hash    VARCHAR(64)  NOT NULL PRIMARY KEY, -- SHA-256 of the cookie's value
    user_id VARCHAR(64)  NOT NULL,
    device  VARCHAR(200) NOT NULL,
    created BIGINT       NOT NULL,
    expires BIGINT       NOT NULL,
    INDEX sessions_user (user_id),
    FOREIGN KEY (user_id) REFERENCES users (id)
) ENGINE = InnoDB, CHARACTER SET = utf8mb4, COLLATE = utf8mb4_bin;
