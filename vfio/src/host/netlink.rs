//! One message to the kernel's network side: address and VLAN of a virtual function are in no file.

use std::fs;
use std::io;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

use super::vf_link::VfLink;

/// linux/rtnetlink.h, linux/netlink.h, linux/if_link.h.
const RTM_SETLINK: u16 = 19;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST_ACK: u16 = 1 | 4;
const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_VF_INFO: u16 = 1;
const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_VLAN: u16 = 2;
const NLA_F_NESTED: u16 = 1 << 15;

pub(super) fn set_vf_link(interface: &str, index: u32, link: &VfLink) -> io::Result<()> {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?;
    let interface: u32 = text.trim().parse().map_err(io::Error::other)?;
    // NETLINK_ROUTE is protocol 0, which `None` stands for.
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let request = message(interface, index, link);
    sendto(
        &socket,
        &request,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    let mut answer = [0; 4096];
    let (len, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    acknowledged(&answer[..len])
}

/// Header, `ifinfomsg`, and the attributes in their three layers.
fn message(interface: u32, index: u32, link: &VfLink) -> Vec<u8> {
    let mut settings = Vec::new();
    if let Some(mac) = link.mac {
        // struct ifla_vf_mac: the number, then 32 bytes for any kind of address.
        let mut value = index.to_ne_bytes().to_vec();
        value.extend(mac);
        value.resize(4 + 32, 0);
        settings.extend(attribute(IFLA_VF_MAC, &value));
    }
    if let Some(vlan) = link.vlan {
        // struct ifla_vf_vlan: the number, the VLAN, its priority.
        let value = [index, u32::from(vlan), 0].map(u32::to_ne_bytes).concat();
        settings.extend(attribute(IFLA_VF_VLAN, &value));
    }
    let settings = attribute(IFLA_VF_INFO | NLA_F_NESTED, &settings);
    let settings = attribute(IFLA_VFINFO_LIST | NLA_F_NESTED, &settings);
    // struct ifinfomsg: family and type, index, flags, mask.
    let body = [[0; 4], interface.to_ne_bytes(), [0; 4], [0; 4]].concat();
    let len = (16 + body.len() + settings.len()) as u32;
    let mut message = len.to_ne_bytes().to_vec();
    message.extend(RTM_SETLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    // Sequence number and sender: there is one message, and the kernel fills in the sender.
    message.extend([0; 8]);
    message.extend(body);
    message.extend(settings);
    message
}

/// Length and kind, the value, and zeroes up to the next multiple of four.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = 4 + value.len();
    let mut bytes = (len as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(len.next_multiple_of(4), 0);
    bytes
}

/// An "error" with code 0 says that it was done.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let field = |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
    match (kind.map(u16::from_ne_bytes), field(16).map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(io::Error::other("the kernel gave no answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_as_the_kernel_wants_it() {
        let link = VfLink {
            mac: Some([0x52, 0x54, 0, 1, 2, 3]),
            vlan: Some(7),
        };
        let bytes = message(3, 1, &link);
        // Header 16, ifinfomsg 16, two attribute headers, MAC 4 + 36, VLAN 4 + 12.
        assert_eq!(bytes.len(), 16 + 16 + 4 + 4 + 40 + 16);
        assert_eq!(bytes[..4], (bytes.len() as u32).to_ne_bytes());
        assert_eq!(bytes[20..24], 3u32.to_ne_bytes());
        assert_eq!(bytes[48..54], [0x52, 0x54, 0, 1, 2, 3]);
        assert_eq!(bytes[bytes.len() - 8..bytes.len() - 4], 7u32.to_ne_bytes());
    }

    #[test]
    fn answers_are_errors_but_for_zero() {
        let answer = |kind: u16, code: i32| {
            let mut bytes = vec![0; 20];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[16..].copy_from_slice(&code.to_ne_bytes());
            acknowledged(&bytes).map_err(|error| error.raw_os_error())
        };
        assert_eq!(answer(NLMSG_ERROR, 0), Ok(()));
        assert_eq!(answer(NLMSG_ERROR, -libc::EPERM), Err(Some(libc::EPERM)));
        assert_eq!(answer(3, 0), Err(None));
        assert!(acknowledged(&[]).is_err());
    }
}
