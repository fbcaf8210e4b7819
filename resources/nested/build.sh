#!/bin/sh
# Builds the initial file system of L1 for a device, with that of L2 inside:
#   build.sh 01:00.0 l1.img [KERNEL_VERSION]
# It is made of this machine's busybox (busybox-static), kernel and modules, and of strait as PATH finds it.
set -eu
[ $# -ge 2 ] || { echo "usage: sh $0 DEVICE IMAGE [KERNEL_VERSION], as in sh $0 01:00.0 l1.img" >&2; exit 2; }
device=0000:${1#0000:}
image=$2
version=${3:-$(uname -r)}
here=$(cd "$(dirname "$0")" && pwd)
for program in busybox modprobe strait; do
    command -v "$program" > /dev/null || { echo "$0: there is no $program on PATH; install it" >&2; exit 1; }
done
[ -e "/sys/bus/pci/devices/$device" ] || {
    echo "$0: there is no PCI device $device; \`strait host list\` shows those that are" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
driver=$(modprobe -S "$version" -R "$(cat "/sys/bus/pci/devices/$device/modalias")")

# guest FOLDER INIT MODULE...: busybox, an init, and modules as plain files with the order to insert them.
guest() {
    folder=$1
    mkdir -p "$folder/bin" "$folder/dev" "$folder/modules" "$folder/proc" "$folder/run" "$folder/sys" "$folder/tmp"
    cp "$(command -v busybox)" "$folder/bin/busybox"
    ln -s busybox "$folder/bin/sh"
    cp "$2" "$folder/init"
    chmod 755 "$folder/init"
    shift 2
    for module in "$@"; do modprobe -S "$version" --show-depends "$module"; done |
        awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
        while read -r file; do
            name=$(basename "$file" | sed 's/\.ko.*//')
            case $file in
                *.xz) xz -dc "$file" ;;
                *.zst) zstd -dc "$file" ;;
                *) cat "$file" ;;
            esac > "$folder/modules/$name"
            echo "$name" >> "$folder/modules/order"
        done
}
pack() { (cd "$1" && find . | busybox cpio -o -H newc 2> /dev/null); }

guest "$work/l2" "$here/l2-init.sh" $driver
guest "$work/l1" "$here/l1-init.sh" kvm_amd kvm_intel vfio_iommu_type1 vfio_pci $driver
cp "$(command -v strait)" "$work/l1/bin/strait"
cp "/boot/vmlinuz-$version" "$work/l1/vmlinuz"
pack "$work/l2" > "$work/l1/l2.img"
pack "$work/l1" > "$image"
echo "$image: L1 for $device ($driver), Linux $version"
