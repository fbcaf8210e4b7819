#!/bin/sh
# First program of a guest that is measured: says when it began and who drives the device, and powers off. What is on
# the kernel's command line without a dot is in its environment: $bench_device, as 0x8086:0x10c9, and $bench_waits.
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
read -r uptime _ < /proc/uptime
echo "BENCH init $uptime"
while read -r module; do insmod "/modules/$module.ko"; done < /modules/order
for device in /sys/bus/pci/devices/*; do
    [ "$(cat "$device/vendor"):$(cat "$device/device")" = "$bench_device" ] || continue
    echo "BENCH driver $(basename "$(readlink "$device/driver")")"
done
if [ "$bench_waits" ]; then
    echo "BENCH waits"
    read -r _
fi
poweroff -f
