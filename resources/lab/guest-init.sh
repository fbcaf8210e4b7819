#!/bin/sh
# First program of a guest. The kernel command line says what to do, step by step:
# lab.do=net,ping,fetch runs these functions and powers off. Each result is a line that begins
# with "LAB "; the harness reads nothing else.
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
# From here on the kernel's own messages could tear a result line apart.
dmesg -n 1

say() { echo "LAB $*"; }
fail() {
    dmesg | tail -n 25
    say "fail $*"
    poweroff -f
}
setting() {
    for word in $(cat /proc/cmdline); do
        case $word in lab.$1=*) echo "${word#*=}" ;; esac
    done
}
# wait_until SECONDS COMMAND...
wait_until() {
    tries=$(($1 * 10))
    shift
    until "$@" 2> /dev/null; do
        [ $tries -gt 0 ] || return 1
        tries=$((tries - 1))
        usleep 100000
    done
}

server=10.0.2.2
port=$(setting port)
bytes=33554432

load() {
    while read -r module; do insmod "/modules/$module.ko"; done < /modules/order
    wait_until 20 test -e /sys/class/net/eth0 || fail "load: no network device appeared"
    say "driver $(basename "$(readlink /sys/class/net/eth0/device/driver)")"
}
has_carrier() { [ "$(cat /sys/class/net/eth0/carrier)" = 1 ]; }
net() {
    load
    ip link set lo up
    ip addr add "$(setting address)/24" dev eth0
    ip link set eth0 up || fail "net: eth0 cannot be brought up"
    wait_until 30 has_carrier || fail "net: eth0 has no link"
    say "link up"
}
ping3() {
    ping -c 3 -W 10 $server > /run/ping || fail "ping: $(tail -n 2 /run/ping | head -n 1)"
    say "ping $(sed -n 's/.* \([0-9]*\) packets received.*/\1/p' /run/ping)"
}
download() { wget -q -O - "http://$server:$port/bytes/$1"; }
fetch() {
    say "fetch $(download $bytes | sha256sum | cut -d ' ' -f 1)"
}
# One line per vector: its name, then its count on each CPU.
irqs() {
    while read -r _ rest; do
        case $rest in
            *eth0*)
                counts=
                for word in $rest; do
                    case $word in *[!0-9]*) break ;; esac
                    counts="$counts $word"
                done
                say "irq ${rest##* }$counts"
                ;;
        esac
    done < /proc/interrupts
    say "irqs end"
}
# Moves every vector from one CPU to the other and back while data arrives.
affinity() {
    (download $bytes | sha256sum | cut -d ' ' -f 1 > /run/sum) &
    moves=0
    cpu=1
    while [ ! -s /run/sum ]; do
        for irq in $(sed -n 's/^ *\([0-9]*\):.*eth0.*/\1/p' /proc/interrupts); do
            echo $cpu > /proc/irq/$irq/smp_affinity || fail "affinity: IRQ $irq does not move"
        done
        moves=$((moves + 1))
        cpu=$((3 - cpu))
        usleep 300000
    done
    say "moves $moves"
    say "fetch $(cat /run/sum)"
}
# Data without end, for those who want to be killed in the middle of it.
flood() {
    download 1000000000000 > /dev/null &
    first=$(cat /sys/class/net/eth0/statistics/rx_bytes)
    flowing() { [ $(($(cat /sys/class/net/eth0/statistics/rx_bytes) - first)) -gt 1000000 ]; }
    wait_until 30 flowing || fail "flood: no data arrives"
    say "flowing"
    sleep 100000
}
packets() {
    s=/sys/class/net/eth0/statistics
    say "packets $(cat $s/rx_packets) $(cat $s/tx_packets)"
}
facts() {
    say "kernel $(uname -r)"
    say "cpus $(nproc)"
    say "memory $(sed -n 's/MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
}
# Lets the harness decide what comes next.
ask() {
    say "ask"
    read -r answer
    case $answer in
        reboot) reboot -f ;;
        poweroff) poweroff -f ;;
        panic) echo c > /proc/sysrq-trigger ;;
        *) say "answer $answer" ;;
    esac
}
pause() { sleep 100000; }

say "init $(cut -d ' ' -f 1 /proc/uptime)"
for step in $(setting do | tr , ' '); do
    $step
done
say "end"
poweroff -f
