//! Session state in OK packets, and the results that the proxy reads itself.

use lockstep::wire::session_track::Change;
use lockstep::wire::{
    Capabilities, QueryAnswer, Status, build_text_result, changes, parse_text_result, put_change,
};

use crate::Input;

/// Runs one input: which of both, then its bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let which = input.byte();
    match which % 3 {
        0 => block(input.0),
        1 => result(input.0, Capabilities::from_parts(0, 0)),
        _ => {
            let caps = Capabilities::from_parts(0, 0).with(Capabilities::DEPRECATE_EOF);
            result(input.0, caps);
        }
    }
}

fn block(bytes: &[u8]) {
    let mut read = Vec::new();
    let mut built = Vec::new();
    for item in changes(bytes) {
        let Ok((change, raw)) = item else { break };
        assert!(raw.len() <= bytes.len());
        put_change(&mut built, &change);
        read.push(change);
    }
    let again: Vec<Change<'_>> = changes(&built)
        .map(|item| item.expect("reads its own").0)
        .collect();
    assert_eq!(again, read);
}

fn result(bytes: &[u8], caps: Capabilities) {
    let Ok(QueryAnswer::Rows(read)) = parse_text_result(bytes, caps) else {
        return;
    };
    for row in 0..=read.rows.len() {
        let _ = read.value(row, read.columns.len());
    }
    let columns: Vec<(&str, u8)> = read.columns.iter().map(|c| ("c", c.column_type)).collect();
    let mut out = Vec::new();
    build_text_result(&columns, &read.rows, caps, Status(2), &mut out);
    match parse_text_result(&out, caps) {
        Ok(QueryAnswer::Rows(again)) => assert_eq!(again.rows, read.rows),
        Ok(_) => assert!(read.columns.is_empty(), "rows became something else"),
        Err(e) => panic!("does not read its own: {e}"),
    }
}
