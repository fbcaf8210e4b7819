//! Taking devices from the host's drivers: all that were asked for, or none.

use super::access::Host;
use super::binding::{Binding, BindingError};
use super::entry_limit;
use super::error::BindError;
use super::journal::{self, UndoEntry};
use super::plan::{Move, Plan, Request};
use super::saved;
use super::sysfs::Root;

/// Does what `plan` says.
///
/// # Errors
/// When one device cannot be had: then all are where they were, or the error says which is not.
pub fn bind(host: Host<'_>, plan: &Plan) -> Result<(), BindError> {
    if plan.moves.is_empty() && plan.lasting().is_empty() && plan.request.dma_entries.is_none() {
        return Ok(());
    }
    let _lock = journal::lock(host.root)?;
    let Some(wanted) = plan.request.dma_entries else {
        return bind_all(host, plan);
    };
    let askers = entry_limit::raise(host, &plan.devices(), wanted)?;
    let bound = bind_all(host, plan);
    if bound.is_err() {
        for bdf in askers {
            // Why nothing was bound is what is to be told.
            let _ = entry_limit::let_go(host, bdf);
        }
    }
    bound
}

fn bind_all(host: Host<'_>, plan: &Plan) -> Result<(), BindError> {
    if let Some(&Move { bdf, .. }) = plan.moves.first() {
        Binding { host, bdf }.load(&plan.request.driver)?;
    }
    let mut touched: Vec<&Move> = Vec::new();
    for one in &plan.moves {
        match remember(host, one, &plan.request) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(failure) => return Err(give_back(host, &touched, failure)),
        }
        touched.push(one);
        if let Err(failure) = take(host, one, &plan.request.driver) {
            if matches!(failure, BindingError::Pending { .. }) {
                // What the kernel still works on cannot be put back now; the journal keeps its way back.
                touched.pop();
            }
            return Err(give_back(host, &touched, failure.into()));
        }
    }
    if plan.request.save {
        let devices = plan.lasting();
        if let Err(failure) = saved::save(host.root, &devices, &plan.request.driver) {
            return Err(give_back(host, &touched, failure));
        }
    }
    Ok(())
}

/// Makes sure that the plan still holds, and writes the way back into the journal. Says whether there is something left
/// to do: another command, as that of a rule of udev, may have given the device to the same driver meanwhile.
fn remember(host: Host<'_>, one: &Move, request: &Request) -> Result<bool, BindError> {
    let bdf = one.bdf;
    let binding = Binding { host, bdf };
    let driver = binding.driver()?;
    if driver != one.from {
        if driver.as_ref() == Some(&request.driver) {
            return Ok(false);
        }
        let driver = driver.unwrap_or_else(|| "no driver".to_owned());
        let wanted = request.driver.clone();
        return Err(BindingError::Stolen { bdf, driver, wanted }.into());
    }
    // What the plan knows of the device may be another command's business since.
    if journal::read(host.root, bdf)? != one.entry || binding.override_driver()? != one.override_driver {
        return Err(BindError::Changed(bdf));
    }
    journal::write(host.root, &way_back(host.root, one, request))?;
    Ok(true)
}

/// An entry of before knows what the device had at first.
fn way_back(root: &Root, one: &Move, request: &Request) -> UndoEntry {
    let bound = request.driver.clone();
    let now = UndoEntry {
        bdf: one.bdf,
        driver: one.from.clone(),
        override_driver: one.override_driver.clone(),
        bound: bound.clone(),
        owner: request.owner,
    };
    match one.entry.clone() {
        Some(first) if one.from.as_ref() == Some(&first.bound) => UndoEntry { bound, ..first },
        // One that was killed, or that the kernel let wait in vain, has set the override and may have got no further.
        Some(first) if one.from.is_none() || one.from == first.driver => {
            let is_ours = one.override_driver.as_ref() == Some(&first.bound);
            UndoEntry {
                driver: first.driver,
                override_driver: if is_ours {
                    first.override_driver
                } else {
                    now.override_driver
                },
                ..now
            }
        }
        // The override of a saved binding was set at boot by its rule, and goes with it.
        _ if one.override_driver.as_ref() == Some(&bound) && saved::is_saved(root, one.bdf) => UndoEntry {
            override_driver: None,
            ..now
        },
        _ => now,
    }
}

fn take(host: Host<'_>, one: &Move, driver: &str) -> Result<(), BindingError> {
    let bdf = one.bdf;
    let binding = Binding { host, bdf };
    binding.set_override(Some(driver))?;
    binding.unbind()?;
    binding.probe(driver)
}

/// Puts `moves` back, the last first, and returns what is to be told.
fn give_back(host: Host<'_>, moves: &[&Move], failure: BindError) -> BindError {
    let mut failure = failure;
    for one in moves.iter().rev() {
        let bdf = one.bdf;
        if let Err(undo) = put_back(host, one) {
            failure = BindError::NotUndone {
                failure: Box::new(failure),
                bdf,
                undo: Box::new(undo),
            };
        }
    }
    failure
}

fn put_back(host: Host<'_>, one: &Move) -> Result<(), BindError> {
    let bdf = one.bdf;
    let binding = Binding { host, bdf };
    match binding.driver() {
        // Nothing to put back, and nothing to remember.
        Err(BindingError::Vanished(_)) => return Ok(journal::remove(host.root, bdf)?),
        Err(error) => return Err(error.into()),
        Ok(_) => {}
    }
    binding.put_back(one.from.as_deref(), one.override_driver.as_deref())?;
    match &one.entry {
        Some(entry) => journal::write(host.root, entry)?,
        None => journal::remove(host.root, bdf)?,
    }
    Ok(())
}
