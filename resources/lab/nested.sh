# Steps of a guest (L1) that is a hypervisor itself: it gives its devices to a guest of its own (L2) and
# takes them back, with the commands that a user would type. Its command line says how:
#   lab.pass=01:00.0,02:00.0  the devices (01:00.0 if nothing is said)
#   lab.vmm=strait            who runs the inner guest, or qemu
#   lab.inner=net,ping3       what the inner guest does
#   lab.inner_drivers=igb     and with which drivers
#   lab.inner_cpus=2          and with how many CPUs (1)
# What the inner guest reports as "LAB word ..." comes out as "LAB l2-word ...".
passed() { echo "$(setting pass)" | sed 's/^$/01:00.0/' | tr , ' '; }
driver_of() { basename "$(readlink "/sys/bus/pci/devices/0000:$1/driver")"; }

hypervisor() {
    drivers
    grep -qw svm /proc/cpuinfo || fail "hypervisor: the CPU has no SVM"
    [ -c /dev/kvm ] || fail "hypervisor: there is no /dev/kvm"
    say "unsafe-interrupts $(cat /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts)"
    mkdir -p /tmp /dev/shm
}

# Devices may be given away although they can send any interrupt.
allow_unsafe() { echo Y > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts; }

# With strait where there is one, else by hand.
give() {
    for device in $(passed); do
        if [ -x /bin/strait ]; then
            strait host bind "$device" || fail "give: strait host bind $device"
        else
            driver=/sys/bus/pci/devices/0000:$device
            [ ! -e "$driver/driver" ] || echo "0000:$device" > "$driver/driver/unbind"
            echo vfio-pci > "$driver/driver_override"
            echo "0000:$device" > /sys/bus/pci/drivers_probe
        fi
        say "bound $(driver_of "$device")"
    done
}
take_back() {
    for device in $(passed); do
        if [ -x /bin/strait ]; then
            strait host restore "$device" || fail "take_back: strait host restore $device"
        else
            echo "0000:$device" > "/sys/bus/pci/devices/0000:$device/driver/unbind"
            echo > "/sys/bus/pci/devices/0000:$device/driver_override"
            echo "0000:$device" > /sys/bus/pci/drivers_probe
        fi
        say "restored $(driver_of "$device")"
    done
}

inner_cmdline() {
    echo "console=ttyS0 panic=-1 quiet lab.do=$(setting inner) lab.address=$(setting address)" \
        "lab.port=$port lab.pace=$(setting pace) iomem=relaxed lab.drivers=$(setting inner_drivers) lab.drive=$(setting drive)"
}
inner_cpus() { echo "$(setting inner_cpus)" | sed 's/^$/1/'; }
by_strait() {
    devices=
    for device in $(passed); do devices="$devices --device $device"; done
    strait run --kernel /nested/vmlinuz --initrd /nested/initramfs --memory 256M --cpus "$(inner_cpus)" \
        --cmdline "$(inner_cmdline)" $devices
}
by_qemu() {
    devices=
    slot=1
    for device in $(passed); do
        devices="$devices -device pcie-root-port,id=port$slot,chassis=$slot,slot=$slot"
        devices="$devices -device vfio-pci,host=$device,bus=port$slot,rombar=0"
        slot=$((slot + 1))
    done
    qemu-system-x86_64 -nodefaults -no-user-config -display none -accel kvm \
        -machine q35,kernel-irqchip=split -cpu host \
        -chardev stdio,id=console,signal=off -serial chardev:console \
        -kernel /nested/vmlinuz -initrd /nested/initramfs -append "$(inner_cmdline)" -m 256 \
        -smp "$(inner_cpus)" $devices
}
relay() {
    return=$(printf '\r')
    while IFS= read -r line; do
        line=${line%"$return"}
        case $line in
            "LAB fail "*) say "fail the inner guest: ${line#LAB fail }" ;;
            "LAB "*)
                line=${line#LAB }
                : > "/run/l2-${line%% *}"
                say "l2-$line"
                ;;
            *) echo "L2 $line" ;;
        esac
    done
}
inner() {
    {
        "by_$(setting vmm)" < /dev/null
        say "exit $?"
    } 2>&1 | relay
}
inner_behind() { inner & }
# Once data flows into the inner guest its VMM dies, without a word.
kill_inner() {
    wait_until 600 test -e /run/l2-flowing || fail "kill_inner: no data flows in the inner guest"
    rm /run/l2-*
    kill -9 $(pidof strait qemu-system-x86_64)
    wait
}

# Takes each device from its driver, gives it to vfio-pci and back, a hundred times.
rebind() {
    rounds=0
    while [ $rounds -lt 100 ]; do
        for device in $(passed); do
            path=/sys/bus/pci/devices/0000:$device
            for driver in vfio-pci "$(driver_of "$device")"; do
                echo "0000:$device" > "$path/driver/unbind"
                echo "$driver" > "$path/driver_override"
                echo "0000:$device" > /sys/bus/pci/drivers_probe
                [ "$(driver_of "$device")" = "$driver" ] || fail "rebind: round $rounds: no $driver"
            done
            echo > "$path/driver_override"
        done
        # The driver maps its rings with this, and unmaps them when it loses the device.
        wait_until 60 ip link set eth0 up || fail "rebind: round $rounds: eth0 cannot be brought up"
        rounds=$((rounds + 1))
    done
    say "rounds $rounds"
}
