#!/bin/bash
# Starts the newest PostgreSQL and MariaDB of Debian's testing suite for the
# tests in servertest, on ports 5418 and 3418 of loopback.
#
# Run it as root on Debian 12. It installs them in a folder of its own: see
# debian.sh. On standard output it prints nothing but the environment of the
# tests, as NAME=value lines:
#
#	env $(.ci/newest.sh) go test ./servertest -run 'Store|Race'
#
# $RESET_TEST_NEWEST_CONTROL stop stops them.
set -euo pipefail
cd "$(dirname "$0")"

exec 3>&1 >&2

for port in 5418 3418; do
	if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
		echo "$0: something listens on port $port already"
		exit 1
	fi
done

root=$(./debian.sh testing postgresql-18 mariadb-server-core mariadb-client-core coreutils dash hostname sed) # their scripts need the last four
dir=$(mktemp -d "$root/tmp/newest.XXXXXX")
inside=${dir#"$root"} # as the servers see it
chown 65533:65533 "$dir" # test of debian.sh: PostgreSQL refuses to run as root
in_root() { timeout 300 chroot --userspec=65533:65533 "$root" "$@"; }
postgres=/usr/lib/postgresql/18/bin

cat >"$dir/control" <<'CONTROL'
#!/bin/bash
# stop is all that it does
cd "$(dirname "$0")"
for pid in $(cat mariadb.pid 2>/dev/null; head -n 1 postgres/postmaster.pid 2>/dev/null); do
	kill -9 "$pid" || continue
	while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
done
cd /
rm -rf "$OLDPWD"
CONTROL
chmod 755 "$dir/control"
trap '[ $? = 0 ] || "$dir/control" stop' EXIT

in_root $postgres/initdb -D "$inside/postgres" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
in_root $postgres/pg_ctl -D "$inside/postgres" -l "$inside/postgres.log" -s -w -t 120 -o "-c port=5418 -c listen_addresses=127.0.0.1 -c unix_socket_directories=$inside -c fsync=off -c max_connections=300" start 3>&- ||
	{ cat "$dir/postgres.log"; exit 1; }
in_root $postgres/createdb -h "$inside" -p 5418 -U postgres test

in_root mariadb-install-db --no-defaults --force --auth-root-authentication-method=normal --skip-test-db --datadir="$inside/mariadb" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
chroot --userspec=65533:65533 "$root" mariadbd --no-defaults --datadir="$inside/mariadb" --socket="$inside/mariadb.sock" --pid-file="$inside/mariadb.pid" \
	--log-error="$inside/mariadb.log" --bind-address=127.0.0.1 --port=3418 --max-connections=300 --innodb-buffer-pool-size=64M --innodb-flush-log-at-trx-commit=0 \
	</dev/null >/dev/null 2>&1 3>&- &
for try in {1..600}; do
	in_root mariadb -u root -S "$inside/mariadb.sock" -e "CREATE DATABASE test" 2>/dev/null && break
	((try < 600)) && kill -0 $! || { cat "$dir/mariadb.log"; echo "$0: MariaDB does not start"; exit 1; }
	sleep 0.1
done

cat >&3 <<ENV
RESET_TEST_POSTGRES18=postgres://postgres@127.0.0.1:5418/test
RESET_TEST_MARIADB11=root@tcp(127.0.0.1:3418)/test
RESET_TEST_NEWEST_CONTROL=$dir/control
ENV
