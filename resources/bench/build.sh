#!/bin/sh
# Builds the initial file system of a guest that is measured, of this host's busybox and of the modules that drive a
# device under its running kernel:
#   build.sh DEVICE INIT IMAGE
set -eu
device=$1
init=$2
image=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
busybox=$(command -v busybox) || { echo "busybox is not on PATH; install busybox-static" >&2; exit 1; }
mkdir "$work/bin" "$work/dev" "$work/modules" "$work/proc" "$work/sys"
cp "$busybox" "$work/bin/busybox"
ln -s busybox "$work/bin/sh"
cp "$init" "$work/init"
chmod 755 "$work/init"
: > "$work/modules/order"
# A device whose driver is part of the kernel has no module.
modprobe --show-depends "$(cat "/sys/bus/pci/devices/$device/modalias")" |
    awk '$1 == "insmod" && !seen[$2]++ { print $2 }' > "$work/modules/files"
while read -r file; do
    name=$(basename "$file" | sed 's/\.ko.*//')
    case $file in
        *.xz) xz -dc "$file" ;;
        *.zst) zstd -dc "$file" ;;
        *) cat "$file" ;;
    esac > "$work/modules/$name.ko"
    echo "$name" >> "$work/modules/order"
done < "$work/modules/files"
cd "$work"
find . | busybox cpio -o -H newc > "$image" 2> /dev/null
