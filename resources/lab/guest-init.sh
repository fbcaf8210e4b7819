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
    late
    dmesg | tail -n 25
    say "fail $*"
    poweroff -f
}
# What the kernel says came too late; the harness judges it.
late() {
    dmesg | grep -iE 'time[d]?[ -]?out|nobody cared' | tail -n 20 > /run/late
    while read -r line; do say "late $line"; done < /run/late
}
setting() {
    for word in $(cat /proc/cmdline); do
        case $word in lab.$1=*) echo "${word#*=}" ;; esac
    done
}
# wait_until SECONDS COMMAND...: on a slow machine longer.
pace=$(setting pace)
wait_until() {
    tries=$(($1 * 10 * ${pace:-1}))
    shift
    until "$@" 2> /dev/null; do
        [ $tries -gt 0 ] || return 1
        tries=$((tries - 1))
        usleep 100000
    done
}

server=$(setting server)
server=${server:-10.0.2.2}
port=$(setting port)
bytes=33554432

# insert ORDER: the modules that a file names, with parameters that those without them ignore.
insert() {
    while read -r module; do
        [ -e "/sys/module/$module" ] || insmod "/modules/$module.ko" $(setting parameters)
    done < "$1"
}
drivers() {
    [ -s /modules/order ] && insert /modules/order
    for driver in $(setting drivers | tr , ' '); do insert "/modules/order.$driver"; done
}
load() {
    drivers
    wait_until 20 test -e /sys/class/net/eth0 || fail "load: no network device appeared"
    say "driver $(driver_of_eth0)"
}
driver_of_eth0() { basename "$(readlink /sys/class/net/eth0/device/driver)"; }
has_carrier() { [ "$(cat /sys/class/net/eth0/carrier)" = 1 ]; }
net() {
    load
    ip link set lo up
    ip addr add "$(setting address)/24" dev eth0
    ip link set eth0 up || fail "net: eth0 cannot be brought up"
    wait_until 30 has_carrier || fail "net: eth0 has no link"
    # igb clears a link change from before it had its vectors, as it is on a slow machine. This one comes after.
    if [ "$(driver_of_eth0)" = igb ] && change_link; then
        wait_until 30 heard_vector || fail "net: the vector for link changes stays silent"
    fi
    say "link up"
}
# The vector for link changes, which is named like the interface, has not counted on any CPU.
silent_vector() { grep ' eth0$' /proc/interrupts | grep -q '^ *[0-9]*:\( *0\)* *[^0-9 ]'; }
heard_vector() { ! silent_vector; }
# Makes the NIC tell of a link change (82576 data sheet, Interrupt Cause Set; E1000_ICS of its driver). With
# iomem=relaxed on the command line its registers can be written beside the driver.
change_link() {
    registers=$(sed -n '1s/ .*//p' /sys/class/net/eth0/device/resource)
    devmem $((registers + 0xc8)) 32 4 2> /dev/null
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
    say "controller $(controller_of eth0)"
    say "remapped $(grep eth0 /proc/interrupts | grep -c IR-)"
}
# The driver's own test: registers, EEPROM, interrupt, loopback, link.
selftest() {
    /bin/ethtool -t eth0 offline > /run/selftest 2>&1 || {
        cat /run/selftest
        fail "selftest: $(grep -v ' 0$' /run/selftest | tr '\n' ' ')"
    }
    say "selftest $(sed -n 's/.*result is *//p' /run/selftest)"
    wait_until 30 has_carrier || fail "selftest: eth0 has no link afterwards"
}
# keep DRIVE MEBIBYTES: data that went to a drive and came back from it.
keep() {
    drivers
    wait_until 30 test -b "$1" || fail "keep: there is no $1"
    say "wrote $(dd if=/dev/urandom bs=1M count="$2" 2> /dev/null | tee "$1" | sha256sum | cut -d ' ' -f 1)"
    sync
    echo 3 > /proc/sys/vm/drop_caches
    say "read $(dd if="$1" bs=1M count="$2" 2> /dev/null | sha256sum | cut -d ' ' -f 1)"
}
nvme() {
    mebibytes=$(setting drive)
    keep /dev/nvme0n1 "${mebibytes:-64}"
    say "vectors $(grep -c nvme0q /proc/interrupts)"
}
stick() {
    keep /dev/sda 8
    say "controller $(controller_of xhci_hcd)"
}
# What the interrupts of a driver come through.
controller_of() { grep "$1" /proc/interrupts | head -n 1 | grep -o 'IO-APIC\|PCI-MSIX\|PCI-MSI'; }
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
# The same beside other things.
stream() {
    wget -q -O /dev/null "http://$server:$port/bytes/1000000000000" &
    streamer=$!
    from=$(received)
    streaming() { [ $(($(received) - from)) -gt 200000 ]; }
    wait_until 60 streaming || fail "stream: no data arrives"
}
received() { cat /sys/class/net/eth0/statistics/rx_bytes; }
# The NIC has left: its driver lets go of eth0 first, then its function goes.
gone() {
    wait_until 60 test ! -e /sys/class/net/eth0 || fail "gone: eth0 is still there"
    wait_until 60 test ! -e /sys/bus/pci/devices/0000:01:00.0 || fail "gone: its function is still there"
    say "gone"
}
# The NIC was pulled from a kernel that does not notice: its driver stays, its function answers nothing.
pulled() {
    silent() { [ "$(od -A n -t x2 -N 2 /sys/bus/pci/devices/0000:01:00.0/config)" = " ffff" ]; }
    wait_until 60 silent || fail "pulled: the function still answers"
    say "gone"
}
# Resets the NIC under its driver, and lets the driver start over.
resets() {
    device=$(readlink -f /sys/class/net/eth0/device)
    count=0
    while [ $count -lt "$(setting resets)" ]; do
        [ -z "$(setting traffic)" ] || stream
        [ "$(receiver)" = enabled ] || fail "resets: the receiver is off before reset $count"
        dmesg -c > /dev/null
        echo 1 > "$device/reset" || fail "resets: reset $count is refused"
        [ -z "$(setting traffic)" ] || kill $streamer
        start_over "${device##*/}"
        count=$((count + 1))
        # An idle NIC is asked to work again after every tenth reset.
        [ -n "$(setting traffic)" ] || [ $((count % 10)) = 0 ] || continue
        wait_until 30 has_carrier || fail "resets: no link after reset $count"
        ping -c 1 -W 10 $server > /dev/null || fail "resets: no answer after reset $count"
    done
    say "resets $count"
}
# start_over FUNCTION: a reset leaves the receiver off. When igb happens to read a register in the middle of
# one, it takes the NIC for lost and must be bound anew.
start_over() {
    if dmesg | grep -q "PCIe link lost"; then
        echo "$1" > /sys/bus/pci/drivers/igb/unbind
        echo "$1" > /sys/bus/pci/drivers/igb/bind || fail "resets: igb does not take $1 after reset $count"
        wait_until 20 test -e /sys/class/net/eth0 || fail "resets: no eth0 after reset $count"
        ip addr add "$(setting address)/24" dev eth0
    else
        [ "$(receiver)" = disabled ] || fail "resets: the receiver is on after reset $count"
        ip link set eth0 down
    fi
    ip link set eth0 up
}
receiver() { /bin/ethtool -d eth0 | sed -n 's/^ *Receiver: *//p' | head -n 1; }
packets() {
    s=/sys/class/net/eth0/statistics
    say "packets $(cat $s/rx_packets) $(cat $s/tx_packets)"
}
# Data to and from the NIC and the drive at once.
both() {
    fetch &
    nvme
    wait
}
# What the console's interrupts come through.
wires() { say "wire $(grep ttyS0 /proc/interrupts | grep -o '[A-Z-]*IO-APIC')"; }
# What the kernel said of its IOMMU, and what it found broken.
dmar() {
    dmesg | sed 's/^\[[^]]*\] //' | grep -v 'ommand line:' |
        grep -E 'DMAR|iommu|INTR-REMAP|[Ff]irmware [Bb]ug|BIOS bug' > /run/dmar
    while read -r line; do say "dmar $line"; done < /run/dmar
    say "dmar end"
}
# The devices of each IOMMU group.
groups() {
    for group in /sys/kernel/iommu_groups/*; do
        [ -e "$group/devices" ] && say "group $(ls "$group/devices" | tr '\n' ' ')"
    done
    say "group end"
}
# Whether the guest could run guests of its own.
nesting() { say "nesting $(grep -cwE 'svm|vmx' /proc/cpuinfo)"; }
facts() {
    say "kernel $(uname -r)"
    say "cpus $(nproc)"
    say "memory $(sed -n 's/MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
}
# The kernel's last words, for who looks into a log.
log() { dmesg | tail -n 40; }
# Lets the harness decide what comes next.
ask() {
    say "ask"
    read -r answer
    case $answer in
        reboot) late; reboot -f ;;
        poweroff) late; poweroff -f ;;
        panic) echo c > /proc/sysrq-trigger ;;
        *) say "answer $answer" ;;
    esac
}
pause() { sleep 100000; }

# Steps of a guest for a special purpose.
[ -e /steps.sh ] && . /steps.sh

say "init $(cut -d ' ' -f 1 /proc/uptime)"
for step in $(setting do | tr , ' '); do
    $step
done
late
say "end"
poweroff -f
