//! See `fuzz_runner::TARGETS`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_runner::run("virtio_ring", data));
