#!/bin/sh
# Installs the servers and programs that tests talk to, of this crate and of the command line, from Debian's packages.
# They are started by the tests themselves, on free ports of the loopback address and in a directory of their own;
# the policy below keeps the packages from starting anything on their own account.
# With arguments, these packages alone are installed, and nothing else.
# Says in one line what is skipped, and is no failure: tests then skip what they miss, and say so too.
set -u
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "skipped: servers from Debian's packages can be installed by root on a Debian only"
    exit 0
fi
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
export DEBIAN_FRONTEND=noninteractive
missing=
everything="openssl postfix dovecot-imapd dovecot-pop3d swaks libauthen-sasl-perl libio-socket-ssl-perl \
    libnet-smtp-ssl-perl libmailtools-perl git-email msmtp mutt bsd-mailx iproute2 nftables strace dbus-daemon dbus-bin \
    gnome-keyring procps git rsync e2fsprogs mount util-linux python3"
# Tests run side by side, and a package is installed once.
exec 9>/run/lock/packetboat-packages.lock && flock 9
for package in ${*:-$everything}; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    apt-get -qq -o DPkg::Lock::Timeout=300 update
    for package in $missing; do
        apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$package" >/dev/null 2>&1 ||
            echo "skipped: $package cannot be installed"
    done
fi
[ $# -gt 0 ] || python3 -c 'import aiosmtpd' 2>/dev/null || python3 -m pip install -q aiosmtpd >/dev/null 2>&1 ||
    echo "skipped: aiosmtpd cannot be installed from PyPI"
