#!/bin/bash
# Starts two Postfixes for the tests of SMTPMailer against a server that was not
# written for it. They listen on loopback and deliver to Maildirs.
#
# The first one listens without TLS on port 2525, with STARTTLS and a log-in on
# 2587, with TLS from the start and a log-in on 2465. It has mailboxes for
# alice@example.org and jürgen@example.org.
#
# The second one is a relay for this machine with the configuration that Debian
# ships. On each of its ports the test can put a mistake into one of the lists of
# restrictions, by writing it into the file $RESET_TEST_SMTP_WRONG/port.
#
# Run it as root on Debian 12, perhaps by sudo, whose caller can then read the
# mail. It installs what is missing, removes nothing, and leaves a Postfix of the
# machine's own alone. On standard output it prints nothing but the
# environment of the test, as NAME=value lines:
#
#	env $(.ci/smtp.sh) go test -run SMTP .
#	.ci/smtp.sh >>"$GITHUB_ENV"
#
# postfix -c "$RESET_TEST_SMTP_CONFIG" stop ends the first one, and so does
# "$RESET_TEST_SMTP_RELAY" the second.
set -euo pipefail

exec 3>&1 >&2

packages=()
for p in postfix openssl sasl2-bin libsasl2-modules; do
	dpkg -s "$p" 2>/dev/null | grep -q '^Status: install ok installed' || packages+=("$p")
done
if ((${#packages[@]})); then
	apt-get update -q
	apt-get install -qy --no-install-recommends debconf
	echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends --no-remove "${packages[@]}"
fi

# Each port of the relay with the list that may have a mistake in it.
declare -A relay=(
	[2601]=smtpd_helo_restrictions
	[2602]=smtpd_client_restrictions
	[2603]=smtpd_sender_restrictions
	[2604]=smtpd_relay_restrictions
	[2605]=smtpd_relay_restrictions
	[2606]=smtpd_sender_restrictions
)
ports=(2525 2587 2465 "${!relay[@]}")

for port in "${ports[@]}"; do
	if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
		echo "$0: something listens on port $port already"
		exit 1
	fi
done

dir=$(mktemp -d)
chmod 755 "$dir"
cd "$dir"
user=no-reply@example.com
password=$(openssl rand -hex 12)
mkdir -p etc/sasl mail spool relay/etc relay/spool relay/wrong
owner=${SUDO_UID:-$(id -u mail)}
chown "$owner" mail relay/wrong
install -d -o postfix data relay/data

(
	umask 077
	new=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
	openssl req -x509 "${new[@]}" -days 30 -subj "/CN=reset test CA" -keyout ca.key -out ca.pem
	openssl req "${new[@]}" -subj "/CN=localhost" -keyout server.key -out server.csr
	openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out server.pem \
		-extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1")
) 2>openssl.log || { cat openssl.log; exit 1; }
chmod 644 ca.pem

printf %s "$password" | saslpasswd2 -p -c -f etc/sasl/users -u example.com no-reply
chown postfix etc/sasl/users
# Debian's Postfix looks for it here.
cat >etc/sasl/smtpd.conf <<CONF
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: $dir/etc/sasl/users
mech_list: PLAIN LOGIN
CONF

cat >etc/main.cf <<CONF
compatibility_level = 3.6
queue_directory = $dir/spool
data_directory = $dir/data
maillog_file_prefixes = $dir
maillog_file = $dir/log
myhostname = mx.example.org
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
alias_maps =
smtputf8_enable = yes
smtpd_tls_chain_files = $dir/server.key, $dir/server.pem
smtpd_tls_auth_only = yes
virtual_mailbox_domains = example.org
virtual_mailbox_base = $dir/mail
virtual_mailbox_maps = inline:{ alice@example.org=box/, jürgen@example.org=box/ }
virtual_minimum_uid = 1
virtual_uid_maps = static:$owner
virtual_gid_maps = static:$(id -g mail)
CONF
cat >etc/master.cf <<CONF
2525     inet n - n - - smtpd
2587     inet n - n - - smtpd -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes -o { smtpd_sender_restrictions = permit_sasl_authenticated, reject } -o smtpd_delay_reject=no
2465     inet n - n - - smtpd -o smtpd_tls_wrappermode=yes -o smtpd_sasl_auth_enable=yes
cleanup  unix n - n - 0 cleanup
qmgr     unix n - n 300 1 qmgr
tlsmgr   unix - - n 1000? 1 tlsmgr
rewrite  unix - - n - - trivial-rewrite
bounce   unix - - n - 0 bounce
defer    unix - - n - 0 bounce
trace    unix - - n - 0 bounce
proxymap unix - - n - - proxymap
virtual  unix - n n - - virtual
error    unix - - n - - error
retry    unix - - n - - error
discard  unix - - n - - discard
anvil    unix - - n - 1 anvil
postlog  unix-dgram n - n - 1 postlogd
CONF
postfix -c "$dir/etc" start 3>&- || { cat log; exit 1; }

cp -r etc/sasl relay/etc
sed 's/^smtp  *inet /#&/' /usr/share/postfix/master.cf.dist >relay/etc/master.cf
for port in "${!relay[@]}"; do
	touch "relay/wrong/$port"
	chown "$owner" "relay/wrong/$port"
	# A process for each connection reads the file anew. The last port reports a
	# mistake at once, as Postfix did long ago.
	cat >>relay/etc/master.cf <<CONF
127.0.0.1:$port inet n - y - - smtpd
	-o max_use=1
	-o smtpd_delay_reject=$( ((port == 2606)) && echo no || echo yes)
	-o { ${relay[$port]} = check_client_access texthash:$dir/relay/wrong/$port, permit_mynetworks, defer_unauth_destination }
CONF
done
cat /usr/share/postfix/main.cf.debian - >relay/etc/main.cf <<CONF
smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination
mynetworks = 127.0.0.0/8
smtpd_tls_security_level = may
smtpd_tls_chain_files = $dir/server.key, $dir/server.pem

queue_directory = $dir/relay/spool
data_directory = $dir/relay/data
maillog_file_prefixes = $dir
maillog_file = $dir/relay/log
myhostname = relay.example.org
mydestination =
alias_maps =
smtpd_sasl_auth_enable = yes
smtpd_sender_login_maps = static:somebody
transport_maps = static:virtual
virtual_mailbox_base = $dir/mail
virtual_mailbox_domains = relay.example.org
virtual_mailbox_maps = static:relay/
virtual_minimum_uid = 1
virtual_uid_maps = static:$owner
virtual_gid_maps = static:$(id -g mail)
CONF
postfix -c "$dir/relay/etc" start 3>&- || { cat relay/log; exit 1; }

for port in "${ports[@]}"; do
	for try in {1..100}; do
		(: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
		((try < 100)) || { cat log relay/log; echo "$0: nobody listens on port $port"; exit 1; }
		sleep 0.1
	done
done

cat >&3 <<ENV
RESET_TEST_SMTP=127.0.0.1:2525
RESET_TEST_SMTP_TLS=127.0.0.1:2587
RESET_TEST_SMTP_IMPLICIT=localhost:2465
RESET_TEST_SMTP_CA=$dir/ca.pem
RESET_TEST_SMTP_USER=$user
RESET_TEST_SMTP_PASSWORD=$password
RESET_TEST_SMTP_MAILDIR=$dir/mail/box
RESET_TEST_SMTP_CONFIG=$dir/etc
RESET_TEST_SMTP_RELAY=$dir/relay/etc
RESET_TEST_SMTP_RELAY_MAILDIR=$dir/mail/relay
RESET_TEST_SMTP_WRONG=$dir/relay/wrong
ENV
