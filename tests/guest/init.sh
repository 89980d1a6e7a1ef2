#!/bin/sh
# Process 1 of the guest kernel: mounts what a host has, loads modules, runs the command that the
# file $LADING_GUEST/command holds, leaves its exit code in $LADING_GUEST/status, powers off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755,size=700m tmpfs /run
# /tmp stays the host's, in which the checkout may be; what tests make goes elsewhere.
mkdir -m 1777 /run/tmp
export TMPDIR=/run/tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
hostname guest
python3 "$LADING_GUEST/modules.py" overlay bridge veth iptable_nat iptable_filter xt_MASQUERADE \
    xt_addrtype xt_conntrack xt_nat ipt_REJECT xt_comment xt_tcpudp xt_mark ip6table_nat \
    ip6table_filter nf_conntrack_netlink loop quota_v2
cd "$LADING_GUEST_CWD" || exit 1
sh "$LADING_GUEST/command" > "$LADING_GUEST/output" 2>&1 < /dev/null
echo $? > "$LADING_GUEST/status"
sync
poweroff -f 2>/dev/null || echo o > /proc/sysrq-trigger
