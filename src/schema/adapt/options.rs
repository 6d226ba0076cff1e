//! What stands behind the columns: engine, options, partitions.

use super::super::model::Table;
use super::super::tokens::{Token, join, tokens};
use super::Way;

/// Options that mean the same in both families.
const COMMON: [&str; 13] = [
    "ENGINE",
    "AUTO_INCREMENT",
    "CHARSET",
    "COLLATE",
    "COMMENT",
    "ROW_FORMAT",
    "KEY_BLOCK_SIZE",
    "STATS_PERSISTENT",
    "STATS_AUTO_RECALC",
    "STATS_SAMPLE_PAGES",
    "MAX_ROWS",
    "MIN_ROWS",
    "AVG_ROW_LENGTH",
];

/// Where files lie: nothing that another machine shares.
const PLACES: [&str; 3] = ["DATA DIRECTORY", "INDEX DIRECTORY", "TABLESPACE"];

/// Engines without transactions that InnoDB replaces: rows are written in
/// transactions, together with the place in the log they came from.
const REPLACED: [&str; 2] = ["myisam", "aria"];

/// Options and engine; None where the table's character set is not there.
pub fn table(way: &mut Way<'_>, table: &mut Table) -> Option<()> {
    for place in PLACES {
        if table.drop_option(place) {
            way.adapted(place, "a place on the source's disk: left out");
        }
    }
    let engine = table.option("ENGINE").unwrap_or_default().to_lowercase();
    let known = way.to.engines.contains(&engine);
    if !engine.is_empty() && (REPLACED.contains(&engine.as_str()) || !known) {
        table.set_option("ENGINE", "InnoDB".to_owned());
        for gone in [
            "ROW_FORMAT",
            "PACK_KEYS",
            "TRANSACTIONAL",
            "PAGE_CHECKSUM",
            "CHECKSUM",
            "DELAY_KEY_WRITE",
        ] {
            table.drop_option(gone);
        }
        let why = if known {
            format!("{engine} has no transactions: InnoDB")
        } else {
            format!("the target has no engine {engine}: InnoDB")
        };
        way.adapted("engine", why);
    }
    if let Some(collation) = table.option("COLLATE").map(str::to_owned) {
        let near = way.collation("default collation", &collation)?;
        if let Some(charset) = near.split('_').next().filter(|_| near != collation) {
            table.set_option("CHARSET", charset.to_owned());
        }
        table.set_option("COLLATE", near);
    }
    if way.crosses() {
        let mut kept = Vec::new();
        for (name, value) in std::mem::take(&mut table.options) {
            if COMMON.contains(&name.as_str()) {
                kept.push((name, value));
            } else {
                way.adapted(
                    name.trim_matches('`'),
                    format!("an option of {} alone: left out", way.from.family()),
                );
            }
        }
        table.options = kept;
    }
    Some(())
}

/// Partitions: of the table's engine, without places on disk.
pub fn partition(way: &mut Way<'_>, table: &mut Table) {
    let Some(text) = table.partition.take() else {
        return;
    };
    let all = tokens(&text);
    if way.crosses() && !way.to.mariadb {
        let own = if all.iter().any(|t| t.is("SYSTEM_TIME")) {
            Some("MySQL has no partitions by system time: not partitioned")
        } else if all.iter().any(|t| t.is("DEFAULT")) {
            Some("MySQL has no DEFAULT partition: not partitioned")
        } else {
            None
        };
        if let Some(why) = own {
            way.missing("partitions", why);
            return;
        }
    }
    let engine = table.option("ENGINE").unwrap_or("InnoDB").to_owned();
    let mut out: Vec<Token<'_>> = Vec::with_capacity(all.len());
    let mut at = 0;
    while let Some(token) = all.get(at) {
        let equals = |n: usize| all.get(at + n).is_some_and(|t| t.punct('='));
        if token.is("ENGINE") && equals(1) {
            out.extend(all.iter().skip(at).take(2));
            if let Some(value) = all.get(at + 2) {
                let mut value = *value;
                value.text = &engine;
                out.push(value);
            }
            at += 3;
        } else if (token.is("DATA") || token.is("INDEX")) && equals(2) {
            way.adapted("partitions", "places on the source's disk: left out");
            at += 4;
        } else if token.is("TABLESPACE") && equals(1) {
            at += 3;
        } else {
            out.push(*token);
            at += 1;
        }
    }
    table.partition = Some(join(&out));
}
