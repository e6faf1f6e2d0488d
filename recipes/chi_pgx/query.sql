-- name: UserByAddress :one
SELECT * FROM users WHERE address = $1;

-- name: AddUser :exec
INSERT INTO users (id, address, email, hash) VALUES ($1, $2, $3, $4);

-- name: SetHash :execrows
UPDATE users SET hash = $1 WHERE id = $2;

-- name: AddSession :exec
INSERT INTO sessions (id, user_id) VALUES ($1, $2);

-- name: UserOfSession :one
SELECT user_id FROM sessions WHERE id = $1;

-- name: EndSessions :exec
DELETE FROM sessions WHERE user_id = $1;
