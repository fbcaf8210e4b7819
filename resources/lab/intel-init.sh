#!/bin/sh
# First program of the lab host with an Intel CPU: a plain machine with KVM and without an IOMMU, all of it in memory
# but what is on the disc. The harness waits for the first line on the second serial port.
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
$bb mkdir -p /dev/pts /tmp /root
$bb --install -s /bin
export PATH=/lab/bin:/bin LD_LIBRARY_PATH=/lab/lib HOME=/root
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir /run/lab
mount -t debugfs debugfs /sys/kernel/debug
while read -r module; do insmod "/modules/$module.ko"; done < /modules/order
mount -t iso9660 -o ro /dev/sr0 /lab
lab idle-vm &
echo $! > /run/lab/idle-vm

exec 3<> /dev/ttyS1
stty raw -echo < /dev/ttyS1
echo ready >&3
lab agent /dev/ttyS1
poweroff -f
