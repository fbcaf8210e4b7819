//! The VMMs that are measured, each with the command line that serves it best.

use std::env;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::device::Device;
use super::image::Image;

/// RAM of the guest that is measured, in MiB.
pub(super) const MEMORY_MIB: u64 = 512;

/// A further VMM, `NAME=PATH`.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    kind: Kind,
    path: PathBuf,
}

/// Whose command line it takes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Strait,
    Qemu,
    CloudHypervisor,
    Crosvm,
    Kvmtool,
}

const KINDS: [(&str, Kind); 5] = [
    ("strait", Kind::Strait),
    ("qemu", Kind::Qemu),
    ("cloud-hypervisor", Kind::CloudHypervisor),
    ("crosvm", Kind::Crosvm),
    ("kvmtool", Kind::Kvmtool),
];

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || KINDS.map(|(name, _)| name).join(", ");
        let (name, path) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not NAME=PATH, with a name of {}", known()))?;
        let kind = KINDS.iter().find(|(known, _)| *known == name);
        let (_, kind) = kind.ok_or_else(|| format!("`{name}` is none of {}", known()))?;
        Ok(Self {
            kind: *kind,
            path: PathBuf::from(path),
        })
    }
}

impl Peer {
    /// The strait that was found beside this program or on PATH.
    pub(super) fn strait(path: PathBuf) -> Self {
        Self {
            kind: Kind::Strait,
            path,
        }
    }

    /// This host's QEMU, if it is on PATH.
    pub(super) fn qemu() -> Option<Self> {
        let path = on_path("qemu-system-x86_64")?;
        Some(Self {
            kind: Kind::Qemu,
            path,
        })
    }

    pub(super) fn name(&self) -> &'static str {
        let own = KINDS.iter().find(|(_, kind)| *kind == self.kind);
        own.map_or("", |(name, _)| name)
    }

    /// The program's own file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The words that start a guest with the device and its console on standard input and output.
    pub(super) fn command(&self, image: &Image, device: &Device, cmdline: &str) -> Vec<String> {
        let (kernel, initrd) = (image.kernel.to_string_lossy(), image.initrd.to_string_lossy());
        let address = &device.address;
        let text = match self.kind {
            Kind::Strait => format!(
                "run --kernel {kernel} --initrd {initrd} --cmdline @ --memory {MEMORY_MIB}M --cpus 1 --device {address}"
            ),
            Kind::Qemu => format!(
                "-nodefaults -no-user-config -display none -accel kvm -machine q35,kernel-irqchip=split -cpu host \
                 -chardev stdio,id=console,signal=off -serial chardev:console -kernel {kernel} -initrd {initrd} -append @ \
                 -m {MEMORY_MIB} -smp 1 -device pcie-root-port,id=port0 -device vfio-pci,host={address},bus=port0,rombar=0"
            ),
            Kind::CloudHypervisor => format!(
                "--kernel {kernel} --initramfs {initrd} --cmdline @ --memory size={MEMORY_MIB}M --cpus boot=1 --console off \
                 --serial tty --device path=/sys/bus/pci/devices/{address}/"
            ),
            Kind::Crosvm => format!(
                "run --disable-sandbox --mem {MEMORY_MIB} --cpus 1 --initrd {initrd} --params @ --serial \
                 type=stdout,hardware=serial,console,stdin --vfio /sys/bus/pci/devices/{address} {kernel}"
            ),
            Kind::Kvmtool => format!(
                "run --kernel {kernel} --initrd {initrd} --params @ --mem {MEMORY_MIB} --cpus 1 --console serial \
                 --vfio-pci {address}"
            ),
        };
        let words = text
            .split_whitespace()
            .map(|word| if word == "@" { cmdline } else { word });
        let program = self.path.to_string_lossy().into_owned();
        std::iter::once(program).chain(words.map(str::to_owned)).collect()
    }
}

/// A program as a shell would find it.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let mut places = env::split_paths(&path).map(|folder| folder.join(program));
    places.find(|place| place.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_hands_over_the_device_and_the_words_for_the_kernel() {
        let image = Image::given(Path::new("/k"), Path::new("/i"));
        let device = Device {
            address: "0000:01:00.0".to_owned(),
            ids: String::new(),
            class: 0,
        };
        for (name, kind) in KINDS {
            let peer = Peer {
                kind,
                path: PathBuf::from("/bin/vmm"),
            };
            let words = peer.command(&image, &device, "console=ttyS0 quiet");
            assert_eq!(words[0], "/bin/vmm");
            assert!(
                words.iter().any(|word| word.contains("0000:01:00.0")),
                "{name}: {words:?}"
            );
            assert_eq!(
                words.iter().filter(|word| *word == "console=ttyS0 quiet").count(),
                1,
                "{name}"
            );
            assert!(
                words.iter().any(|word| word == "/k") && words.iter().any(|word| word == "/i"),
                "{name}"
            );
        }
    }

    #[test]
    fn the_root_port_of_qemu_has_a_name_that_is_none_of_its_properties() {
        let qemu: Peer = "qemu=/bin/qemu".parse().expect("a peer");
        let image = Image::given(Path::new("/k"), Path::new("/i"));
        let device = Device {
            address: "0000:01:00.0".to_owned(),
            ids: String::new(),
            class: 0,
        };
        // QEMU ends with "attempt to add duplicate property 'port'" where it is called so.
        let words = qemu.command(&image, &device, "").join(" ");
        assert!(
            words.contains("pcie-root-port,id=port0 ") && words.contains(",bus=port0,"),
            "{words}"
        );
    }

    #[test]
    fn a_peer_is_a_name_that_is_known_and_a_path() {
        let peer: Peer = "crosvm=/opt/crosvm".parse().expect("a peer");
        assert_eq!((peer.name(), peer.path()), ("crosvm", Path::new("/opt/crosvm")));
        let says = |text: &str| text.parse::<Peer>().expect_err("no peer");
        assert!(says("crosvm").contains("is not NAME=PATH"));
        assert!(says("bochs=/x").contains("`bochs` is none of strait, qemu"));
    }
}
