# Steps of a guest that is measured.
#   lab.iperf=PORT        the other end of its streams
#   lab.seconds=12        how long each lasts
#   lab.vectors=3,16,64   how many vectors are enabled together
# Streams for `lab.seconds`, to the server or from it. Nothing is said meanwhile: the harness counts.
stream() {
    mkdir -p /tmp # for the streams that iperf3 sends from
    ask
    before=$(all_packets)
    iperf3 -c $server -p "$(setting iperf)" -t "$(setting seconds)" -f m $2 > /run/iperf 2>&1 \
        || fail "$1: $(tail -n 1 /run/iperf)"
    say "$1 $(sed -n 's/.* \([0-9.]*\) Mbits.*receiver.*/\1/p' /run/iperf)"
    say "streamed $(($(all_packets) - before))"
}
all_packets() {
    s=/sys/class/net/eth0/statistics
    echo $(($(cat $s/rx_packets) + $(cat $s/tx_packets)))
}
# Each way twice: the harness lets the first one run alone and traces the second.
streams() {
    stream sent
    stream sent
    stream received -R
    stream received -R
}
# Enables MSI-X of a drive without a driver, with so many vectors programmed beforehand.
config() { od -A n -t u$2 -j $1 -N $2 $device/config | tr -d ' '; }
control() { printf "\\$1" | dd of=$device/config bs=1 seek=$((msix + 3)) conv=notrunc 2> /dev/null; }
vectors() {
    for device in /sys/bus/pci/devices/*; do
        [ "$(cat $device/class)" = 0x010802 ] && break
    done
    echo 1 > $device/enable
    msix=$(config 52 1)
    while [ "$(config $msix 1)" != 17 ]; do
        msix=$(config $((msix + 1)) 1)
        [ "$msix" != 0 ] || fail "vectors: $device has no MSI-X"
    done
    table=$(config $((msix + 4)) 4)
    bar=$(sed -n "$((table % 8 + 1))s/ .*//p" $device/resource)
    for count in $(setting vectors | tr , ' '); do
        vector=0
        while [ $vector -lt $count ]; do
            entry=$((bar + table / 8 * 8 + 16 * vector))
            devmem $entry 32 0xfee00000
            devmem $((entry + 4)) 32 0
            devmem $((entry + 8)) 32 $((64 + vector))
            devmem $((entry + 12)) 32 0
            vector=$((vector + 1))
        done
        ask
        control 200
        say "enabled $count"
        ask
        control 0
    done
}
