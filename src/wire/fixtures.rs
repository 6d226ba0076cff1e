//! Exchanges recorded from real servers, for tests.

use super::{Capabilities, ResponseKind};

/// One command and its answer.
pub(crate) struct Exchange {
    /// `family.mode.name`.
    pub(crate) name: String,
    /// The kind of answer.
    pub(crate) kind: ResponseKind,
    /// What the connection had negotiated.
    pub(crate) caps: Capabilities,
    /// The command's payload, its command byte included.
    pub(crate) command: Vec<u8>,
    /// The server's packets, headers included.
    pub(crate) response: Vec<u8>,
}

const RECORDED: [(&str, &str); 2] = [
    ("mariadb", include_str!("fixtures/mariadb-10.11.txt")),
    ("mysql", include_str!("fixtures/mysql-9.7.txt")),
];

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16).map(|d| d as u8))
        .collect();
    digits.chunks_exact(2).map(|p| p[0] << 4 | p[1]).collect()
}

fn kind(name: &str) -> Option<ResponseKind> {
    Some(match name {
        "None" => ResponseKind::None,
        "Generic" => ResponseKind::Generic,
        "Prepare" => ResponseKind::Prepare,
        "FieldList" => ResponseKind::FieldList,
        "Fetch" => ResponseKind::Fetch,
        "Statistics" => ResponseKind::Statistics,
        "ChangeUser" => ResponseKind::ChangeUser,
        "BinlogDump" => ResponseKind::BinlogDump,
        "OneEof" => ResponseKind::OneEof,
        _ => return None,
    })
}

/// Lines of a fixture in groups: the heading, `>` bytes, `<` bytes.
fn groups(text: &str) -> Vec<(Vec<&str>, Vec<u8>, Vec<u8>)> {
    let mut list: Vec<(Vec<&str>, Vec<u8>, Vec<u8>)> = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        match (line.strip_prefix('>'), line.strip_prefix('<')) {
            (Some(hex), _) => list.last_mut().expect("a heading").1 = unhex(hex),
            (_, Some(hex)) => list.last_mut().expect("a heading").2 = unhex(hex),
            _ => list.push((line.split(' ').collect(), Vec::new(), Vec::new())),
        }
    }
    list
}

/// Every recorded command.
pub(crate) fn exchanges() -> impl Iterator<Item = Exchange> {
    RECORDED.iter().flat_map(|(family, text)| {
        groups(text)
            .into_iter()
            .filter_map(move |(head, command, response)| {
                Some(Exchange {
                    name: format!("{family}.{}", head[0]),
                    kind: kind(head[1])?,
                    caps: Capabilities(u64::from_str_radix(head[2], 16).expect("hex")),
                    command,
                    response,
                })
            })
    })
}

/// A login packet's payload: `greeting` and `login` of a family.
pub(crate) fn login_packet(family: &str, name: &str) -> Vec<u8> {
    let (_, text) = RECORDED.iter().find(|(f, _)| *f == family).expect("family");
    let found = groups(text).into_iter().find(|(head, ..)| head[0] == name);
    found.expect("recorded").2
}
