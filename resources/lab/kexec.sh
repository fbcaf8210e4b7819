# A guest that starts another kernel without a reset of the machine.
#   lab.next=dmar,net,ping3  what that kernel does
# stage OPTION: the rest of the command line stays, but for the memory kept for a crash.
stage() {
    line=$(sed "s/lab\.do=[^ ]*/lab.do=$(setting next)/; s/crashkernel=[^ ]*//" /proc/cmdline)
    kexec --kexec-file-syscall "$1" --initrd=/next/initramfs --command-line="$line" /next/vmlinuz ||
        fail "stage: kexec $1 ended with code $?"
}
# In good order: drivers shut their devices down, and the IOMMU is switched off.
hand_over() {
    stage --load
    say "leaves"
    kexec --exec
}
# In none: the NIC and the IOMMU are at work, and the memory that they work on belongs to the dead kernel.
crash() {
    stage --load-panic
    ping -i 1 $server > /dev/null &
    echo c > /proc/sysrq-trigger
}
