//! The PCI Express capability of a root port (PCIe §7.5.3).

use crate::pci::config_space::ConfigSpace;
use crate::pci::spec::capability_id;
use crate::pci::spec::express::{
    Capabilities, DeviceCapabilities, DeviceControl, DeviceControl2, LinkCapabilities, LinkCapabilities2,
    LinkControl, LinkControl2, LinkStatus, RootControl, SPEED_2_5, offset, port_type,
};

/// Bytes of the capability.
pub use crate::pci::spec::express::LEN_V2 as LEN;

const CAPABILITIES: Capabilities = Capabilities::new()
    .with_version(2)
    .with_port_type(port_type::ROOT_PORT);
const DEVICE_CAPABILITIES: DeviceCapabilities = DeviceCapabilities::new().with_role_based_errors(true);
const DEVICE_CONTROL_WRITABLE: DeviceControl = DeviceControl::new()
    .with_reports(0xf)
    .with_relaxed_ordering(true)
    .with_payload(0x7)
    .with_read_request(0x7);
const LINK_CAPABILITIES: LinkCapabilities = LinkCapabilities::new()
    .with_speed(SPEED_2_5)
    .with_width(1)
    .with_active_reporting(true);
const LINK_STATUS: LinkStatus = LinkStatus::new()
    .with_speed(SPEED_2_5)
    .with_width(1)
    .with_active(true);
const LINK_CONTROL_WRITABLE: LinkControl = LinkControl::new()
    .with_power(0x3)
    .with_read_completion_boundary(true)
    .with_disable(true)
    .with_retrain(true)
    .with_common_clock(true)
    .with_extended_synch(true);
const ROOT_CONTROL_WRITABLE: RootControl = RootControl::new()
    .with_system_errors(0x7)
    .with_power_events(true)
    .with_retry_visible(true);
const DEVICE_CONTROL_2_WRITABLE: DeviceControl2 = DeviceControl2::new()
    .with_completion_timeout(0xf)
    .with_no_completion_timeout(true)
    .with_ari_forwarding(true);
const LINK_CAPABILITIES_2: LinkCapabilities2 = LinkCapabilities2::new().with_speeds(1);
const LINK_CONTROL_2: LinkControl2 = LinkControl2::new().with_target_speed(SPEED_2_5);

/// Adds the capability at `at`, without a slot, and links it to `next`.
pub fn add_root_port(config: &mut ConfigSpace, at: u16, next: u8, port: u8) {
    config.set(at, &[capability_id::EXPRESS, next]);
    config.set(at + offset::CAPABILITIES, &bytes_16(CAPABILITIES));
    config.set(at + offset::DEVICE_CAPABILITIES, &bytes_32(DEVICE_CAPABILITIES));
    config.allow_write(at + offset::DEVICE_CONTROL, &bytes_16(DEVICE_CONTROL_WRITABLE));
    let link = LINK_CAPABILITIES.with_port(port);
    config.set(at + offset::LINK_CAPABILITIES, &bytes_32(link));
    config.allow_write(at + offset::LINK_CONTROL, &bytes_16(LINK_CONTROL_WRITABLE));
    config.set(at + offset::LINK_STATUS, &bytes_16(LINK_STATUS));
    config.allow_write(at + offset::ROOT_CONTROL, &bytes_16(ROOT_CONTROL_WRITABLE));
    config.allow_write(
        at + offset::DEVICE_CONTROL_2,
        &bytes_16(DEVICE_CONTROL_2_WRITABLE),
    );
    config.set(at + offset::LINK_CAPABILITIES_2, &bytes_32(LINK_CAPABILITIES_2));
    config.set(at + offset::LINK_CONTROL_2, &bytes_16(LINK_CONTROL_2));
}

fn bytes_16(register: impl Into<u16>) -> [u8; 2] {
    register.into().to_le_bytes()
}

fn bytes_32(register: impl Into<u32>) -> [u8; 4] {
    register.into().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every register as Linux reads it, against the values of the specification's tables.
    #[test]
    fn registers_are_where_and_what_the_specification_says() {
        let mut config = ConfigSpace::new();
        add_root_port(&mut config, 0x40, 0x80, 3);
        assert_eq!(config.u32(0x40), 0x0042_8010);
        assert_eq!(config.u32(0x44), 0x0000_8000);
        assert_eq!(config.u32(0x4c), 0x0310_0011);
        assert_eq!(config.u32(0x50), 0x2011_0000);
        assert_eq!((config.u32(0x6c), config.u32(0x70)), (0x2, 0x1));
        config.write(0x48, &[0xff; 2]);
        config.write(0x50, &[0xff; 2]);
        config.write(0x5c, &[0xff; 2]);
        config.write(0x68, &[0xff; 2]);
        assert_eq!((config.u16(0x48), config.u16(0x50)), (0x70ff, 0x00fb));
        assert_eq!((config.u16(0x5c), config.u16(0x68)), (0x001f, 0x003f));
    }
}
