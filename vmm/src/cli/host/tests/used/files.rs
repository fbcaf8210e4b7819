//! Device files that a process has open.

use super::*;

pub(super) const FILES: &[Used] = &[
    used(
        "a card of NVIDIA's driver",
        |host| {
            nvidia(host);
            let folder = format!("sys/devices/pci0000:00/{GPU_PATH}/drm/card0");
            host.file(&format!("{folder}/uevent"), "DEVNAME=dri/card0\n");
            host.add_process(812, "Xorg", "/dev/dri/card0");
            host.add_process(812, "Xorg", "/dev/nvidia0");
        },
        GPU,
        "process 812 (Xorg) has /dev/nvidia0 open, and the driver would wait for it for ever",
        "end process 812 (Xorg)",
    ),
    used(
        "a card of NVIDIA's driver that only draws",
        |host| {
            nvidia(host);
            let folder = format!("sys/devices/pci0000:00/{GPU_PATH}/drm/card0");
            host.file(&format!("{folder}/uevent"), "DEVNAME=dri/card0\n");
            host.add_process(812, "plymouthd", "/dev/dri/card0");
        },
        GPU,
        "process 812 (plymouthd) has /dev/dri/card0 open, and the driver would wait for it for ever",
        "end process 812 (plymouthd)",
    ),
    used(
        "a group of NVIDIA's card with a guest",
        |host| {
            nvidia(host);
            host.add_process(4711, "qemu-system-x86", "/dev/vfio/17");
        },
        GPU,
        "process 4711 (qemu-system-x86) has /dev/vfio/17 open",
        "end process 4711 (qemu-system-x86)",
    ),
    used(
        "a card of amdgpu that computes",
        |host| {
            bound(host, "amdgpu");
            host.add_process(812, "python3", "/dev/kfd");
        },
        GPU,
        "process 812 (python3) has /dev/kfd open",
        "end process 812 (python3)",
    ),
    used(
        "a guest that has a mediated device",
        |host| {
            host.link(
                &format!("sys/devices/pci0000:00/{GPU_PATH}/4d3c-uuid/iommu_group"),
                "sys/kernel/iommu_groups/99",
            );
            host.add_process(4711, "qemu-system-x86", "/dev/vfio/99");
        },
        GPU,
        "process 4711 (qemu-system-x86) has /dev/vfio/99 open",
        "end process 4711 (qemu-system-x86)",
    ),
    used(
        "a NIC of DPDK",
        |host| {
            let folder = format!("sys/devices/pci0000:00/{NIC_PATH}/uio/uio0");
            host.file(&format!("{folder}/uevent"), "MAJOR=240\nMINOR=0\nDEVNAME=uio0\n");
            host.add_process(55, "dpdk-testpmd", "/dev/uio0");
        },
        NIC,
        "process 55 (dpdk-testpmd) has /dev/uio0 open",
        "end process 55 (dpdk-testpmd)",
    ),
    used(
        "a file of it in a chroot",
        |host| {
            let folder = format!("sys/devices/pci0000:00/{GPU_PATH}/drm/renderD128");
            host.file(&format!("{folder}/uevent"), "DEVNAME=dri/renderD128\n");
            host.add_process(90, "ffmpeg", "/srv/chroot/dev/dri/renderD128 (deleted)");
        },
        GPU,
        "process 90 (ffmpeg) has /dev/dri/renderD128 open",
        "end process 90 (ffmpeg)",
    ),
    used(
        "a keyboard behind a USB controller",
        |host| {
            let folder = "sys/devices/pci0000:00/0000:00:05.0/usb1/1-1/1-1:1.0/0003:046D:C31C.0001/input/input5/event3";
            host.file(
                &format!("{folder}/uevent"),
                "MAJOR=13\nMINOR=67\nDEVNAME=input/event3\n",
            );
            host.add_process(600, "systemd-logind", "/dev/input/event3");
        },
        "0000:00:05.0",
        "process 600 (systemd-logind) has /dev/input/event3 open",
        "end process 600 (systemd-logind)",
    ),
    used(
        "a serial card with somebody logged in",
        |host| {
            let folder = "sys/devices/pci0000:00/0000:00:05.0/tty/ttyS4";
            host.file(&format!("{folder}/uevent"), "DEVNAME=ttyS4\n");
            host.add_process(700, "agetty", "/dev/ttyS4");
            let group = "0::/system.slice/system-serial\\x2dgetty.slice/serial-getty@ttyS4.service\n";
            host.file("proc/700/cgroup", group);
        },
        "0000:00:05.0",
        "process 700 (agetty) has /dev/ttyS4 open",
        "systemctl stop serial-getty@ttyS4.service",
    ),
    used(
        "sound that a user's service plays",
        |host| {
            let folder = "sys/devices/pci0000:00/0000:00:04.0/0000:05:00.1/sound/card0/controlC0";
            host.file(&format!("{folder}/uevent"), "DEVNAME=snd/controlC0\n");
            host.add_process(900, "pipewire", "/dev/snd/controlC0");
            let slice = "0::/user.slice/user-1000.slice/user@1000.service/session.slice";
            host.file("proc/900/cgroup", &format!("{slice}/pipewire.service\n"));
        },
        SOUND,
        "process 900 (pipewire) has /dev/snd/controlC0 open",
        "systemctl stop --user -M 1000@ pipewire.service",
    ),
    used(
        "a watchdog that init feeds",
        |host| {
            let folder = "sys/devices/pci0000:00/0000:00:05.0/watchdog/watchdog0";
            host.file(&format!("{folder}/uevent"), "DEVNAME=watchdog0\n");
            host.add_process(1, "systemd", "/dev/watchdog0");
            host.file("proc/1/cgroup", "0::/init.scope\n");
        },
        "0000:00:05.0",
        "process 1 (systemd) has /dev/watchdog0 open",
        "pass another device, since the host runs by systemd",
    ),
];
