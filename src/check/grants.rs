//! What the service accounts may do.
//!
//! Rights are read from `SHOW GRANTS`, and where trying costs nothing, tried.

use std::collections::BTreeSet;

use super::{At, Checked, Context, Findings, Severity};
use crate::Side;
use crate::schema::tokens::{Kind, Token, literal_value, tokens};
use crate::schema::{Refused, SchemaError};

/// A right, by any of its names, and what it is for.
struct Need {
    names: &'static [&'static str],
    purpose: &'static str,
}

/// On all of the server, on both sides.
const GLOBAL: [Need; 3] = [
    Need {
        names: &["REPLICATION SLAVE", "REPLICATION REPLICA"],
        purpose: "to read the binary log",
    },
    Need {
        names: &["REPLICATION CLIENT", "BINLOG MONITOR", "SUPER"],
        purpose: "to know the log's position",
    },
    Need {
        names: &["CONNECTION ADMIN", "CONNECTION_ADMIN", "SUPER"],
        purpose: "to end connections that were given up",
    },
];

/// On the routed tables, on both sides: rows go both ways once the target is
/// active.
const TABLES: [Need; 5] = [
    Need {
        names: &["SELECT"],
        purpose: "to copy and compare",
    },
    Need {
        names: &["INSERT"],
        purpose: "to write rows",
    },
    Need {
        names: &["UPDATE"],
        purpose: "to write rows",
    },
    Need {
        names: &["DELETE"],
        purpose: "to write rows",
    },
    Need {
        names: &["LOCK TABLES"],
        purpose: "to fence the old active side for the moment of a flip",
    },
];

/// On the target's routed schemas, to make tables there.
const MAKING: [Need; 6] = [
    Need {
        names: &["CREATE"],
        purpose: "to make tables",
    },
    Need {
        names: &["DROP"],
        purpose: "to empty and drop tables where the log has that",
    },
    Need {
        names: &["ALTER"],
        purpose: "to make keys after the copy, and raise counters",
    },
    Need {
        names: &["INDEX"],
        purpose: "to make keys after the copy",
    },
    Need {
        names: &["REFERENCES"],
        purpose: "to make foreign keys",
    },
    Need {
        names: &["CREATE VIEW"],
        purpose: "to make views",
    },
];

/// For what else a schema may have; without them such objects stay behind.
const OBJECTS: [Need; 4] = [
    Need {
        names: &["TRIGGER"],
        purpose: "to carry triggers over, and to switch them with the active side",
    },
    Need {
        names: &["EVENT"],
        purpose: "to carry events over, and to switch them with the active side",
    },
    Need {
        names: &["SHOW VIEW"],
        purpose: "to carry views over",
    },
    Need {
        names: &["CREATE ROUTINE"],
        purpose: "to carry procedures and functions over",
    },
];

/// In other accounts' names.
const DEFINERS: Need = Need {
    names: &["SET USER", "SET_ANY_DEFINER", "SET_USER_ID", "SUPER"],
    purpose: "to make views, routines, triggers and events in their definers' names",
};

/// To copy past the log (`copy.binlog: no`).
const UNLOGGED: Need = Need {
    names: &[
        "SESSION_VARIABLES_ADMIN",
        "BINLOG ADMIN",
        "SYSTEM_VARIABLES_ADMIN",
        "SUPER",
    ],
    purpose: "to load rows past the binary log",
};

/// Where a right holds.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Grant {
    rights: BTreeSet<String>,
    schema: String,
    table: String,
}

/// All that the account may do.
pub async fn check(
    checked: &mut Checked,
    context: &Context,
    findings: &mut Findings,
) -> Result<(), SchemaError> {
    let side = checked.side;
    let shown = checked.session.column("SHOW GRANTS").await?;
    let grants: Vec<Grant> = shown.iter().filter_map(|g| grant(g)).collect();
    let user = checked.session.one("SELECT CURRENT_USER()").await?;
    let user = user.unwrap_or_default();
    for need in &GLOBAL {
        if !global(&grants, need.names) {
            lacks(findings, Severity::Error, side, &user, need, "*.*");
        }
    }
    if !global(&grants, DEFINERS.names) {
        let mut need = DEFINERS;
        if !checked.session.server.mariadb {
            need.names = DEFINERS.names.get(1..).unwrap_or_default();
        }
        lacks(findings, Severity::Warning, side, &user, &need, "*.*");
    }
    if !context.copy_logged && side == Side::Target {
        unlogged(checked, findings, &grants, &user);
    }
    for scope in &context.scopes {
        findings.route = Some(scope.name.clone());
        for glob in &scope.globs {
            let schema = String::from_utf8_lossy(&glob.database).into_owned();
            let table = String::from_utf8_lossy(&glob.table).into_owned();
            let making = MAKING.iter().filter(|_| side == Side::Target);
            let needs = TABLES.iter().chain(making).map(|n| (Severity::Error, n));
            let objects = OBJECTS.iter().map(|n| (Severity::Warning, n));
            for (severity, need) in needs.chain(objects) {
                if !on_tables(&grants, need.names, &schema, &table) {
                    let on = format!("{schema}.{table}");
                    lacks(findings, severity, side, &user, need, &on);
                }
            }
        }
    }
    findings.route = None;
    accounts_readable(checked, findings, &user).await?;
    own_schema(checked, findings, &user).await
}

/// What it takes, and costs, to copy past the target's log.
fn unlogged(checked: &Checked, findings: &mut Findings, grants: &[Grant], user: &str) {
    let mut need = UNLOGGED;
    if checked.session.server.mariadb {
        need.names = UNLOGGED.names.get(1..).unwrap_or_default();
    }
    let side = checked.side;
    if !global(grants, need.names) {
        lacks(findings, Severity::Error, side, user, &need, "*.*");
    }
    findings.put(
        Severity::Warning,
        "copy_unlogged",
        At::Side(side),
        "copy.binlog is off: replicas of the target and a restore from its binlog lack the rows \
         that are copied"
            .to_owned(),
        "make its replicas from a backup taken after the copy, or leave copy.binlog on".to_owned(),
    );
}

fn lacks(
    findings: &mut Findings,
    severity: Severity,
    side: Side,
    user: &str,
    need: &Need,
    on: &str,
) {
    let right = need.names.first().copied().unwrap_or_default();
    let why = format!(
        "the service account {user} lacks {right} on {on}, {}",
        need.purpose
    );
    let remedy = format!("GRANT {right} ON {on} TO {}", quoted(user));
    findings.put(severity, "grant_missing", At::Side(side), why, remedy);
}

/// `a@b` as a statement names it.
fn quoted(user: &str) -> String {
    let (name, host) = user.rsplit_once('@').unwrap_or((user, "%"));
    format!("'{name}'@'{host}'")
}

/// `GRANT a, b ON x.y TO …`. None: a role, or a right on a routine.
fn grant(text: &str) -> Option<Grant> {
    let all = tokens(text);
    let on = all.iter().position(|t| t.is("ON"))?;
    let mut rights = BTreeSet::new();
    for part in crate::schema::tokens::split(all.get(1..on)?) {
        let words: Vec<&str> = part
            .iter()
            .take_while(|t| t.kind == Kind::Word)
            .map(|t| t.text)
            .collect();
        rights.insert(words.join(" ").to_uppercase());
    }
    let mut rest = all.get(on + 1..)?;
    if rest.first()?.is("TABLE") {
        rest = rest.get(1..)?;
    }
    rest.get(1).filter(|t| t.punct('.'))?;
    Some(Grant {
        rights,
        schema: name(rest.first()?)?,
        table: name(rest.get(2)?)?,
    })
}

fn name(token: &Token<'_>) -> Option<String> {
    match token.kind {
        Kind::Punct if token.punct('*') => Some("*".to_owned()),
        Kind::Text => Some(literal_value(token.text)),
        _ => token.name(),
    }
}

fn has(grant: &Grant, names: &[&str]) -> bool {
    grant.rights.contains("ALL PRIVILEGES") || names.iter().any(|n| grant.rights.contains(*n))
}

fn global(grants: &[Grant], names: &[&str]) -> bool {
    let everywhere = |g: &&Grant| g.schema == "*" && g.table == "*";
    grants.iter().filter(everywhere).any(|g| has(g, names))
}

/// Whether the right holds for all that a route's glob may name. A glob with
/// wildcards in its schema needs the right everywhere, or by the same pattern.
fn on_tables(grants: &[Grant], names: &[&str], schema: &str, table: &str) -> bool {
    let covers = |g: &&Grant| {
        let schema_fits = g.schema == "*" || pattern(&g.schema, schema);
        schema_fits && (g.table == "*" || g.table == table)
    };
    grants.iter().filter(covers).any(|g| has(g, names))
}

/// Whether a grant's schema, in which `%` and `_` are wildcards unless escaped,
/// covers a name.
fn pattern(pattern: &str, name: &str) -> bool {
    let mut chars = pattern.chars();
    let Some(c) = chars.next() else {
        return name.is_empty();
    };
    let rest = chars.as_str();
    let same = |wanted: char, rest: &str| {
        let mut name = name.chars();
        name.next().is_some_and(|n| n == wanted) && self::pattern(rest, name.as_str())
    };
    match c {
        '\\' => chars
            .next()
            .is_some_and(|wanted| same(wanted, chars.as_str())),
        '%' => {
            let mut tails = name.char_indices().map(|(at, _)| &name[at..]);
            rest.is_empty() || tails.any(|tail| self::pattern(rest, tail))
        }
        '_' => {
            let mut name = name.chars();
            name.next().is_some() && self::pattern(rest, name.as_str())
        }
        c => same(c, rest),
    }
}

/// Logins are learnt from the grant tables.
async fn accounts_readable(
    checked: &mut Checked,
    findings: &mut Findings,
    user: &str,
) -> Result<(), SchemaError> {
    let sql = "SELECT User, Host, plugin, authentication_string FROM mysql.user LIMIT 1";
    match checked.session.rows(sql).await {
        Ok(_) => Ok(()),
        Err(Refused::Server(code, _)) => {
            let why = format!(
                "the service account {user} may not read mysql.user ({code}): clients' accounts cannot be learnt, and their other leg stays closed"
            );
            let remedy = format!("GRANT SELECT ON mysql.user TO {}", quoted(user));
            findings.error("grant_missing", At::Side(checked.side), why, &remedy);
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

/// Positions and marks live in a schema of our own on both sides.
async fn own_schema(
    checked: &mut Checked,
    findings: &mut Findings,
    user: &str,
) -> Result<(), SchemaError> {
    // Of this check alone: others may run at the same time.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nonce = now.map_or(0, |n| n.as_nanos());
    let table = format!("lockstep.preflight_{}_{nonce}", std::process::id());
    let steps = [
        "CREATE DATABASE IF NOT EXISTS lockstep".to_owned(),
        format!("CREATE TABLE {table} (id INT PRIMARY KEY, v INT) ENGINE=InnoDB"),
        format!("REPLACE INTO {table} VALUES (1, 1)"),
        format!("UPDATE {table} SET v = v + 1"),
        format!("DELETE FROM {table}"),
        format!("DROP TABLE {table}"),
    ];
    for sql in steps {
        match checked.session.run(&sql).await {
            Ok(()) => {}
            Err(Refused::Server(code, said)) => {
                let why = format!(
                    "the service account {user} cannot write the schema `lockstep`, where positions and marks are kept: {said} ({code})"
                );
                let remedy = format!("GRANT ALL PRIVILEGES ON lockstep.* TO {}", quoted(user));
                findings.error("own_schema", At::Side(checked.side), why, &remedy);
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read() {
        let all = [
            "GRANT PROCESS, BINLOG MONITOR ON *.* TO `l`@`%` IDENTIFIED BY PASSWORD '*X'",
            "GRANT SELECT, LOCK TABLES ON `shop\\_1`.* TO `l`@`%`",
            "GRANT INSERT, UPDATE (a, b) ON `a%`.`t` TO `l`@`%`",
            "GRANT `role`@`%` TO `l`@`%`",
        ];
        let grants: Vec<Grant> = all.iter().filter_map(|g| grant(g)).collect();
        assert_eq!(grants.len(), 3);
        assert!(global(&grants, &["BINLOG MONITOR"]) && !global(&grants, &["SELECT"]));
        assert!(on_tables(&grants, &["LOCK TABLES"], "shop_1", "x"));
        assert!(!on_tables(&grants, &["SELECT"], "shopx1", "x"));
        assert!(on_tables(&grants, &["INSERT"], "abc", "t"));
        assert!(!on_tables(&grants, &["INSERT"], "abc", "u"));
        let root = grant("GRANT ALL PRIVILEGES ON *.* TO `r`@`%` WITH GRANT OPTION").unwrap();
        assert!(global(std::slice::from_ref(&root), &["SUPER"]));
        assert!(on_tables(&[root], &["DELETE"], "any", "*"));
    }
}
