#!/bin/sh
# Builds the initial file system of a guest that is measured, of this host's busybox and of the modules that drive a
# device under its running kernel; with a program, of it and its libraries too:
#   build.sh DEVICE FOLDER IMAGE [PROGRAM]
# FOLDER has the first program, init, and what is called for DHCP, dhcp.
set -eu
device=$1
own=$2
image=$3
program=${4:-}
loader=/lib64/ld-linux-x86-64.so.2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
busybox=$(command -v busybox) || { echo "busybox is not on PATH; install busybox-static" >&2; exit 1; }
mkdir "$work/bin" "$work/dev" "$work/modules" "$work/proc" "$work/sys" "$work/tmp"
cp "$busybox" "$work/bin/busybox"
ln -s busybox "$work/bin/sh"
cp "$own/init" "$own/dhcp" "$work"
chmod 755 "$work/init" "$work/dhcp"
: > "$work/modules/order"
# A device whose driver is part of the kernel has no module. DHCP needs af_packet, which is a module of some kernels.
{
    modprobe --show-depends "$(cat "/sys/bus/pci/devices/$device/modalias")"
    [ -z "$program" ] || modprobe --show-depends af_packet 2> /dev/null || true
} | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' > "$work/modules/files"
while read -r file; do
    name=$(basename "$file" | sed 's/\.ko.*//')
    case $file in
        *.xz) xz -dc "$file" ;;
        *.zst) zstd -dc "$file" ;;
        *) cat "$file" ;;
    esac > "$work/modules/$name.ko"
    echo "$name" >> "$work/modules/order"
done < "$work/modules/files"
if [ "$program" ]; then
    mkdir -p "$work/tools/lib"
    cp -L "$(command -v "$program")" "$work/tools/$program"
    [ -e "$loader" ] || { echo "$loader is not there, which $program is to be started by" >&2; exit 1; }
    cp -L "$loader" "$work/tools/loader"
    # `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f...)`; the loader has no arrow, and ldd is not on every host.
    "$loader" --list "$work/tools/$program" > "$work/needs"
    awk '$2 == "=>" && $3 ~ /^\// { print $3 }' "$work/needs" | while read -r library; do
        cp -L "$library" "$work/tools/lib"
        # A thread that is cancelled loads this one by its name.
        helper=$(dirname "$library")/libgcc_s.so.1
        [ ! -e "$helper" ] || cp -L "$helper" "$work/tools/lib"
    done
    rm "$work/needs"
fi
cd "$work"
find . | busybox cpio -o -H newc > "$image" 2> /dev/null
