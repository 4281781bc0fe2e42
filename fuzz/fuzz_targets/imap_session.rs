#![no_main]

// The session catches panics of a parser that is not ours; libFuzzer's own hook would end the process before that.
libfuzzer_sys::fuzz_target!(
    init: drop(std::panic::take_hook()),
    |input: &[u8]| {
        packetboat_fuzz_targets::mail_in::imap_session(input);
    }
);
