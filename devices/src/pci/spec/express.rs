//! The PCI Express capability (§7.5.3), version 2. Offsets are bytes from the capability's start.

use bitfield_struct::bitfield;

/// Offsets of the registers.
pub mod offset {
    /// Where [`super::Capabilities`] stands, 16 bits.
    pub const CAPABILITIES: u16 = 0x02;
    /// Where [`super::DeviceCapabilities`] stands, 32 bits.
    pub const DEVICE_CAPABILITIES: u16 = 0x04;
    /// Where [`super::DeviceControl`] stands, 16 bits; its status follows.
    pub const DEVICE_CONTROL: u16 = 0x08;
    /// Where [`super::LinkCapabilities`] stands, 32 bits.
    pub const LINK_CAPABILITIES: u16 = 0x0c;
    /// Where [`super::LinkControl`] stands, 16 bits.
    pub const LINK_CONTROL: u16 = 0x10;
    /// Where [`super::LinkStatus`] stands, 16 bits.
    pub const LINK_STATUS: u16 = 0x12;
    /// Where [`super::SlotCapabilities`] stands, 32 bits.
    pub const SLOT_CAPABILITIES: u16 = 0x14;
    /// Where [`super::SlotControl`] stands, 16 bits.
    pub const SLOT_CONTROL: u16 = 0x18;
    /// Where [`super::SlotStatus`] stands, 16 bits.
    pub const SLOT_STATUS: u16 = 0x1a;
    /// Where [`super::RootControl`] stands, 16 bits.
    pub const ROOT_CONTROL: u16 = 0x1c;
    /// Where [`super::DeviceControl2`] stands, 16 bits.
    pub const DEVICE_CONTROL_2: u16 = 0x28;
    /// Where [`super::LinkCapabilities2`] stands, 32 bits.
    pub const LINK_CAPABILITIES_2: u16 = 0x2c;
    /// Where [`super::LinkControl2`] stands, 16 bits.
    pub const LINK_CONTROL_2: u16 = 0x30;
}

/// Bytes of a version 1 capability of an endpoint.
pub const LEN_V1: u16 = 0x14;
/// Bytes of a version 2 capability up to device status 2, without which it is none.
pub const LEN_V2_LEAST: u16 = 0x2c;
/// Bytes of a version 2 capability, up to slot status 2.
pub const LEN_V2: u16 = 0x3c;

/// What [`Capabilities::port_type`] may say, as far as we build or meet it.
pub mod port_type {
    /// Endpoint behind a port, as most devices are.
    pub const ENDPOINT: u8 = 0;
    /// Root port of a root complex.
    pub const ROOT_PORT: u8 = 4;
    /// Endpoint inside the root complex.
    pub const ROOT_COMPLEX_ENDPOINT: u8 = 9;
}

/// Link speed of 2.5 GT/s, in the link's capabilities, status and control 2.
pub const SPEED_2_5: u8 = 1;

/// Values of [`SlotControl::power_indicator`] and [`SlotControl::attention_indicator`].
pub mod indicator {
    /// The indicator is lit.
    pub const ON: u8 = 1;
    /// Blinks: a change is under way.
    pub const BLINKS: u8 = 2;
    /// The indicator is dark.
    pub const OFF: u8 = 3;
}

/// Express capabilities register, read only (§7.5.3.2).
#[bitfield(u16)]
pub struct Capabilities {
    /// Version of the capability.
    #[bits(4)]
    pub version: u8,
    /// What the function is, see [`port_type`].
    #[bits(4)]
    pub port_type: u8,
    /// The port has a slot.
    pub slot: bool,
    /// The message of the port's own interrupts.
    #[bits(5)]
    pub message: u8,
    #[bits(2)]
    _reserved: u8,
}

/// Device capabilities register, read only (§7.5.3.3).
#[bitfield(u32)]
pub struct DeviceCapabilities {
    /// Largest payload, log2 of 128-byte units.
    #[bits(3)]
    pub payload: u8,
    #[bits(12)]
    _other: u16,
    /// Errors are reported by their role.
    pub role_based_errors: bool,
    #[bits(12)]
    _power: u16,
    /// Function level reset exists.
    pub function_level_reset: bool,
    #[bits(3)]
    _reserved: u8,
}

/// Device control register, written by software (§7.5.3.4).
#[bitfield(u16)]
pub struct DeviceControl {
    /// Which errors are reported: correctable, non-fatal, fatal, unsupported requests.
    #[bits(4)]
    pub reports: u8,
    /// Requests may overtake others.
    pub relaxed_ordering: bool,
    /// Payload used, log2 of 128-byte units.
    #[bits(3)]
    pub payload: u8,
    /// Tags of 8 bits.
    pub extended_tags: bool,
    /// Function numbers as more tags.
    pub phantom_functions: bool,
    /// Auxiliary power may be drawn.
    pub auxiliary_power: bool,
    /// Requests may go past the caches.
    pub no_snoop: bool,
    /// Largest read request, log2 of 128-byte units.
    #[bits(3)]
    pub read_request: u8,
    /// Initiates a function level reset; reads as zero.
    pub initiate_reset: bool,
}

/// Link capabilities register, read only (§7.5.3.6).
#[bitfield(u32)]
pub struct LinkCapabilities {
    /// Highest speed that the link can reach, as the number of a bit in [`LinkCapabilities2::speeds`].
    #[bits(4)]
    pub speed: u8,
    /// Most lanes that the link can use.
    #[bits(6)]
    pub width: u8,
    #[bits(10)]
    _power: u16,
    /// [`LinkStatus::active`] tells whether the link is up.
    pub active_reporting: bool,
    #[bits(3)]
    _other: u8,
    /// Number of the port.
    pub port: u8,
}

/// Link control register, written by software (§7.5.3.7).
#[bitfield(u16)]
pub struct LinkControl {
    /// Active state power management.
    #[bits(2)]
    pub power: u8,
    _reserved: bool,
    /// Read completions end at 128 instead of 64 bytes.
    pub read_completion_boundary: bool,
    /// The link is down.
    pub disable: bool,
    /// Written 1, trains the link again; reads as zero.
    pub retrain: bool,
    /// Both ends have one clock.
    pub common_clock: bool,
    /// The link sends more training sequences, for those who watch it.
    pub extended_synch: bool,
    _other: u8,
}

/// Link status register, read only but for two bits (§7.5.3.8).
#[bitfield(u16)]
pub struct LinkStatus {
    /// Speed that the link has now.
    #[bits(4)]
    pub speed: u8,
    /// Lanes that the link uses now.
    #[bits(6)]
    pub width: u8,
    #[bits(3)]
    _other: u8,
    /// The link is up.
    pub active: bool,
    #[bits(2)]
    _bandwidth: u8,
}

/// Slot capabilities register, read only (§7.5.3.9).
#[bitfield(u32)]
pub struct SlotCapabilities {
    /// There is an attention button.
    pub button: bool,
    /// The slot can be switched off.
    pub power_controller: bool,
    /// There is a latch.
    pub latch: bool,
    /// There is an attention indicator.
    pub attention_indicator: bool,
    /// There is a power indicator.
    pub power_indicator: bool,
    /// A device may leave without a word.
    pub surprise: bool,
    /// Devices may come and go.
    pub hot_plug: bool,
    #[bits(10)]
    _power_limit: u16,
    /// There is an interlock.
    pub interlock: bool,
    /// Commands are done when the write returns, and no event tells so.
    pub no_command_event: bool,
    /// Number of the slot.
    #[bits(13)]
    pub number: u16,
}

/// Slot control register, by which software works the slot (§7.5.3.10).
#[bitfield(u16)]
pub struct SlotControl {
    /// Software wants to hear of the attention button.
    pub hears_button: bool,
    /// Software wants to hear of power faults.
    pub hears_fault: bool,
    /// Software wants to hear of the latch.
    pub hears_latch: bool,
    /// Of devices that come and go.
    pub hears_presence: bool,
    /// Software wants to hear of completed commands.
    pub hears_command: bool,
    /// What software wants to hear of comes as an interrupt.
    pub interrupts: bool,
    /// How the attention indicator shines, see [`indicator`].
    #[bits(2)]
    pub attention_indicator: u8,
    /// How the power indicator shines, see [`indicator`].
    #[bits(2)]
    pub power_indicator: u8,
    /// The slot has no power.
    pub power_off: bool,
    /// Written 1, moves the interlock; reads as zero.
    pub interlock: bool,
    /// Software wants to hear of the link.
    pub hears_link: bool,
    #[bits(3)]
    _reserved: u8,
}

/// Slot status (§7.5.3.11). What happened is cleared by a written 1.
#[bitfield(u16)]
pub struct SlotStatus {
    /// The attention button was pressed.
    pub button: bool,
    /// The slot's power failed.
    pub fault: bool,
    /// The latch was moved.
    pub latch: bool,
    /// A device came or went.
    pub presence_changed: bool,
    /// A command was completed.
    pub command: bool,
    /// The latch is open.
    pub latch_open: bool,
    /// A device is there.
    pub present: bool,
    /// The interlock is engaged.
    pub interlock: bool,
    /// The link came or went.
    pub link_changed: bool,
    #[bits(7)]
    _reserved: u8,
}

/// Root control register, written by software (§7.5.3.12).
#[bitfield(u16)]
pub struct RootControl {
    /// Which errors become system errors: correctable, non-fatal, fatal.
    #[bits(3)]
    pub system_errors: u8,
    /// Power management events interrupt.
    pub power_events: bool,
    /// Requests to be retried are shown to software.
    pub retry_visible: bool,
    #[bits(11)]
    _reserved: u16,
}

/// Device control 2 (§7.5.3.16).
#[bitfield(u16)]
pub struct DeviceControl2 {
    /// How long a completion may take.
    #[bits(4)]
    pub completion_timeout: u8,
    /// A completion may take for ever.
    pub no_completion_timeout: bool,
    /// Function numbers of 8 bits are forwarded.
    pub ari_forwarding: bool,
    #[bits(10)]
    _other: u16,
}

/// Link capabilities 2 (§7.5.3.18).
#[bitfield(u32)]
pub struct LinkCapabilities2 {
    _reserved: bool,
    /// A bit a speed, 2.5 GT/s the lowest.
    #[bits(7)]
    pub speeds: u8,
    #[bits(24)]
    _other: u32,
}

/// Link control 2 (§7.5.3.19).
#[bitfield(u16)]
pub struct LinkControl2 {
    /// The speed to reach.
    #[bits(4)]
    pub target_speed: u8,
    #[bits(12)]
    _other: u16,
}
