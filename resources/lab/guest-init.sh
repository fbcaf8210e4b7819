#!/bin/sh
# First program of every guest: it runs what is typed on its console. How that goes, and the verbs that it has
# for it, are told in tests/README.md.
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /tmp /dev/shm
# The kernel's own messages could tear a line of an answer apart, and so could an echo.
dmesg -n 1
stty -echo

setting() {
    for word in $(cat /proc/cmdline); do
        case $word in lab.$1=*) echo "${word#*=}" ;; esac
    done
}
pace=$(setting pace)

# fail WORDS...: ends what was typed, which has failed.
fail() {
    echo "$*" >&2
    exit 1
}
# wait_until SECONDS COMMAND...: on a slow machine longer.
wait_until() {
    tries=$(($1 * 10 * ${pace:-1}))
    shift
    until "$@" 2> /dev/null; do
        [ $tries -gt 0 ] || return 1
        tries=$((tries - 1))
        usleep 100000
    done
}
# load [NAME...]: the modules that the guest is made for, and others that it has.
load() {
    for order in "" $(printf '.%s ' "$@"); do
        [ "$order" = . ] || while read -r module; do
            [ -e "/sys/module/$module" ] || insmod "/modules/$module.ko"
        done < "/modules/order$order"
    done
}
driver_of() { basename "$(readlink "$1/driver")"; }
# net INTERFACE ADDRESS: loads drivers, brings an interface up, and says who drives it.
net() {
    load
    interface=/sys/class/net/$1
    wait_until 20 test -e "$interface" || fail "net: there is no $1"
    ip link set lo up
    ip addr add "$2/24" dev "$1"
    ip link set "$1" up || fail "net: $1 cannot be brought up"
    wait_until 30 grep -q 1 "$interface/carrier" || fail "net: $1 has no link"
    # igb clears a link change from before it had its vectors, as it is on a slow machine. This one comes after.
    if [ "$(driver_of "$interface/device")" = igb ] && change_link; then
        wait_until 30 heard_link || fail "net: the vector for link changes stays silent"
    fi
    driver_of "$interface/device"
}
# Makes the NIC tell of a link change (82576 data sheet, Interrupt Cause Set; E1000_ICS of its driver). With
# iomem=relaxed on the command line its registers can be written beside the driver.
change_link() { devmem $(($(bar "$interface/device" 0) + 0xc8)) 32 4 2> /dev/null; }
# The vector for link changes, which is named like the interface, has counted on some CPU.
heard_link() { ! grep " ${interface##*/}$" /proc/interrupts | grep -q '^ *[0-9]*:\( *0\)* *[^0-9 ]'; }
# function_of VENDOR:DEVICE: the folder of the function with these ids.
function_of() {
    for folder in /sys/bus/pci/devices/*; do
        [ "$(cat "$folder/vendor"):$(cat "$folder/device")" = "$1" ] && echo "$folder" && return
    done
    fail "there is no device $1"
}
# bar FOLDER INDEX: where it starts.
bar() { sed -n "$(($2 + 1))s/ .*//p" "$1/resource"; }
# use FOLDER: a function that no driver takes decodes its BARs and may do DMA; its wire is on.
use() {
    [ -e "$1/driver" ] || echo 1 > "$1/enable" || fail "use: $1 cannot be enabled"
    printf '\007\000' | dd of="$1/config" bs=1 seek=4 conv=notrunc 2> /dev/null
}
# keep DRIVE MEBIBYTES: the hash of what went to a drive, and of what came back from it.
keep() {
    wait_until 30 test -b "$1" || fail "keep: there is no $1"
    dd if=/dev/urandom of=/run/noise bs=1M count="$2" 2> /dev/null
    sha256sum < /run/noise
    dd if=/run/noise of="$1" bs=1M 2> /dev/null
    rm /run/noise
    sync
    echo 3 > /proc/sys/vm/drop_caches
    dd if="$1" bs=1M count="$2" 2> /dev/null | sha256sum
}
# switch FOLDER: once what was typed is done, the guest goes on from the root file system in this folder.
switch() { echo "$1" > /run/root; }
# leave poweroff|reboot: what the kernel says came too late goes first; the harness judges it.
leave() {
    dmesg | grep -iE 'time[d]?[ -]?out|nobody cared' | tail -n 20 | sed 's/^/LAB late /'
    "$1" -f
}

echo "LAB ready $(cut -d ' ' -f 1 /proc/uptime)"
# A guest that is measured: the command line tells what it does, since each byte that is typed costs exits.
for verb in $(setting run | tr , ' '); do "$verb"; done
[ -z "$(setting run)" ] || leave poweroff

while :; do
    script=
    until read -r line && [ "$line" = . ]; do
        script="$script$line
"
    done
    (
        set -e
        eval "$script"
    )
    printf '\nLAB done %s\n' $?
    if [ -s /run/root ]; then
        root=$(cat /run/root)
        umount -l /proc /sys /dev
        exec /bin/busybox switch_root "$root" /init
    fi
done
