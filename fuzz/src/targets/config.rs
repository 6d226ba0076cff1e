//! Settings: any text gives settings or problems, and no problem quotes a
//! password.

use std::ffi::OsString;

use lockstep::config::parse;

/// A value that stands in seeds as a password; whoever prints it leaks.
const PASSWORD: &str = "sEcReT-9f";

/// Runs one input: a file, and behind a NUL the variables.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (file, variables) = text.split_once('\0').unwrap_or((text, ""));
    let variables = variables.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        let word = |b: u8| b.is_ascii_uppercase() || b == b'_';
        if !name.bytes().all(word) {
            return None;
        }
        Some((
            OsString::from(format!("LOCKSTEP_{name}")),
            OsString::from(value),
        ))
    });
    if let Err(problems) = parse(file, variables) {
        let said = problems.to_string();
        assert!(!said.is_empty(), "refused without a reason");
        assert!(
            !said.contains(PASSWORD),
            "a problem quotes a password: {said}"
        );
    }
}
