#!/bin/sh
# First program of the lab host: puts a writable layer over the shared Debian tree and starts
# host-start.sh there.
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
while read -r module; do $bb insmod "/modules/$module.ko"; done < /modules/order

# loose: the tree does not change while the lab runs, so the kernel may keep what it read.
options=trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000
$bb mkdir -p /run/lower /run/layer
$bb mount -t 9p -o $options root /run/lower || exec $bb sh
$bb mount -t tmpfs tmpfs /run/layer
$bb mkdir -p /run/layer/upper /run/layer/work
$bb mount -t overlay -o lowerdir=/run/lower,upperdir=/run/layer/upper,workdir=/run/layer/work overlay /new
$bb mkdir -p /new/lab
$bb mount -t 9p -o $options lab /new/lab || exec $bb sh
for fs in proc sys dev; do $bb mount --move /$fs /new/$fs; done
exec $bb switch_root /new /bin/sh /lab/host-start.sh
