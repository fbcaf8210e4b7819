# A guest that gives a device to vfio-pci, and the harness's own program driving it there.
#   lab.probe=WORD,...  what the program shall do
#   lab.huge=never      whether its memory may be large pages (always)
probe() {
    drivers
    huge=$(setting huge)
    echo "${huge:-always}" > /sys/kernel/mm/transparent_hugepage/enabled
    device=/sys/bus/pci/devices/0000:01:00.0
    [ ! -e $device/driver ] || echo 0000:01:00.0 > $device/driver/unbind
    echo vfio-pci > $device/driver_override
    echo 0000:01:00.0 > /sys/bus/pci/drivers_probe
    [ -e $device/driver ] || fail "probe: vfio-pci does not take the device"
    lab probe $(setting probe | tr , ' ') 0000:01:00.0 || fail "probe: it ended with code $?"
}
