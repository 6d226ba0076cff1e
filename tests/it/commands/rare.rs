//! Commands that the others cannot stand beside: some end the server where they
//! may, others answer what differs between any two calls.

use crate::support::Family;
use crate::transparency::run::{Run, broken};
use lockstep::wire::command::*;
use lockstep::wire::{Capabilities, lenenc};
use std::io;

/// Goes on as an account that may do nothing.
fn unprivileged(run: &mut Run) -> io::Result<()> {
    let packets = run.raw.change_user("unprivileged", "")?;
    let verdict = packets.last().and_then(|p| p.payload.first().copied());
    assert_eq!(verdict, Some(0), "another account would end the server");
    Ok(())
}

/// What only privileged accounts may ask for, and this one is not.
pub fn denied_commands(run: &mut Run, _: Family) -> io::Result<()> {
    run.raw
        .query("CREATE USER IF NOT EXISTS 'unprivileged'@'%'")?;
    unprivileged(run)?;
    for com in [COM_SHUTDOWN, COM_CLONE] {
        for body in [&[][..], &[0], &[16, 0]] {
            if let Err(e) = run.com(com, body) {
                run.fact(&format!("command {com:#x}"), broken(&e));
                run.raw = run.other()?;
                unprivileged(run)?;
            }
        }
    }
    run.text("SELECT 1")
}

/// The list's form is compared, and that it has this session in it; times and
/// the other sessions differ between any two calls.
pub fn process_info(run: &mut Run, _: Family) -> io::Result<()> {
    let mut packets = run.raw.ask(COM_PROCESS_INFO, &[])?;
    let head = packets.first().and_then(|p| p.payload.first()).copied();
    let columns = head
        .filter(|n| (1..0xFB).contains(n))
        .map_or(1, usize::from);
    let eof = !run.raw.capabilities.has(Capabilities::DEPRECATE_EOF);
    let definitions = 1 + columns + usize::from(eof);
    let rows = packets.split_off(definitions.min(packets.len()));
    run.note("process info", packets);
    let id = run.raw.greeting.thread_id.to_string();
    let mut own = Vec::new();
    lenenc::put_bytes(&mut own, id.as_bytes());
    run.fact("own row", rows.iter().any(|p| p.payload.starts_with(&own)));
    run.text("SELECT 1")
}
