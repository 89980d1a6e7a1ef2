#!/bin/sh
# Process 1 of the guest kernel: mounts what a host has, loads modules, runs the command that the
# file $LADING_GUEST/command holds, leaves its exit code in $LADING_GUEST/status, powers off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755,size=700m tmpfs /run
# /tmp stays the host's, in which the checkout may be; what tests make goes elsewhere.
mkdir -m 1777 /run/tmp
if [ -b /dev/vda ]; then
    mke2fs -q -F -t ext4 /dev/vda && mount -t ext4 /dev/vda /run/tmp && chmod 1777 /run/tmp
fi
export TMPDIR=/run/tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
hostname guest
while read -r module; do
    # Those that the initial file system has loaded are there already.
    busybox insmod "$module" 2>/dev/null
done < "$LADING_GUEST/modules"
cd "$LADING_GUEST_CWD" || exit 1
sh "$LADING_GUEST/command" > "$LADING_GUEST/output" 2>&1 < /dev/null
echo $? > "$LADING_GUEST/status"
sync
poweroff -f 2>/dev/null || echo o > /proc/sysrq-trigger
