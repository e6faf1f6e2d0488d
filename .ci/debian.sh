#!/bin/bash
# Unpacks packages of another suite of Debian, with all that they depend on, and
# prints the folder, in which chroot runs them:
#
#	root=$(.ci/debian.sh sid mysql-server-core); chroot "$root" mysqld --version
#
# Run it as root on Debian 12. Nothing of the machine's own changes: apt works
# in a folder of its own, with the keys of Debian's archive that the machine
# trusts already. The packages are unpacked and not configured: nothing starts,
# and there are no accounts. The folder is kept; remove it for newer packages.
set -euo pipefail

exec 3>&1 >&2

suite=$1
shift
root=/var/cache/reset_test/$suite
if [ "$(cat "$root/packages" 2>/dev/null)" = "$*" ]; then
	echo "$root" >&3
	exit
fi
# Not a name that another run could have: both may unpack at once.
mkdir -p /var/cache/reset_test
new=$(mktemp -d "/var/cache/reset_test/.$suite.XXXXXX")
trap 'rm -rf "$new"' EXIT
apt=$new/apt
mkdir -p "$apt"/{etc/sources.list.d,etc/preferences.d,state/lists/partial,cache/archives/partial}
: >"$apt/state/status"
cat >"$apt/etc/sources.list.d/debian.sources" <<SOURCES
Types: deb
URIs: http://deb.debian.org/debian
Suites: $suite
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
get() {
	timeout -k 10 600 apt-get -qq -y -o Dir::Etc="$apt/etc" -o Dir::State="$apt/state" -o Dir::State::status="$apt/state/status" \
		-o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root -o APT::Install-Recommends=0 -o Acquire::Languages=none \
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::Retries=3 -o Acquire::http::Timeout=30 "$@" ||
		{ echo "$0: cannot get $suite: apt-get $*"; exit 1; }
}
get update --error-on=any
get install --download-only "$@"

mkdir -p "$new"/root/{dev,etc,proc,tmp,usr/{bin,lib,lib64,sbin}}
chmod 755 "$new/root"
chmod 1777 "$new/root/tmp"
for d in bin lib lib64 sbin; do ln -s "usr/$d" "$new/root/$d"; done
for p in "$apt"/cache/archives/*.deb; do
	dpkg-deb --fsys-tarfile "$p" | tar -x -C "$new/root" --keep-directory-symlink --exclude='./usr/share/'{doc,locale,man}
done
mknod -m 666 "$new/root/dev/null" c 1 3
mknod -m 666 "$new/root/dev/urandom" c 1 9
echo "root:x:0:0:root:/:/bin/sh
test:x:65533:65533:test:/:/bin/sh" >"$new/root/etc/passwd"
echo "$*" >"$new/root/packages"
rm -rf "$root"
mv "$new/root" "$root"
echo "$root" >&3
