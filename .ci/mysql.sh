#!/bin/bash
# Starts MySQL 9 for the tests in servertest: a server on port 3410 and a group
# of three, each of which takes writes (group replication, multi-primary), on
# ports 3411 to 3413. They listen on loopback.
#
# Run it as root on Debian 12. It installs MySQL from Debian's unstable suite,
# the only one that has it, in a folder of its own: see debian.sh. On standard
# output it prints nothing but the environment of the tests, as NAME=value lines:
#
#	env $(.ci/mysql.sh) go test ./servertest -run Group
#
# $RESET_TEST_GROUP_CONTROL stops everything, and starts and kills one node of
# the group, which outlives the death of any:
#
#	control start 2; control kill 2; control stop
set -euo pipefail
cd "$(dirname "$0")"

exec 3>&1 >&2

for port in {3410..3413} {34411..34413}; do
	if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
		echo "$0: something listens on port $port already"
		exit 1
	fi
done

root=$(./debian.sh sid mysql-server-core mysql-client-core)
dir=$(mktemp -d "$root/tmp/mysql.XXXXXX")
chmod 755 "$dir"
inside=${dir#"$root"} # as the servers see it

for n in {0..3}; do
	mkdir "$dir/$n"
	cat >"$dir/$n.cnf" <<CONF
[mysqld]
user = root
datadir = $inside/$n/data
socket = $inside/$n/socket
pid_file = $inside/$n/pid
log_error = $inside/$n/log.err
bind_address = 127.0.0.1
port = $((3410 + n))
mysqlx = OFF
secure_file_priv = NULL
server_id = $((n + 1))
max_connections = 300
innodb_buffer_pool_size = 64M
innodb_redo_log_capacity = 64M
innodb_flush_log_at_trx_commit = 2
innodb_flush_method = nosync
sync_binlog = 0
CONF
done
for n in {1..3}; do
	cat >>"$dir/$n.cnf" <<CONF
gtid_mode = ON
enforce_gtid_consistency = ON
report_host = 127.0.0.1
plugin_load_add = group_replication.so
group_replication_group_name = 7e5e7e57-0000-4000-8000-000000000001
group_replication_local_address = 127.0.0.1:$((34410 + n))
group_replication_group_seeds = 127.0.0.1:34411,127.0.0.1:34412,127.0.0.1:34413
group_replication_start_on_boot = OFF
group_replication_single_primary_mode = OFF
group_replication_enforce_update_everywhere_checks = ON
group_replication_member_expel_timeout = 0
group_replication_message_cache_size = 128M
CONF
done

cat >"$dir/control" <<'CONTROL'
#!/bin/bash
set -euo pipefail
cd "$(dirname "$0")"
root=${PWD%/tmp/*}

sql() { timeout 60 chroot "$root" mysql -N -u root -S "${PWD#"$root"}/$1/socket" -e "$2"; }

await() { # until query $2 on node $1 selects something
	local end=$((SECONDS + 120))
	while ((SECONDS < end)) && kill -0 $!; do
		[ -z "$(sql "$1" "$2" 2>/dev/null)" ] || return 0
		sleep 0.1
	done
	tail -n 30 "$1/log.err" >&2
	echo "node $1 does not start" >&2
	return 1
}

case $1 in
start) # node 0 is no member of the group; "new" makes one
	chroot "$root" mysqld --defaults-file="${PWD#"$root"}/$2.cnf" </dev/null >/dev/null 2>&1 &
	await "$2" "SELECT 1"
	if [ "$2" != 0 ]; then
		[ "${3:-}" != new ] || sql "$2" "SET GLOBAL group_replication_bootstrap_group = ON"
		sql "$2" "START GROUP_REPLICATION USER = 'root'; SET GLOBAL group_replication_bootstrap_group = OFF"
		await "$2" "SELECT 1 FROM performance_schema.replication_group_members WHERE member_id = @@server_uuid AND member_state = 'ONLINE'"
	fi
	;;
kill)
	pid=$(cat "$2/pid")
	kill -9 "$pid"
	while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
	rm -f "$2/pid"
	;;
stop)
	for pid in $(cat [0-3]/pid 2>/dev/null); do
		kill -9 "$pid" || continue
		while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
	done
	cd /
	rm -rf "$OLDPWD"
	;;
esac
CONTROL
chmod 755 "$dir/control"
trap '[ $? = 0 ] || "$dir/control" stop' EXIT

if [ ! -d "$root/data" ]; then # kept for the next run
	timeout 300 chroot "$root" mysqld --defaults-file="$inside/0.cnf" --initialize-insecure || { cat "$dir/0/log.err"; exit 1; }
	rm "$dir/0/data/auto.cnf" # each server makes an id of its own
	mv -T "$dir/0/data" "$root/data"
fi
for n in {0..3}; do cp -a "$root/data" "$dir/$n/data"; done
"$dir/control" start 0 3>&-
"$dir/control" start 1 new 3>&-
sql() { chroot "$root" mysql -u root -S "$inside/$1/socket" -e "CREATE DATABASE test; ${2:-}"; }
sql 0
sql 1 "CREATE USER test@localhost IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO test@localhost"
"$dir/control" start 2 3>&-
"$dir/control" start 3 3>&-

cat >&3 <<ENV
RESET_TEST_MYSQL9=root@tcp(127.0.0.1:3410)/test
RESET_TEST_GROUP=test:secret@tcp(127.0.0.1:3411)/test,test:secret@tcp(127.0.0.1:3412)/test,test:secret@tcp(127.0.0.1:3413)/test
RESET_TEST_GROUP_CONTROL=$dir/control
ENV
