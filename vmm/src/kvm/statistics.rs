//! What KVM counts of a virtual machine and of each vCPU, as the kernel describes it itself (KVM_GET_STATS_FD,
//! Documentation/virt/kvm/api.rst §4.133).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _};
use std::os::unix::fs::FileExt as _;

use kvm_bindings::{
    KVM_STATS_TYPE_CUMULATIVE, KVM_STATS_TYPE_INSTANT, KVM_STATS_TYPE_MASK, KVM_STATS_TYPE_PEAK,
};
use kvm_bindings::{KVMIO, kvm_stats_desc, kvm_stats_header};
use vmm_sys_util::ioctl::ioctl;
use vmm_sys_util::ioctl_io_nr;

ioctl_io_nr!(KVM_GET_STATS_FD, KVMIO, 0xce);

/// Most fields, and most bytes of a name: Linux 6.12 has 45 of a vCPU, with names of up to 48 bytes.
const MAX_FIELDS: u32 = 1024;
const MAX_NAME: u32 = 256;

/// A number that KVM counts or measures.
#[derive(Debug, PartialEq, Eq)]
struct Field {
    name: String,
    /// It only grows; others go up and down, or are the highest that was seen.
    is_count: bool,
    /// Where it is in the data.
    offset: usize,
}

/// The numbers of a virtual machine or of a vCPU. To read them takes no lock of KVM's, and the vCPU runs on.
pub struct Statistics {
    file: File,
    fields: Vec<Field>,
    data_offset: u64,
}

/// A number by its name in Linux.
#[derive(Debug, PartialEq, Eq)]
pub struct Number<'a> {
    /// As in arch/x86/kvm/x86.c and virt/kvm/kvm_main.c.
    pub name: &'a str,
    /// Whether it only grows, so that what is new in it can be told.
    pub is_count: bool,
    /// What it is now.
    pub value: u64,
}

impl Statistics {
    /// Those of the virtual machine or vCPU with this descriptor; Linux has them from 5.14 on.
    ///
    /// # Errors
    /// When the kernel has none, or describes them in another way.
    pub(super) fn of(owner: &impl AsRawFd) -> io::Result<Self> {
        // SAFETY: this ioctl takes no argument, and returns a new descriptor or an error.
        let fd = unsafe { ioctl(owner, KVM_GET_STATS_FD()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else's.
        Self::read_from(unsafe { File::from_raw_fd(fd) })
    }

    fn read_from(file: File) -> io::Result<Self> {
        let mut header = [0; size_of::<kvm_stats_header>()];
        file.read_exact_at(&mut header, 0)?;
        let [_, name_size, count, _, descriptions, data] = words(&header);
        if count > MAX_FIELDS || name_size > MAX_NAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let len = size_of::<kvm_stats_desc>() + name_size as usize;
        let mut bytes = vec![0; len * count as usize];
        file.read_exact_at(&mut bytes, descriptions.into())?;
        Ok(Self {
            file,
            fields: bytes.chunks_exact(len).filter_map(field).collect(),
            data_offset: data.into(),
        })
    }

    /// All numbers as they are now.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn numbers(&self) -> io::Result<Vec<Number<'_>>> {
        let end = self
            .fields
            .iter()
            .map(|field| field.offset + 8)
            .max()
            .unwrap_or(0);
        let mut data = vec![0; end];
        self.file.read_exact_at(&mut data, self.data_offset)?;
        let numbers = self.fields.iter().map(|field| {
            let bytes = data[field.offset..].first_chunk().copied().unwrap_or_default();
            Number {
                name: &field.name,
                is_count: field.is_count,
                value: u64::from_ne_bytes(bytes),
            }
        });
        Ok(numbers.collect())
    }
}

/// The field that is described, if it is one number and no histogram.
fn field(description: &[u8]) -> Option<Field> {
    let (head, name) = description.split_at(size_of::<kvm_stats_desc>());
    let [flags, exponent_and_size, offset, _] = words(head);
    let kind = flags & KVM_STATS_TYPE_MASK;
    let is_number = matches!(
        kind,
        KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_TYPE_INSTANT | KVM_STATS_TYPE_PEAK
    );
    let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    // The data of so many fields ends before that.
    let is_near = offset < MAX_FIELDS * 1024;
    (is_number && exponent_and_size >> 16 == 1 && is_near).then(|| Field {
        name: String::from_utf8_lossy(&name[..len]).into_owned(),
        is_count: kind == KVM_STATS_TYPE_CUMULATIVE,
        offset: offset as usize,
    })
}

/// The first words of a structure whose members are words.
fn words<const COUNT: usize>(bytes: &[u8]) -> [u32; COUNT] {
    let mut words = [0; COUNT];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().expect("chunks of 4 bytes"));
    }
    words
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const NAME: usize = 48;

    /// A file as the kernel makes one, with fields of these types and sizes.
    fn file(fields: &[(&str, u32, u16)], data: &[u64]) -> File {
        let descriptions = 24_u32;
        let data_at = descriptions + fields.len() as u32 * (16 + NAME as u32);
        let mut bytes = Vec::new();
        for word in [0, NAME as u32, fields.len() as u32, 24, descriptions, data_at] {
            bytes.extend(word.to_ne_bytes());
        }
        let mut offset = 0_u32;
        for (name, kind, size) in fields {
            bytes.extend(kind.to_ne_bytes());
            bytes.extend((u32::from(*size) << 16).to_ne_bytes());
            bytes.extend(offset.to_ne_bytes());
            bytes.extend(0_u32.to_ne_bytes());
            let mut text = name.as_bytes().to_vec();
            text.resize(NAME, 0);
            bytes.extend(text);
            offset += u32::from(*size) * 8;
        }
        bytes.extend(data.iter().flat_map(|value| value.to_ne_bytes()));
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&bytes).expect("room");
        file
    }

    #[test]
    fn numbers_are_read_by_their_names_and_histograms_are_left_out() {
        let fields = [
            ("exits", 0, 1),
            ("halt_hist", 4, 2),
            ("guest_mode", 1, 1),
            ("max", 2, 1),
        ];
        let statistics = Statistics::read_from(file(&fields, &[7, 1, 2, 1, 9])).expect("a description");
        let numbers = statistics.numbers().expect("numbers");
        let number = |name, is_count, value| Number {
            name,
            is_count,
            value,
        };
        assert_eq!(
            numbers,
            [
                number("exits", true, 7),
                number("guest_mode", false, 1),
                number("max", false, 9)
            ]
        );
    }

    #[test]
    fn a_file_that_is_none_of_the_kernels_is_refused() {
        assert!(Statistics::read_from(tempfile::tempfile().expect("a file")).is_err());
        let mut odd = tempfile::tempfile().expect("a file");
        odd.write_all(&[0xff; 4096]).expect("room");
        assert!(Statistics::read_from(odd).is_err());
        let short = Statistics::read_from(file(&[("exits", 0, 1)], &[])).expect("a description");
        assert!(short.numbers().is_err());
    }
}
