//! Devices that come to a running guest, and leave it, by the wish of a client of the control socket.
//!
//! Everything that can fail happens before the guest sees anything: `reception.rs` opens the device and lets it reach
//! memory, then its BARs are held against the slot's windows. What a guest is asked to let go of is in
//! `unplug.rs`.

use std::time::Instant;

use strait_devices::Chain;
use strait_vfio::host::{HostBdf, Root};

use super::board::Board;
use super::error::RunError;
use super::passthrough::{Opened, Passed};
use super::platform::Platform;
use super::porter::Carried;
use super::reception::Coming;
use super::seat::{self, Seat};
use super::state::Departure;
use crate::config::DeviceConfig;
use crate::control::{Attachment, Refused, Ticket};

/// Why a device does not come.
#[derive(Debug, thiserror::Error)]
enum PlugError {
    #[error("the guest has no slot for a device to come; start it with --hotplug-slots N")]
    NoSlots,
    #[error("all slots of the guest are taken; detach a device, or start it with more --hotplug-slots")]
    Full,
    #[error("{0} is in the guest already")]
    There(String),
    #[error("{0} is on its way into the guest already")]
    Coming(String),
    #[error("the guest has a device with the id {0:?} already; give another")]
    SameId(String),
    #[error("{0} are not functions of one device with its function 0; attach them one by one")]
    NotTogether(String),
}

impl Platform {
    /// Sends for a device; the client hears when it is there.
    pub(super) fn attach(&mut self, ticket: Ticket, attachment: &Attachment) {
        let coming = self.receive(ticket, attachment);
        if let Err(error) = coming {
            self.answer(ticket, Err(refused(&*error)));
        }
    }

    fn receive(&mut self, ticket: Ticket, attachment: &Attachment) -> Result<(), RunError> {
        let root = Root::real();
        let texts = [&attachment.device].into_iter().chain(&attachment.others);
        let configs: Vec<DeviceConfig> = texts
            .map(|text| DeviceConfig::read(text, &root))
            .collect::<Result<_, _>>()?;
        configs.iter().try_for_each(|config| self.check_new(config))?;
        let reception = self.reception.clone().ok_or(PlugError::NoSlots)?;
        let port = self.free_port(reception.slots).ok_or(PlugError::Full)?;
        let seats = seats(&configs, port)?;
        let present: Vec<HostBdf> = self.passed.iter().map(|passed| passed.device.bdf()).collect();
        let iommu = self.iommu.clone();
        let wished: Vec<(DeviceConfig, Seat)> = configs.iter().cloned().zip(seats).collect();
        self.coming.push(Coming {
            ticket,
            port,
            configs,
        });
        self.porter.carry(Box::new(move || {
            let seat = wished[0].1;
            Carried::Here(ticket, seat, reception.open(&wished, &present, &*iommu))
        }));
        Ok(())
    }

    /// Neither the device nor its id is there or on its way.
    fn check_new(&self, config: &DeviceConfig) -> Result<(), PlugError> {
        let there = self
            .passed
            .iter()
            .map(|passed| (passed.device.bdf(), passed.id.clone()));
        let there = there.map(|known| (known, PlugError::There as fn(String) -> PlugError));
        let coming = self.coming.iter().flat_map(|coming| &coming.configs);
        let coming = coming.map(|other| {
            (
                (other.host, other.id()),
                PlugError::Coming as fn(String) -> PlugError,
            )
        });
        for ((host, id), is_known) in there.chain(coming) {
            if host == config.host {
                return Err(is_known(config.to_string()));
            }
            if id == config.id() {
                return Err(PlugError::SameId(id));
            }
        }
        Ok(())
    }

    /// A port without a device: one of the last `slots`, which always have room for a device to come, else one that a
    /// device of the start has left, whose room lasts until the guest is reset. One that a device is just leaving for the
    /// host is free: the next device is opened when that one is gone.
    fn free_port(&self, slots: u8) -> Option<u8> {
        let is_taken = |port: &u8| {
            self.passed.iter().any(|passed| passed.seat.port == *port)
                || self.coming.iter().any(|coming| coming.port == *port)
        };
        let others = self.ports - slots;
        (others + 1..=self.ports)
            .chain(1..=others)
            .find(|port| !is_taken(port))
    }

    /// Does what follows from a job that is done.
    pub(super) fn carried(&mut self, carried: Carried, board: &mut Board) {
        match carried {
            Carried::Gone(ids) => ids.iter().for_each(|id| self.tell_deleted(id)),
            Carried::Here(ticket, seat, opened) => {
                self.coming.retain(|coming| coming.ticket != ticket);
                let path = opened.and_then(|opened| self.plug(seat, opened, board));
                self.answer(ticket, path.map_err(|error| refused(&*error)));
            }
        }
    }

    /// Shows the guest a device that is open, and tells its client where the guest finds it.
    fn plug(
        &mut self,
        seat: Seat,
        opened: Vec<Opened>,
        board: &mut Board,
    ) -> Result<serde_json::Value, RunError> {
        let passed = self.iommu.connect(opened);
        let is_heard = match board.plug(&passed) {
            Ok(is_heard) => is_heard,
            Err(error) => {
                self.give_back(passed);
                return Err(error);
            }
        };
        let bus = board.bus_behind(seat.port);
        let path = |passed: &Passed| format!("0000:{bus:02x}:00.{}", passed.seat.function);
        for one in &passed {
            log::info!("{}: plugged in at {} of the guest", one.name, path(one));
        }
        if !is_heard {
            log::warn!(
                "The guest does not listen to hot plug; it finds the device when its driver of the slot starts"
            );
        }
        let told = serde_json::json!({
            "id": passed[0].id,
            "path": path(&passed[0]),
            "heard": is_heard,
        });
        self.passed.extend(passed);
        Ok(told)
    }

    /// Asks the guest for a device, or takes it away at once; the client hears that this is begun.
    pub(super) fn detach(&mut self, ticket: Ticket, id: &str, force: bool, board: &mut Board) {
        let answer = self.send_away(id, force, board);
        self.answer(ticket, answer.map(|()| serde_json::json!({})));
    }

    fn send_away(&mut self, id: &str, force: bool, board: &mut Board) -> Result<(), Refused> {
        let bdf: Option<HostBdf> = id.parse().ok();
        let is_it = |passed: &&Passed| passed.id == id || Some(passed.device.bdf()) == bdf;
        let Some(found) = self.passed.iter().find(is_it) else {
            let is_coming = |config: &DeviceConfig| config.id() == id || Some(config.host) == bdf;
            let is_coming = self
                .coming
                .iter()
                .flat_map(|coming| &coming.configs)
                .any(is_coming);
            return Err(match is_coming {
                true => Refused::generic(format!("{id} is still on its way into the guest; try again")),
                false => Refused::no_device(format!("the guest has no device {id}")),
            });
        };
        let (port, name) = (found.seat.port, found.name.clone());
        if force {
            self.let_go(board, port, Departure::Forced);
            return Ok(());
        }
        if self.leaving.contains(port) {
            return Err(Refused::generic(format!("the guest is asked for {name} already")));
        }
        if board.is_idle(port) {
            self.let_go(board, port, Departure::LetGo);
            return Ok(());
        }
        match board.ask_to_unplug(port) {
            true => {
                self.leaving.insert_for_client(port, Instant::now());
                Ok(())
            }
            false => Err(Refused::generic(format!(
                "the guest does not listen to hot plug, and {name} stays; try again when it has booted, or pull the device \
                 out by force"
            ))),
        }
    }

    /// The guest did not let go of what a client asked for in its time, and keeps it.
    pub(super) fn keep(&mut self, port: u8, board: &Board) {
        self.leaving.remove(port);
        board.keep(port);
        let ids: Vec<String> = self.ids_behind(port);
        for id in ids {
            log::warn!("{id}: the guest did not let go of it, and keeps it");
            self.tell_clients_of("DEVICE_UNPLUG_GUEST_ERROR", &id);
        }
    }

    fn tell_deleted(&mut self, id: &str) {
        log::info!("{id} is back with the host");
        self.tell_clients_of("DEVICE_DELETED", id);
    }

    fn ids_behind(&self, port: u8) -> Vec<String> {
        let behind = self.passed.iter().filter(|passed| passed.seat.port == port);
        behind.map(|passed| passed.id.clone()).collect()
    }

    fn tell_clients_of(&mut self, event: &'static str, id: &str) {
        if let Some(control) = &mut self.control {
            control.tell_of_device(event, id);
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Result<serde_json::Value, Refused>) {
        if let Some(control) = &mut self.control {
            control.answer(ticket, answer);
        }
    }

    /// Closes devices that nothing of the guest's reaches any more, which takes as long as a reset.
    pub(super) fn give_back(&mut self, passed: Vec<Passed>) {
        let iommu = self.iommu.clone();
        self.porter.carry(Box::new(move || {
            let ids = passed.iter().map(|passed| passed.id.clone()).collect();
            passed.iter().for_each(|passed| passed.gate.leave());
            drop(passed);
            iommu.vacate();
            Carried::Gone(ids)
        }));
    }
}

/// Where each of `configs` sits behind `port`: one alone as function 0, several with their own numbers.
fn seats(configs: &[DeviceConfig], port: u8) -> Result<Vec<Seat>, RunError> {
    let seats: Vec<Seat> = seat::seated(configs)?.into_iter().map(|(_, seat)| seat).collect();
    if seats.iter().any(|seat| seat.port != 1) {
        let names: Vec<String> = configs.iter().map(DeviceConfig::to_string).collect();
        return Err(PlugError::NotTogether(names.join(", ")).into());
    }
    Ok(seats.into_iter().map(|seat| Seat { port, ..seat }).collect())
}

fn refused(error: &(dyn std::error::Error + 'static)) -> Refused {
    Refused::generic(Chain(error).to_string())
}
