# Steps of guests that are about one kind of device. Registers and memory of a device are reached by
# devmem; one that no driver takes is enabled by hand.

# function_of VENDOR:DEVICE: the folder of the function with these ids.
function_of() {
    for folder in /sys/bus/pci/devices/*; do
        [ "$(cat "$folder/vendor"):$(cat "$folder/device")" = "$1" ] && echo "$folder" && return
    done
}
# bar FOLDER INDEX: where it starts.
bar() { sed -n "$(($2 + 1))s/ .*//p" "$1/resource"; }
# use FOLDER: it decodes its BARs and may do DMA; its wire is on.
use() {
    [ -e "$1/driver" ] || echo 1 > "$1/enable" || fail "use: $1 cannot be enabled"
    printf '\007\000' | dd of="$1/config" bs=1 seek=4 conv=notrunc 2> /dev/null
}

EDU=0x1234:0x11e8
# edu_at: finds the teaching device (qemu: docs/specs/edu) and its registers.
edu_at() {
    edu=$(function_of $EDU)
    [ -n "$edu" ] || fail "edu: there is no device $EDU"
    use "$edu"
    at=$(bar "$edu" 0)
}
edu_read() { devmem $((at + $1)) 32; }
edu_write() { devmem $((at + $1)) 32 "$2"; }
edu_is_idle() { [ $(($(edu_read $1) & 1)) = 0 ]; }
# Registers, then interrupts by the wire, each raised, taken, acknowledged and switched on again.
edu() {
    drivers
    echo "1234 11e8" > /sys/bus/pci/drivers/uio_pci_generic/new_id
    wait_until 10 test -c /dev/uio0 || fail "edu: no driver takes it"
    edu_at
    say "identity $(edu_read 0)"
    edu_write 4 0x12345678
    say "inverse $(edu_read 4)"
    edu_write 8 12
    wait_until 10 edu_is_idle 0x20 || fail "edu: the factorial takes forever"
    say "factorial $(edu_read 8)"
    exec 3< /dev/uio0
    count=0
    while [ $count -lt 10 ]; do
        count=$((count + 1))
        edu_write 0x60 $count
        taken=$(timeout 20 dd bs=4 count=1 <&3 2> /dev/null | od -A n -t d4 | tr -d ' ')
        [ "$taken" = $count ] || fail "edu: interrupt $count arrived as '$taken'"
        [ $(($(edu_read 0x24))) = $count ] || fail "edu: interrupt status $(edu_read 0x24)"
        edu_write 0x64 $count
        # The driver has set the interrupt disable bit.
        printf '\000' | dd of="$edu/config" bs=1 seek=5 conv=notrunc 2> /dev/null
    done
    say "interrupts $taken"
    say "controller $(controller_of uio_pci_generic)"
}
# edu_copy FROM TO COMMAND: 8 bytes by the device's own DMA.
edu_copy() {
    devmem $((at + 0x80)) 64 $(($1))
    devmem $((at + 0x88)) 64 $(($2))
    devmem $((at + 0x90)) 64 8
    devmem $((at + 0x98)) 64 "$3"
    wait_until 20 edu_is_idle 0x98 || fail "edu: its DMA takes forever"
}
# edu_move FROM TO WORD: from one place to another through the device's buffer.
edu_move() {
    devmem $(($1)) 64 "$3"
    devmem $(($2)) 64 0
    edu_copy "$1" 0x40000 1
    edu_copy 0x40000 "$2" 3
    devmem $(($2)) 64
}
# DMA to RAM, which the command line keeps free of the kernel, and to the memory of another device.
edu_dma() {
    ram=0x8000000
    shared=$(function_of 0x1af4:0x1110)
    [ -n "$shared" ] || fail "edu_dma: there is no shared memory device"
    use "$shared"
    edu_at
    registers=$(bar "$shared" 0)
    devmem $((registers)) 32 0x5a5
    say "mask $(devmem $((registers)) 32)"
    peer=$(bar "$shared" 2)
    say "ram $(edu_move $ram $((ram + 0x1000)) 0x1122334455667788)"
    say "peer $(edu_move $peer $((peer + 0x3ff000)) 0x99aabbccddeeff00)"
    say "both $(edu_move $ram $((peer + 0x200000)) 0x0123456789abcdef)"
}

# Registers of 1 byte, in memory less than a page and in ports: a test writes to the place it names and
# counts the writes (qemu: docs/specs/pci-testdev).
testdev() {
    test=$(function_of 0x1b36:0x0005)
    [ -n "$test" ] || fail "testdev: there is no device 0x1b36:0x0005"
    use "$test"
    at=$(bar "$test" 0)
    devmem $((at)) 8 0
    target=$(devmem $((at + 4)) 32)
    for _ in 1 2 3; do devmem $((at + target)) 8 "$(devmem $((at + 8)) 8)"; done
    say "memory $(devmem $((at + 12)) 32)"
    at=$(bar "$test" 1)
    port_write 0 0
    target=$(port_read 4)
    for _ in 1 2 3 4 5; do port_write "$target" "$(port_read 8)"; done
    say "ports $(port_read 12)"
}
port_read() { dd if=/dev/port bs=1 skip=$((at + $1)) count=1 2> /dev/null | od -A n -t u1 | tr -d ' '; }
port_write() {
    printf "\\$(printf %03o "$2")" | dd of=/dev/port bs=1 seek=$((at + $1)) conv=notrunc 2> /dev/null
}

# A picture in the frame buffer, as the card has it; the command line lets us look past its driver.
display() {
    drivers
    wait_until 30 test -c /dev/fb0 || fail "display: there is no frame buffer"
    card=$(readlink -f /sys/class/graphics/fb0/device)
    say "driver $(basename "$(readlink "$card/driver")")"
    for console in /sys/class/vtconsole/vtcon*; do
        grep -q 'frame buffer' "$console/name" && echo 0 > "$console/bind"
    done
    size=$(tr , ' ' < /sys/class/graphics/fb0/virtual_size)
    say "mode $size $(cat /sys/class/graphics/fb0/bits_per_pixel)"
    dd if=/dev/urandom of=/run/picture bs=4096 count=512 2> /dev/null
    cat /run/picture > /dev/fb0 || fail "display: the frame buffer cannot be written"
    memory=$(bar "$card" 0)
    drawn() {
        for at in 0x80000 0xfff00 0x1ffffc; do
            word=$(od -A n -t x4 -j $((at)) -N 4 /run/picture | tr -d ' ')
            [ $(($(devmem $((memory + at)) 32))) = $((0x$word)) ] || return 1
        done
    }
    wait_until 20 drawn || fail "display: the picture does not reach the card"
    say "picture drawn"
}
# Two seconds of noise, and the interrupts it took.
sound() {
    drivers
    wait_until 30 test -c /dev/dsp || fail "sound: there is no sound device"
    say "codec $(sed -n 's/^Codec: //p' /proc/asound/card0/codec#*)"
    before=$(interrupts_of snd_hda_intel)
    timeout 60 dd if=/dev/urandom of=/dev/dsp bs=4096 count=4 2> /dev/null || fail "sound: it does not play"
    say "interrupts $(($(interrupts_of snd_hda_intel) - before))"
    say "controller $(controller_of snd_hda_intel)"
}
interrupts_of() { sed -n "/$1/s/^ *[0-9]*: *\([0-9]*\) .*/\1/p" /proc/interrupts | head -n 1; }

# The ROM of each device, as a program finds it.
roms() {
    for folder in /sys/bus/pci/devices/0000:0[1-9]:*; do
        found=none
        if [ -e "$folder/rom" ]; then
            use "$folder"
            echo 1 > "$folder/rom"
            found=$(sha256sum < "$folder/rom" | cut -d ' ' -f 1)
        fi
        say "rom $found"
    done
}
# Writes every register of each passed function inverted and back, byte by byte, word by word and by double
# words; the harness looks at the hardware after each. The top bit of the byte that it names for a function is
# spared: it would reset the function.
sweep() {
    set -- $(setting spare | tr , ' ')
    for folder in /sys/bus/pci/devices/0000:0[1-9]:*; do
        config=$folder/config
        cat "$config" > /run/before
        hexdump -v -e '1/1 "%u\n"' /run/before |
            awk -v spare="$1" '{ v = 255 - $1; if (NR == spare + 1) v %= 128; printf "\\%03o", v }' > /run/octal
        shift
        printf "$(cat /run/octal)" > /run/inverted
        say "bytes $(wc -c < /run/inverted)"
        ask
        for width in 1 2 4; do
            overwrite inverted && ask
            overwrite before && ask
        done
    done
}
# overwrite STATE: config space as in the file, and how much is not as it was before.
overwrite() {
    dd if="/run/$1" of="$config" bs=$width conv=notrunc 2> /run/dd || fail "sweep: $(head -n 1 /run/dd)"
    say "$1 $(cmp -l /run/before "$config" | wc -l)"
}
# The NIC's registers where they are, in D3hot, with decoding off, and at another place of its bridge's window.
places() {
    nic=$(function_of 0x8086:0x10c9)
    config=$nic/config
    use "$nic"
    at=$(($(bar "$nic" 0)))
    say "home $(address_at $at)"
    power=$(capability 1)
    poke $((power + 4)) 3 0
    say "asleep $(address_at $at)"
    poke $((power + 4)) 0 0
    say "awake $(address_at $at)"
    poke 4 4 0
    say "off $(address_at $at)"
    # The second of a bridge's windows is for memory; BAR 0 has 128 KiB.
    window=$(sed -n 's/^0x[0-9a-f]* \(0x[0-9a-f]*\) .*/\1/;15p' "$nic/../resource")
    to=$((window + 1 - 0x20000))
    [ $to != $at ] || fail "places: there is no other place at $to"
    poke 16 0 0 $((to >> 16 & 255)) $((to >> 24))
    poke 4 6 0
    say "moved $(address_at $to)"
    say "left $(address_at $at)"
    poke 4 4 0
    poke 16 0 0 $((at >> 16 & 255)) $((at >> 24))
    poke 4 6 0
    say "back $(address_at $at)"
    echo 0 > "$nic/enable"
}
# The low half of the NIC's own address (82576 data sheet, RAL0).
address_at() { devmem $(($1 + 0x5400)) 32; }
byte() { od -A n -t u1 -j "$1" -N 1 "$config" | tr -d ' '; }
# capability ID: where it is.
capability() {
    found=$(byte 52)
    until [ "$found" = 0 ] || [ "$(byte "$found")" = "$1" ]; do found=$(byte $((found + 1))); done
    echo "$found"
}
# poke REGISTER BYTES...: one write.
poke() {
    register=$1
    shift
    printf "$(printf '\\%03o' "$@")" | dd of="$config" bs=$# seek=$((register / $#)) conv=notrunc 2> /dev/null
}
functions() { say "functions $(ls /sys/bus/pci/devices | grep -v '^0000:00' | tr '\n' ' ')"; }

# A second NIC in a network of its own, and both at work together.
second() {
    ip addr add "$(setting second).15/24" dev eth1
    ip link set eth1 up || fail "second: eth1 cannot be brought up"
    wait_until 30 grep -q 1 /sys/class/net/eth1/carrier || fail "second: eth1 has no link"
    download $bytes | sha256sum | cut -d ' ' -f 1 > /run/first &
    wget -q -O - "http://$(setting second).2:$port/bytes/$bytes" | sha256sum | cut -d ' ' -f 1 > /run/second
    wait
    say "first $(cat /run/first)"
    say "second $(cat /run/second)"
}
# The driver loaded and unloaded for each way to interrupt: 0 the wire, 1 MSI, 2 MSI-X. It tries MSI out
# itself, and goes back to the wire where its trial fails.
modes() {
    insert /modules/order.e1000e
    for mode in 0 2 1; do
        rmmod e1000e
        insmod /modules/e1000e.ko IntMode=$mode,$mode || fail "modes: the driver cannot be loaded again"
        wait_until 20 test -e /sys/class/net/eth0 || fail "modes: the NIC is gone"
        ip addr add "$(setting address)/24" dev eth0
        ip link set eth0 up || fail "modes: eth0 cannot be brought up"
        wait_until 30 has_carrier || fail "modes: eth0 has no link"
        ping3
        say "mode $(controller_of eth0)"
    done
}
# The line of /proc/interrupts that both share.
wire() { say "wire $(grep eth0 /proc/interrupts | grep -o 'IO-APIC\|eth[01]' | sort -u | tr '\n' ' ')"; }

# A file system on the drive, with what it takes to boot from it, and much data.
format() {
    drivers
    wait_until 30 test -b /dev/nvme0n1 || fail "format: there is no drive"
    blkdiscard /dev/nvme0n1 || fail "format: the drive does not discard"
    mke2fs /dev/nvme0n1 > /run/mke2fs 2>&1 || fail "format: $(tail -n 1 /run/mke2fs)"
    mkdir -p /disk
    mount -t ext2 /dev/nvme0n1 /disk || fail "format: the file system cannot be mounted"
    cp -a /bin /steps.sh /disk
    sed "s/^for step in .*/for step in verify; do/" /init > /disk/init
    chmod 755 /disk/init
    mkdir /disk/dev /disk/proc /disk/run /disk/sys /disk/new /disk/modules
    say "wrote $(dd if=/dev/urandom bs=1M count=256 2> /dev/null | tee /disk/data | sha256sum | cut -d ' ' -f 1)"
    umount /disk || fail "format: the file system stays busy"
    say "vectors $(grep -c nvme0q /proc/interrupts)"
}
# Little data for a drive that is there beside other devices.
little() { keep /dev/nvme0n1 8; }
# Goes on from the file system on the drive, whose own init verifies it.
boot_from_disk() {
    drivers
    wait_until 30 test -b /dev/nvme0n1 || fail "boot_from_disk: there is no drive"
    mount -t ext2 -o ro /dev/nvme0n1 /new || fail "boot_from_disk: the file system cannot be mounted"
    [ -x /new/init ] || fail "boot_from_disk: the drive has no init"
    umount -l /proc /sys /dev
    exec /bin/busybox switch_root /new /init
}
verify() {
    say "root $(sed -n 's/^\([^ ]*\) \/ .*/\1/p' /proc/mounts | tail -n 1)"
    say "read $(sha256sum < /data | cut -d ' ' -f 1)"
}
