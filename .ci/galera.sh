#!/bin/bash
# Starts a MariaDB Galera cluster of two nodes for the tests in servertest. The
# nodes listen on loopback, for clients on ports 3407 and 3408.
#
# Run it as root on Debian 12. It installs what is missing, removes nothing, and
# leaves a MariaDB of the machine's own alone. On standard output it prints
# nothing but the environment of the tests, as NAME=value lines:
#
#	env $(.ci/galera.sh) go test ./servertest -run Galera
#
# $RESET_TEST_GALERA_CONTROL stops everything, and starts and kills one node:
#
#	control start 2; control kill 2; control stop
#
# The cluster outlives the death of either: an arbitrator, which keeps no data,
# is the third vote.
set -euo pipefail

exec 3>&1 >&2

packages=()
for p in mariadb-server galera-4 galera-arbitrator-4 rsync; do
	dpkg -s "$p" 2>/dev/null | grep -q '^Status: install ok installed' || packages+=("$p")
done
if ((${#packages[@]})); then
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends --no-remove "${packages[@]}"
fi

for port in 3407 3408 {4577..4579}; do
	if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
		echo "$0: something listens on port $port already"
		exit 1
	fi
done

dir=$(mktemp -d)
chmod 755 "$dir"
install -d -o mysql "$dir"/{1,2}

for n in 1 2; do
	cat >"$dir/$n.cnf" <<CONF
[mariadbd]
user = mysql
datadir = $dir/$n/data
socket = $dir/$n/socket
pid-file = $dir/$n/pid
log-error = $dir/$n/log.err
tmpdir = $dir/$n
bind-address = 127.0.0.1
port = $((3406 + n))
binlog_format = ROW
innodb_autoinc_lock_mode = 2
innodb_flush_log_at_trx_commit = 0
innodb_buffer_pool_size = 64M
innodb_log_file_size = 32M
max_connections = 300
wsrep_on = ON
wsrep_provider = /usr/lib/galera/libgalera_smm.so
wsrep_provider_options = "base_host=127.0.0.1; base_port=$((4576 + n)); gmcast.listen_addr=tcp://127.0.0.1:$((4576 + n)); ist.recv_addr=127.0.0.1:$((4586 + n)); ist.recv_bind=127.0.0.1:$((4586 + n)); gcache.size=64M; evs.keepalive_period=PT0.5S; evs.suspect_timeout=PT2S; evs.inactive_timeout=PT4S"
wsrep_cluster_name = reset_test
wsrep_cluster_address = gcomm://127.0.0.1:4577,127.0.0.1:4578
wsrep_node_name = node$n
wsrep_node_address = 127.0.0.1
wsrep_sst_method = rsync
wsrep_sst_receive_address = 127.0.0.1:$((4596 + n))
wsrep_slave_threads = 2
CONF
done

cat >"$dir/control" <<'CONTROL'
#!/bin/bash
set -euo pipefail
cd "$(dirname "$0")"

await() { # until node $1 is synced with the cluster
	for _ in {1..600}; do
		[ "$(mariadb -N -S "$PWD/$1/socket" -e "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'wsrep_local_state_comment'" 2>/dev/null)" = Synced ] && return
		sleep 0.1
	done
	tail -n 30 "$1/log.err" >&2
	echo "node $1 does not join the cluster" >&2
	return 1
}

case $1 in
start)
	mariadbd --defaults-file="$PWD/$2.cnf" "${@:3}" </dev/null >/dev/null 2>&1 &
	await "$2"
	;;
kill)
	pid=$(cat "$2/pid")
	kill -9 "$pid"
	while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
	rm -f "$2/pid"
	;;
stop)
	for pid in $(cat [12]/pid garbd.pid 2>/dev/null); do kill -9 "$pid" || true; done
	cd /
	rm -rf "$OLDPWD"
	;;
esac
CONTROL
chmod 755 "$dir/control"

mariadb-install-db --no-defaults --user=mysql --auth-root-authentication-method=normal --skip-test-db --datadir="$dir/1/data" >"$dir/install.log" ||
	{ cat "$dir/install.log"; exit 1; }
install -d -o mysql -m 700 "$dir/2/data"
"$dir/control" start 1 --wsrep-new-cluster 3>&-
mariadb -S "$dir/1/socket" -e "CREATE DATABASE test"
"$dir/control" start 2 3>&-
garbd --group reset_test --address gcomm://127.0.0.1:4577,127.0.0.1:4578 --log "$dir/garbd.log" \
	--options "base_dir=$dir; base_host=127.0.0.1; base_port=4579; gmcast.listen_addr=tcp://127.0.0.1:4579; evs.keepalive_period=PT0.5S; evs.suspect_timeout=PT2S; evs.inactive_timeout=PT4S" \
	</dev/null >/dev/null 2>&1 3>&- &
echo $! >"$dir/garbd.pid"
for try in {1..300}; do
	[ "$(mariadb -N -S "$dir/1/socket" -e "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'wsrep_cluster_size'")" != 3 ] || break
	((try < 300)) || { cat "$dir/garbd.log"; echo "$0: the arbitrator does not join the cluster"; exit 1; }
	sleep 0.1
done

cat >&3 <<ENV
RESET_TEST_GALERA=root@tcp(127.0.0.1:3407)/test,root@tcp(127.0.0.1:3408)/test
RESET_TEST_GALERA_CONTROL=$dir/control
ENV
