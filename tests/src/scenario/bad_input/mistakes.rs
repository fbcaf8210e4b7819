//! The table of mistakes: what is prepared, what is typed, and what the one line must say.

/// One mistake. In the scripts `$K` and `$I` are a good kernel and initramfs, `$NIC` the igb;
/// `bind` and `restore` give a device to vfio-pci and back.
#[derive(Clone, Copy)]
pub(super) struct Mistake {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) prepare: &'static str,
    pub(super) run: &'static str,
    pub(super) undo: &'static str,
    pub(super) codes: &'static [i32],
    /// Each must be said; alternatives stand between bars.
    pub(super) words: &'static [&'static str],
}

const ERROR: &[i32] = &[1];
const USAGE: &[i32] = &[2];
/// Where a reader may take it for either.
const EITHER: &[i32] = &[1, 2];

const fn typed(
    name: &'static str,
    about: &'static str,
    run: &'static str,
    codes: &'static [i32],
    words: &'static [&'static str],
) -> Mistake {
    Mistake {
        name,
        about,
        prepare: ":",
        run,
        undo: ":",
        codes,
        words,
    }
}

impl Mistake {
    const fn after(mut self, prepare: &'static str) -> Self {
        self.prepare = prepare;
        self
    }

    const fn then(mut self, undo: &'static str) -> Self {
        self.undo = undo;
        self
    }
}

pub(super) const COMMAND_LINE: &[Mistake] = &[
    typed(
        "bad-no-kernel",
        "no --kernel",
        "strait run $I",
        USAGE,
        &["--kernel"],
    ),
    typed(
        "bad-memory-zero",
        "no memory",
        "strait run $K $I --memory 0",
        EITHER,
        &["memory", "0"],
    ),
    typed(
        "bad-memory-word",
        "memory that is no number",
        "strait run $K $I --memory lots",
        USAGE,
        &["lots"],
    ),
    typed(
        "bad-memory-pages",
        "pages that no CPU has",
        "strait run $K $I --memory 512M,hugepages=4M",
        USAGE,
        &["hugepages", "none of 2M, 1G, auto and off"],
    ),
    typed(
        "bad-memory-pool",
        "pages that the host has too few of",
        "strait run $K $I --memory 512M,hugepages=2M",
        ERROR,
        &["of pages of 2M the guest takes 256", "add them with: echo 256 > /sys/kernel/mm/hugepages"],
    ),
    typed(
        "bad-memory-node",
        "a node of memory that is not there",
        "strait run $K $I --memory 512M,host-nodes=9",
        ERROR,
        &["host-nodes=9", "in node 0 alone"],
    ),
    typed(
        "bad-memory-small",
        "less memory than the machine takes",
        "strait run $K $I --memory 1M",
        EITHER,
        &["memory|M"],
    ),
    typed(
        "bad-memory-huge",
        "more memory than an address holds",
        "strait run $K $I --memory 99999999999999T",
        EITHER,
        &["memory|99999999999999T"],
    ),
    typed(
        "bad-memory-host",
        "more memory than the host has",
        "strait run $K $I --memory 100G",
        EITHER,
        &["memory", "100|102400|host"],
    ),
    typed(
        "bad-cpus-zero",
        "no CPU",
        "strait run $K $I --cpus 0",
        EITHER,
        &["cpu", "0"],
    ),
    typed(
        "bad-cpus-many",
        "a thousand CPUs",
        "strait run $K $I --cpus 1000",
        EITHER,
        &["cpu", "1000|64"],
    ),
    typed(
        "bad-cpu-model",
        "a CPU model that does not exist",
        "strait run $K $I --cpu qemu64",
        USAGE,
        &["qemu64", "host"],
    ),
    typed(
        "bad-viommu-key",
        "an unknown key of --viommu names the known ones",
        "strait run $K $I --viommu intel,device-iotlb=on",
        USAGE,
        &["device-iotlb", "caching-mode", "aw-bits"],
    ),
    typed(
        "bad-viommu-width",
        "a width that tables do not have",
        "strait run $K $I --viommu intel,aw-bits=57",
        USAGE,
        &["57", "39", "48"],
    ),
    typed(
        "bad-device-key",
        "an unknown key names the known ones",
        "strait run $K $I --device vfio-pci,hots=01:00.0",
        EITHER,
        &["hots", "host"],
    ),
    typed(
        "bad-device-name",
        "a device that is no address, nor anything the host has",
        "strait run $K $I --device eth77",
        EITHER,
        &["eth77"],
    ),
    typed(
        "bad-cmdline-long",
        "a longer command line than the kernel takes",
        "strait run $K $I --cmdline $(head -c 5000 /dev/zero | tr '\\0' x)",
        EITHER,
        &["cmdline|command line", "2047|2048|5000|4096"],
    ),
];

pub(super) const IMAGES: &[Mistake] = &[
    typed(
        "bad-kernel-missing",
        "the kernel file is not there",
        "strait run --kernel /tmp/nope",
        ERROR,
        &["/tmp/nope", "no such file|not exist|not found"],
    ),
    typed(
        "bad-kernel-folder",
        "the kernel is a folder",
        "strait run --kernel /tmp",
        ERROR,
        &["/tmp"],
    ),
    typed(
        "bad-kernel-empty",
        "the kernel file is empty",
        "strait run --kernel /tmp/empty",
        ERROR,
        &["/tmp/empty", "empty|short|truncated"],
    )
    .after(": > /tmp/empty"),
    typed(
        "bad-kernel-truncated",
        "half a bzImage",
        "strait run --kernel /tmp/half",
        ERROR,
        &["/tmp/half", "truncated|short|cut|incomplete|ends"],
    )
    .after("head -c 3000000 /lab/guest/vmlinuz-6.12 > /tmp/half")
    .then("rm /tmp/half"),
    typed(
        "bad-vmlinux-truncated",
        "half a vmlinux",
        "strait run --kernel /tmp/half",
        ERROR,
        &["/tmp/half", "truncated|short|cut|incomplete|ends|beyond"],
    )
    .after("head -c 3000000 /lab/guest/vmlinux-6.12 > /tmp/half")
    .then("rm /tmp/half"),
    typed(
        "bad-kernel-text",
        "the kernel is a text",
        "strait run --kernel /lab/host-start.sh",
        ERROR,
        &["/lab/host-start.sh", "not a|neither|bzImage"],
    ),
    typed(
        "bad-kernel-program",
        "the kernel is a program: an ELF file without a PVH note",
        "strait run --kernel /usr/bin/strace",
        ERROR,
        &["/usr/bin/strace", "PVH|kernel"],
    ),
    // e_ident[EI_CLASS] = 1 and e_machine = EM_386.
    typed(
        "bad-kernel-32-bit",
        "a 32-bit ELF file",
        "strait run --kernel /tmp/elf32",
        ERROR,
        &["/tmp/elf32", "32-bit|64-bit"],
    )
    .after(
        "{ printf '\\177ELF\\1\\1\\1\\0\\0\\0\\0\\0\\0\\0\\0\\0\\2\\0\\3\\0\\1\\0\\0\\0'; head -c 4096 /dev/zero; } > /tmp/elf32",
    ),
    // XLF_KERNEL_64 is bit 0 of xloadflags at 0x236, Documentation/arch/x86/boot.rst.
    typed(
        "bad-bzimage-32-bit",
        "a bzImage without a 64-bit entry",
        "strait run --kernel /tmp/bz32",
        ERROR,
        &["/tmp/bz32", "32-bit|64-bit"],
    )
    .after(
        "cp /lab/guest/vmlinuz-6.12 /tmp/bz32; printf '\\0\\0' | dd of=/tmp/bz32 bs=1 seek=566 conv=notrunc",
    )
    .then("rm /tmp/bz32"),
    typed(
        "bad-kernel-large",
        "a kernel that does not fit the memory given",
        "strait run --kernel /tmp/large --memory 64M",
        ERROR,
        &["memory|fit", "M|bytes"],
    )
    // init_size at 0x260: what the kernel says it needs, here 256 MiB.
    .after(
        "cp /lab/guest/vmlinuz-6.12 /tmp/large; printf '\\0\\0\\0\\20' | dd of=/tmp/large bs=1 seek=608 conv=notrunc",
    )
    .then("rm /tmp/large"),
    typed(
        "bad-initrd-missing",
        "the initrd is not there",
        "strait run $K --initrd /tmp/nope",
        ERROR,
        &["/tmp/nope", "no such file|not exist|not found"],
    ),
    typed(
        "bad-initrd-large",
        "an initrd that does not fit",
        "strait run $K --initrd /tmp/initrd --memory 512M",
        ERROR,
        &["initrd|initramfs", "fit|memory"],
    )
    .after("truncate -s 600M /tmp/initrd")
    .then("rm /tmp/initrd"),
];

pub(super) const DEVICES: &[Mistake] = &[
    typed(
        "bad-device-absent",
        "no such device",
        "strait run $K $I --device 0000:7f:00.0",
        ERROR,
        &[
            "7f:00.0",
            "no such|not exist|not there|no pci device|not found|no device",
        ],
    ),
    typed(
        "bad-device-driver",
        "a device that the host's driver holds: its name and the remedy",
        "strait run $K $I --device 0000:01:00.0",
        ERROR,
        &["01:00.0", "igb", "vfio-pci", "driver_override|bind"],
    ),
    typed(
        "bad-device-no-driver",
        "a device without a driver",
        "strait run $K $I --device 0000:00:10.0",
        ERROR,
        &["00:10.0", "vfio-pci"],
    ),
    typed(
        "bad-device-bridge",
        "a bridge",
        "strait run $K $I --device 0000:00:04.0",
        ERROR,
        &["00:04.0", "bridge|root port"],
    ),
    typed(
        "bad-device-twice",
        "the same device twice, by two names",
        "strait run $K $I --device $NIC --device 01:00.0",
        EITHER,
        &["01:00.0", "twice|more than once|already|repeated|duplicate"],
    )
    .after("bind $NIC")
    .then("restore $NIC"),
    typed(
        "bad-device-group",
        "a group that another driver shares: the culprit and its driver",
        "strait run $K $I --device 0000:05:00.0",
        ERROR,
        &["05:00.0", "05:00.1", "e1000e"],
    )
    .after("bind 0000:05:00.0")
    .then("restore 0000:05:00.0"),
    typed(
        "bad-device-in-use",
        "a group that another process has open",
        "strait run $K $I --device $NIC",
        ERROR,
        &["use|busy|another"],
    )
    .after(
        "bind $NIC; group=$(basename $(readlink /sys/bus/pci/devices/$NIC/iommu_group)); \
         sleep 60 < /dev/vfio/$group & holder=$!; sleep 0.5",
    )
    .then("kill $holder; wait $holder; restore $NIC"),
    typed(
        "bad-memlock",
        "a limit on locked memory below the guest's memory",
        "setpriv --bounding-set=-ipc_lock strait run $K $I --device $NIC",
        ERROR,
        &["memlock|locked memory|lock", "512|536870912|M"],
    )
    .after("bind $NIC; ulimit -l 1024")
    .then("restore $NIC"),
];

pub(super) const HOST: &[Mistake] = &[
    typed(
        "bad-kvm-permission",
        "a user who may not open /dev/kvm",
        "setpriv --reuid 65534 --clear-groups strait run $K $I",
        ERROR,
        &["/dev/kvm", "permission|denied|group"],
    ),
    typed(
        "bad-kvm-absent",
        "the KVM module is not loaded",
        "strait run $K $I",
        ERROR,
        &["/dev/kvm", "kvm_amd|modprobe|module|no such file|not exist"],
    )
    .after("unload_kvm")
    .then("load_kvm"),
    typed(
        "bad-kvm-hardware",
        "a CPU without virtualisation",
        "unshare --mount bash -c 'mount --bind /tmp/cpuinfo /proc/cpuinfo; exec strait run $0' \"$K $I\"",
        ERROR,
        &["svm|vmx|amd-v|vt-x|virtualis|virtualiz|hardware"],
    )
    .after("sed 's/ svm / /' /proc/cpuinfo > /tmp/cpuinfo; unload_kvm")
    .then("load_kvm"),
];

/// On a lab host that was started without an IOMMU.
pub(super) const WITHOUT_IOMMU: &[Mistake] = &[typed(
    "bad-no-iommu",
    "the IOMMU is off: how to turn it on",
    "strait run $K $I --device 0000:01:00.0",
    ERROR,
    &[
        "01:00.0",
        "iommu",
        "intel_iommu=on|amd_iommu|firmware|bios|kernel command line",
    ],
)];
