//! What operators get wrong, and what goes wrong for them: each is told in one line, ends with the right
//! code, and leaves the host as it was. `cargo test -p strait mistakes -- --nocapture` prints the table.

mod back;
mod devices;
mod failures;
mod typed;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use strait_vfio::host::testing::Does;

use super::bind::default_route;
use super::*;

/// One mistake.
struct Mistake {
    name: &'static str,
    /// What the host is like.
    prepare: fn(&FakeHost),
    /// Behind `strait host`.
    typed: &'static str,
    code: u8,
    /// A part of the line that cannot be there by chance.
    says: &'static str,
}

const fn usage(name: &'static str, typed: &'static str, says: &'static str) -> Mistake {
    Mistake {
        name,
        prepare: |_| {},
        typed,
        code: 2,
        says,
    }
}

const fn error(
    name: &'static str,
    prepare: fn(&FakeHost),
    typed: &'static str,
    says: &'static str,
) -> Mistake {
    Mistake {
        name,
        prepare,
        typed,
        code: 1,
        says,
    }
}

#[test]
fn each_mistake_is_one_line_and_changes_nothing() {
    let tables = [
        typed::TYPED,
        devices::DEVICES,
        devices::IN_USE,
        failures::FAILURES,
        back::RESTORE,
        back::VIRTUAL,
    ];
    let mistakes: Vec<&Mistake> = tables.into_iter().flatten().collect();
    assert!(mistakes.len() >= 60);
    let wrong: Vec<String> = mistakes
        .iter()
        .filter_map(|mistake| check(mistake).err())
        .collect();
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Makes `mistake` and says what is wrong with what comes of it.
fn check(mistake: &Mistake) -> Result<(), String> {
    let Mistake {
        name,
        prepare,
        typed,
        code,
        says,
    } = mistake;
    let host = host();
    host.add_driver("vfio-pci");
    prepare(&host);
    let before = host.picture();
    let failure = match run(&host, &format!("host {typed}")) {
        Ok(output) => return Err(format!("{name}: {typed} went well: {output:?}")),
        Err(failure) => failure,
    };
    println!(
        "{name}\n  $ strait host {typed}\n  {} strait: {}",
        failure.code, failure.message
    );
    let wrong = |what: String| Err(format!("{name}: {what}"));
    if failure.code != *code {
        return wrong(format!(
            "code {} instead of {code}: {}",
            failure.code, failure.message
        ));
    }
    if failure.message.contains('\n') || !failure.message.contains(says) {
        return wrong(format!("{:?} does not say {says:?}", failure.message));
    }
    let changes = changes(&host, &before);
    match changes.is_empty() {
        true => Ok(()),
        false => wrong(format!("changed: {changes:?}")),
    }
}

/// Files that are not as they were; a device that was pulled out has none.
fn changes(host: &FakeHost, before: &BTreeMap<PathBuf, String>) -> Vec<PathBuf> {
    let after = host.picture();
    let all = before.keys().chain(after.keys());
    let gone = !host.path("sys/bus/pci/devices").join(NIC).exists();
    let of_gone = |path: &PathBuf| {
        gone && path.starts_with(host.path("sys")) && path.display().to_string().contains(NIC)
    };
    let group = host.path("sys/kernel/iommu_groups/14");
    let of_group = |path: &PathBuf| gone && path.starts_with(&group);
    all.filter(|path| before.get(*path) != after.get(*path))
        .filter(|path| !of_gone(path) && !of_group(path))
        .cloned()
        .collect()
}

fn no_group(host: &FakeHost) {
    fs::remove_file(host.path("sys/bus/pci/devices/0000:01:00.0/iommu_group")).expect("there");
}

fn fails(host: &FakeHost, file: &'static str, errno: i32) {
    host.fault(file, 0, Does::Fails(errno));
}

fn taken(host: &FakeHost) {
    done(host, "host bind 01:00.0");
}

/// One, with interface eth9.
fn virtual_function(host: &FakeHost) {
    done(host, "host vf 01:00.0 1");
    host.add_interface("0000:00:01.0/0000:01:10.0", "eth9");
}

fn address(host: &FakeHost, interface: &str) {
    let text = format!(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
         {interface}\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
    );
    host.file("proc/net/route", &text);
}

fn mounted(host: &FakeHost, number: &str) {
    host.file(
        "proc/self/mountinfo",
        &format!("36 35 {number} / /srv/my\\040data rw - btrfs /dev/nvme0n1p1 rw\n"),
    );
}
