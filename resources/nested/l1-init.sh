#!/bin/sh
# First program of L1: gives the device that it was given to a guest of its own. Where that guest ends, a
# shell is left; where the shell ends, so does L1. What the kernel does not know on its command line arrives
# here as variables: `device=01:00.0`, and `batch=1` for no shells.
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
dmesg -n 1
device=${device:-01:00.0}

# One of kvm_amd and kvm_intel does not fit the CPU, and says so.
while read -r module; do insmod "/modules/$module" 2> /dev/null; done < /modules/order
[ -c /dev/kvm ] || echo "L1: no /dev/kvm: does the host's kvm_amd or kvm_intel have nested=1?"
dmesg | grep -q 'Enabled IRQ remapping' || echo "L1: no interrupt remapping: is intel_iommu=on there?"

strait host bind "$device" &&
    strait run --kernel /vmlinuz --initrd /l2.img --memory 256M --device "$device" \
        --cmdline "console=ttyS0 panic=-1 quiet ${batch:+batch=1}"
echo "L1: L2 has ended"
strait host restore "$device"
[ -n "$batch" ] || sh
poweroff -f
