#!/bin/sh
# First program of a guest that is measured: says when it began and who drives the device, does what it is asked, and
# powers off. What is on the kernel's command line without a dot is in its environment: $bench_device, as 0x8086:0x10c9;
# $bench_waits; for streams $bench_peer and $bench_port, for a drive $bench_disk, read or write, and for both
# $bench_seconds for each part.
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
read -r uptime _ < /proc/uptime
echo "BENCH init $uptime"
while read -r module; do insmod "/modules/$module.ko"; done < /modules/order

# A program that was taken from the host, by the host's own loader.
tool() {
    program=/tools/$1
    shift
    /tools/loader --library-path /tools/lib "$program" "$@"
}

# wait_for FILE: what a driver makes may come a little later than the driver.
wait_for() {
    tries=0
    until [ -e "$1" ] || [ $tries = 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
}

packets() {
    echo $(($(cat "$interface/statistics/rx_packets") + $(cat "$interface/statistics/tx_packets")))
}

# What a program says last is why it failed; of its two outputs the order is not kept, so the errors are put last.
# stream NAME [OPTION]: says its rate in Mbit/s and the packets of both directions.
stream() {
    before=$(packets)
    echo "BENCH begins $1"
    if tool iperf3 -c "$bench_peer" -p "$bench_port" -t "$bench_seconds" -f m $2 > /said 2> /wrong; then
        echo "BENCH did $1 $(sed -n 's/.* \([0-9.]*\) Mbits.*receiver.*/\1/p' /said) $(($(packets) - before))"
    else
        echo "BENCH failed $1 $(cat /said /wrong | tail -n 1)"
    fi
}

network() {
    wait_for "$1/net"
    interface=$(echo "$1"/net/*)
    if ! [ -e "$interface" ]; then
        echo "BENCH failed all the guest's driver made no network interface"
        return
    fi
    ip link set "${interface##*/}" up
    if ! udhcpc -i "${interface##*/}" -s /dhcp -n -q -t 20 -T 1 > /said 2>&1; then
        echo "BENCH failed all the guest was given no address by DHCP: $(tail -n 1 /said)"
        return
    fi
    stream sent
    stream received -R
    if ping -q -A -c 500 -w "$bench_seconds" "$bench_peer" > /said 2>&1; then
        # round-trip min/avg/max = 0.101/0.202/0.303 ms
        echo "BENCH did answer $(awk -F / '/min\/avg\/max/ { print $4 * 1000 }' /said)"
    else
        echo "BENCH failed answer ping: $(tail -n 1 /said)"
    fi
}

# part NAME KIND SIZE DEPTH FIELD DIVISOR: one field of fio's terse form (version 3) is the figure.
part() {
    if tool fio --name="$1" --filename="$drive" --rw="$2" --bs="$3" --iodepth="$4" --ioengine=io_uring --direct=1 \
        --runtime="$bench_seconds" --time_based --thread --minimal --terse-version=3 $reads > /said 2> /wrong; then
        echo "BENCH did $1 $(awk -F ';' -v field="$5" -v divisor="$6" '$1 == 3 { print $field / divisor }' /said)"
    else
        echo "BENCH failed $1 $(cat /said /wrong | tail -n 1)"
    fi
}

disk() {
    drive=/dev/nvme0n1
    wait_for "$drive"
    if ! [ -b "$drive" ]; then
        echo "BENCH failed all the guest finds no namespace on the drive"
        return
    fi
    # It refuses to write, whatever it is asked.
    [ "$bench_disk" = write ] && reads= || reads=--readonly
    part read-1 randread 4k 1 8 1
    part read-32 randread 4k 32 8 1
    part read-through read 1m 8 7 1024
    [ "$bench_disk" = write ] || return
    part write-32 randwrite 4k 32 49 1
    part write-through write 1m 8 48 1024
}

for device in /sys/bus/pci/devices/*; do
    [ "$(cat "$device/vendor"):$(cat "$device/device")" = "$bench_device" ] || continue
    [ ! -s /modules/order ] || wait_for "$device/driver"
    echo "BENCH driver $(basename "$(readlink "$device/driver")")"
    [ -z "$bench_peer" ] || network "$device"
    [ -z "$bench_disk" ] || disk
done
if [ "$bench_waits" ]; then
    echo "BENCH waits"
    read -r _
fi
poweroff -f
