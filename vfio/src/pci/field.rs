//! Accesses that fall into a field only in part.

use std::ops::Range;

/// Which bytes of an access to `register` fall into the `len` bytes of a field: where in the field the
/// first of them stands, and their range in the access.
fn overlap(register: u16, access_len: usize, field: u16, len: u16) -> Option<(u16, Range<usize>)> {
    let start = register.max(field);
    let end = (usize::from(register) + access_len).min(usize::from(field) + usize::from(len));
    let range = usize::from(start - register)..end.checked_sub(usize::from(register))?;
    (range.start < range.end).then_some((start - field, range))
}

pub(crate) fn part(register: u16, data: &[u8], field: u16, len: u16) -> Option<(u16, &[u8])> {
    let (at, range) = overlap(register, data.len(), field, len)?;
    Some((at, &data[range]))
}

pub(crate) fn part_mut(register: u16, data: &mut [u8], field: u16, len: u16) -> Option<(u16, &mut [u8])> {
    let (at, range) = overlap(register, data.len(), field, len)?;
    Some((at, &mut data[range]))
}

/// `value` with `bytes` written at byte `at`.
pub(crate) fn with_bytes(value: u16, at: u16, bytes: &[u8]) -> u16 {
    let mut merged = value.to_le_bytes();
    merged[usize::from(at)..][..bytes.len()].copy_from_slice(bytes);
    u16::from_le_bytes(merged)
}
