#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait::control::fuzz::wire(bytes));
