#!/bin/sh
# Sets up the lab host as a plain machine with KVM, VFIO and its native drivers, then hands over:
# to the agent that the harness talks to, or to a shell on the console.
export PATH=/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root TERM=${TERM:-vt100}
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/pts /dev/shm /run/lab
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
hostname lab
[ -e /usr/bin/awk ] || ln -s mawk /usr/bin/awk
ip link set lo up
for module in msr kvm_amd vfio_pci; do modprobe $module; done
if ! grep -qw lab.undriven /proc/cmdline; then
    for module in igb nvme 8139cp e1000e xhci_pci usb_storage sd_mod; do modprobe $module; done
fi
lab idle-vm &
echo $! > /run/lab/idle-vm

if grep -qw lab.shell /proc/cmdline; then
    echo root:x:0:0:root:/root:/bin/bash > /etc/passwd
    echo
    echo "The lab host. Leave it with \`exit\`. Guest kernels are in /lab/guest. Devices:"
    lspci -nn
    cd /root
    setsid -c -w bash -i < /dev/ttyS0 > /dev/ttyS0 2>&1
else
    lab agent
fi
busybox poweroff -f
