//! A virtual function as the network sees it.

/// What a virtual function is on the wire; `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VfLink {
    /// Its MAC address; `None` leaves it.
    pub mac: Option<[u8; 6]>,
    /// Its VLAN, 0 for none.
    pub vlan: Option<u16>,
}
