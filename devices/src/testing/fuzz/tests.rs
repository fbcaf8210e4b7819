//! What the fuzz targets do at length, in short.

use super::{chipset, queue, registers, remapping, replay, tables};

#[test]
fn the_chipset_survives_any_guest() {
    replay(chipset);
}

#[test]
fn registers_survive_any_access() {
    replay(registers);
}

#[test]
fn queues_survive_any_guest() {
    replay(queue);
}

#[test]
fn tables_mean_what_the_reference_says() {
    replay(tables);
}

#[test]
fn interrupts_go_where_the_reference_says() {
    replay(remapping);
}
