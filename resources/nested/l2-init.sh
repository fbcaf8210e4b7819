#!/bin/sh
# First program of L2: drives the device that came through two hypervisors. A NIC asks for an address and
# pings the router that it is told of; then there is a shell, and where it ends so does L2.
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
dmesg -n 1
while read -r module; do insmod "/modules/$module"; done < /modules/order

cat > /run/lease << 'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
echo "L2: $interface has $ip"
ping -c 3 "$router"
END
chmod 755 /run/lease
sleep 1
for interface in $(ls /sys/class/net | grep -v '^lo$'); do
    echo "L2: $interface is driven by $(basename "$(readlink "/sys/class/net/$interface/device/driver")")"
    ip link set "$interface" up
    udhcpc -i "$interface" -s /run/lease -q -n -t 20
done
[ -n "$batch" ] || sh
poweroff -f
