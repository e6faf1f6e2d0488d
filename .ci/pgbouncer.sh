#!/bin/bash
# Starts a PgBouncer in transaction mode for the tests in servertest, in front
# of the PostgreSQL on port 5432 of loopback. It listens on port 6543.
#
# Run it as root on Debian 12. It installs what is missing, removes nothing, and
# leaves a PgBouncer of the machine's own alone. On standard output it prints
# nothing but the environment of the tests, as NAME=value lines:
#
#	env $(.ci/pgbouncer.sh) go test ./servertest -run PgBouncer
#
# kill "$(cat "$RESET_TEST_PGBOUNCER_PID")" stops it.
set -euo pipefail

exec 3>&1 >&2

if ! dpkg -s pgbouncer 2>/dev/null | grep -q '^Status: install ok installed'; then
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends --no-remove pgbouncer
fi

port=6543
if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
	echo "$0: something listens on port $port already"
	exit 1
fi

dir=$(mktemp -d)
chmod 755 "$dir"
install -d -o postgres "$dir/run"

cat >"$dir/pgbouncer.ini" <<CONF
[databases]
* = host=127.0.0.1 port=5432 user=postgres
[pgbouncer]
pool_mode = transaction
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = any
max_client_conn = 500
default_pool_size = 10
pidfile = $dir/run/pid
logfile = $dir/run/log
CONF

pgbouncer -q -d -u postgres "$dir/pgbouncer.ini" 3>&- || { cat "$dir/run/log"; exit 1; }
for try in {1..100}; do
	(: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
	((try < 100)) || { cat "$dir/run/log"; echo "$0: nobody listens on port $port"; exit 1; }
	sleep 0.1
done

cat >&3 <<ENV
RESET_TEST_PGBOUNCER=postgres://postgres@127.0.0.1:$port/test
RESET_TEST_PGBOUNCER_PID=$dir/run/pid
ENV
