#!/bin/bash
# Starts a Postfix for the test of SMTPMailer against a server that was not
# written for it. It listens on loopback: without TLS on port 2525, with
# STARTTLS and a log-in on 2587, with TLS from the start and a log-in on 2465.
# It has mailboxes for alice@example.org and jürgen@example.org, and delivers
# to a Maildir.
#
# Run it as root on Debian 12, perhaps by sudo, whose caller can then read the
# mail. It installs what is missing, removes nothing, and leaves a Postfix of the
# machine's own alone. On standard output it prints nothing but the
# environment of the test, as NAME=value lines:
#
#	env $(.ci/smtp.sh) go test -run SMTP .
#	.ci/smtp.sh >>"$GITHUB_ENV"
#
# postfix -c "$RESET_TEST_SMTP_CONFIG" stop ends it.
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

for port in 2525 2587 2465; do
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
mkdir -p etc/sasl mail spool
owner=${SUDO_UID:-$(id -u mail)}
chown "$owner" mail
install -d -o postfix data

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

for port in 2525 2587 2465; do
	for try in {1..100}; do
		(: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
		((try < 100)) || { cat log; echo "$0: nobody listens on port $port"; exit 1; }
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
ENV
