#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait::gdb::fuzz::remote_protocol(bytes));
