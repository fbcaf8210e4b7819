//! The tables as an operating system finds them: from the root pointer on, and through a disassembler.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use super::*;
use crate::acpi::PciHost;
use crate::layout;
use acpi_tables::sdt::Sdt;

fn tables(config: &AcpiConfig) -> AcpiTables {
    build(config, layout::ACPI_TABLES).expect("they fit")
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

/// The table at a guest address, as long as its header says.
fn at(tables: &AcpiTables, address: u64) -> Vec<u8> {
    let table = &tables.bytes[(address - tables.address.0) as usize..];
    table[..u32_at(table, 4) as usize].to_vec()
}

/// Every table that can be reached from the RSDP, by signature.
fn reachable(tables: &AcpiTables) -> BTreeMap<String, Vec<u8>> {
    let rsdp = &tables.bytes[(tables.rsdp.0 - tables.address.0) as usize..];
    let xsdt = at(tables, u64_at(rsdp, 24));
    let mut found: Vec<_> = xsdt[36..]
        .chunks(8)
        .map(|entry| at(tables, u64_at(entry, 0)))
        .collect();
    let dsdt = found
        .iter()
        .find(|table| table.starts_with(b"FACP"))
        .map(|fadt| at(tables, u64_at(fadt, 140)));
    found.extend(dsdt);
    found.push(xsdt);
    found
        .into_iter()
        .map(|table| (String::from_utf8_lossy(&table[..4]).into_owned(), table))
        .collect()
}

#[test]
fn root_pointer_is_where_linux_searches_for_it() {
    let tables = tables(&AcpiConfig::example());
    assert_eq!(tables.rsdp.0 % 16, 0);
    assert!((0xe_0000..0x10_0000).contains(&tables.rsdp.0));
    let rsdp = &tables.bytes[..36];
    assert_eq!(&rsdp[..8], b"RSD PTR ");
    assert_eq!((sum(&rsdp[..20]), sum(rsdp), rsdp[15]), (0, 0, 2));
}

#[test]
fn every_table_is_reachable_with_a_good_checksum() {
    let tables = tables(&AcpiConfig::example());
    let found = reachable(&tables);
    assert_eq!(
        found.keys().map(String::as_str).collect::<Vec<_>>(),
        ["APIC", "DSDT", "FACP", "MCFG", "XSDT"]
    );
    assert!(found.values().all(|table| sum(table) == 0));
}

#[test]
fn fadt_describes_a_hardware_reduced_machine() {
    let fadt = reachable(&tables(&AcpiConfig::example()))
        .remove("FACP")
        .expect("it is there");
    let flags = u32_at(&fadt, 112);
    assert_eq!(
        flags & (1 << 20 | 1 << 10),
        1 << 20 | 1 << 10,
        "hardware reduced, reset register"
    );
    assert_eq!(
        fadt[109] & 0b11_1110,
        0b100,
        "no VGA; neither 8042 nor \"no MSI\" nor \"no RTC\""
    );
    let without = AcpiConfig {
        has_clock: false,
        ..AcpiConfig::example()
    };
    let without = reachable(&tables(&without)).remove("FACP").expect("it is there");
    assert_eq!((without[108], without[109] & 0b11_1110), (0, 0b10_0100), "no RTC");
    assert_eq!((fadt[116], u64_at(&fadt, 120), fadt[128]), (1, 0x64, 0xfe));
    assert_eq!((fadt[244], u64_at(&fadt, 248)), (1, 0x600), "sleep control");
    assert_eq!((fadt[256], u64_at(&fadt, 260)), (1, 0x601), "sleep status");
    assert_eq!(
        u64::from(u32_at(&fadt, 40)),
        u64_at(&fadt, 140),
        "both pointers to the DSDT agree"
    );
}

#[test]
fn mcfg_covers_the_buses_there_are() {
    let mcfg = reachable(&tables(&AcpiConfig::example()))
        .remove("MCFG")
        .expect("it is there");
    assert_eq!((u64_at(&mcfg, 44), mcfg[54], mcfg[55]), (0xe000_0000, 0, 3));
}

#[test]
fn extra_tables_are_listed() {
    let extra = Sdt::new(*b"DMAR", 48, 1, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let config = AcpiConfig {
        extra: vec![extra.as_slice().to_vec()],
        ..AcpiConfig::example()
    };
    assert!(reachable(&tables(&config)).contains_key("DMAR"));
}

#[test]
fn tables_that_do_not_fit_are_an_error() {
    let error =
        build(&AcpiConfig::example(), Range::new(0xe_0000, 0xe_0100)).expect_err("256 bytes are too few");
    assert!(error.to_string().ends_with("and their place has 256"));
}

#[test]
fn largest_machine_fits() {
    let config = AcpiConfig {
        apic_ids: (0..64).collect(),
        ..AcpiConfig::example()
    };
    assert!(tables(&config).bytes.len() < 8192);
}

#[test]
fn disassembler_finds_nothing_to_complain_about() {
    if Command::new("iasl").arg("-v").output().is_err() {
        eprintln!("skipped: iasl is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (signature, table) in reachable(&tables(&AcpiConfig::example())) {
        let file = folder.path().join(format!("{signature}.aml"));
        fs::write(&file, table).expect("room for it");
        let run = |arguments: &[&str]| {
            let output = Command::new("iasl")
                .args(arguments)
                .current_dir(folder.path())
                .output()
                .expect("it ran once");
            format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        };
        let said = run(&["-d", &format!("{signature}.aml")]);
        assert!(
            said.contains("Parsing completed") || said.contains("Formatted output"),
            "{signature}: {said}"
        );
        assert!(
            !said.contains("Error") && !said.contains("Warning"),
            "{signature}: {said}"
        );
    }
    let said = Command::new("iasl")
        .args(["-p", "again", "DSDT.dsl"])
        .current_dir(folder.path())
        .output();
    let said = String::from_utf8_lossy(&said.expect("it ran once").stdout).into_owned();
    assert!(
        said.contains("0 Errors, 0 Warnings"),
        "the disassembled DSDT compiles again: {said}"
    );
    let source = fs::read_to_string(folder.path().join("DSDT.dsl")).expect("it was written");
    for name in [
        "PCI0", "_PRT", "_OSC", "_CRS", "MBRD", "COM1", "RTC", "PEVT", "\\_S5", "PWRB", "GED", "_EVT",
        "Notify",
    ] {
        assert!(source.contains(name), "{name} is missing from {source}");
    }
}

#[test]
fn the_host_bridge_covers_what_cannot_be_mapped() {
    // A QWord memory descriptor (ACPI 6.5 §6.4.3.5.1): first and last address behind granularity.
    let window = |range: Range| [range.start.0.to_le_bytes(), range.last().0.to_le_bytes()].concat();
    let holds = |pci: PciHost, range| {
        let dsdt = reachable(&tables(&AcpiConfig {
            pci,
            ..AcpiConfig::example()
        }))
        .remove("DSDT")
        .expect("it is there");
        dsdt.windows(16).any(|bytes| bytes == window(range))
    };
    let reserved = Range::new(0xfd_0000_0000, 1 << 40);
    let pci = PciHost {
        unmappable: vec![reserved],
        ..AcpiConfig::example().pci
    };
    assert!(holds(pci.clone(), reserved) && holds(pci, Range::new(5 << 30, 517 << 30)));
    assert!(!holds(AcpiConfig::example().pci, reserved));
}
