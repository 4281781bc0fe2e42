#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    packetboat_fuzz_targets::devices::bulk_headers(input);
});
