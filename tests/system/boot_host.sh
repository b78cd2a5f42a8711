#!/bin/bash
# First process of a host, in new namespaces: a throw-away overlay of the machine's root, own /tmp, /run and /dev/shm,
# one user, and sshd. All that the host writes lies in memory and goes with this process.
#   boot_host.sh FOLDER NAME PROJECT VENV KEYS
# FOLDER is empty; KEYS holds host_key and authorized_keys. Waits for a line on standard input before sshd starts.
set -eu
folder=$1 name=$2 project=$3 venv=$4 keys=$5

hostname "$name"
mount --make-rprivate /
mount -t tmpfs -o size=4g tmpfs "$folder"
root=$folder/root
mkdir "$folder"/{upper,work,root,venv,venv_work,venv_seen,keys}
cp "$keys/host_key" "$keys/authorized_keys" "$folder/keys"
# Seen from here, as the project may lie in a folder that is the host's own.
mount --bind "$venv" "$folder/venv_seen"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o size=8g,mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/run"

# The project's folder is empty, so that only what was sent to the host can run; its environment is there.
mkdir -p "$root$project"
mount -t tmpfs -o mode=755 tmpfs "$root$project"
mkdir -p "$root$venv"
mount -t overlay overlay -o "lowerdir=$folder/venv_seen,upperdir=$folder/venv,workdir=$folder/venv_work" "$root$venv"

install -d -m 755 "$root/run/sshd"
install -m 600 "$folder/keys/host_key" "$root/etc/ssh/host_key"
printf '127.0.0.1 localhost %s\n' "$name" > "$root/etc/hosts"
# No name servers: nothing outside can be reached, and asking for it takes no time.
: > "$root/etc/resolv.conf"
# What is installed already is all that pip can find.
cat > "$root/etc/pip.conf" <<'PIP'
[install]
no-index = true
no-build-isolation = false
PIP
ip link set lo up

chroot "$root" /bin/bash -eu -s "$venv" <<'SETUP'
venv=$1
unset PIP_FIND_LINKS PIP_CERT
useradd --create-home --shell /bin/bash --password '*' ubuntu
install -d -m 700 -o ubuntu -g ubuntu /home/ubuntu/.ssh
# An ordinary user runs this Python, wherever it was installed, and installs into the environment.
for path in "$venv" "$(realpath "$venv/bin/python")"; do
    while [ "$path" != / ]; do chmod o+x "$path"; path=$(dirname "$path"); done
done
find "$venv" -type d -exec chown ubuntu:ubuntu {} +
rm -f "$venv"/.installed*
SETUP
install -m 600 "$folder/keys/authorized_keys" "$root/home/ubuntu/.ssh/authorized_keys"
chown --reference="$root/home/ubuntu" "$root/home/ubuntu/.ssh/authorized_keys"

# What enters this process's root from now on is on the host.
exec chroot "$root" /bin/bash -eu -c 'cd /; echo booted; read -r _
exec /usr/sbin/sshd -D -e -f /dev/null -h /etc/ssh/host_key -o UsePAM=no -o PidFile=none \
    -o PasswordAuthentication=no -o MaxStartups=100 -o MaxSessions=100'
