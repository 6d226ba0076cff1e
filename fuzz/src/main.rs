//! libFuzzer around one target, which `LOCKSTEP_FUZZ` names: one program, so
//! that all targets cost one link.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fn target() -> fn(&[u8]) {
    let name = std::env::var("LOCKSTEP_FUZZ").unwrap_or_default();
    let found = lockstep_fuzz::TARGETS.iter().find(|(n, _)| *n == name);
    let Some((_, run)) = found else {
        let names: Vec<&str> = lockstep_fuzz::TARGETS.iter().map(|(n, _)| *n).collect();
        panic!("LOCKSTEP_FUZZ must be one of {}", names.join(", "));
    };
    *run
}

fuzz_target!(|data: &[u8]| TARGET.get_or_init(target)(data));
