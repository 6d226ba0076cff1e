//! Answers of the control port as people read them.

use serde_json::Value;

use super::page::text;

/// Rows in aligned columns; the first row is the heading.
pub fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(i) {
                Some(w) => *w = (*w).max(width),
                None => widths.push(width),
            }
        }
    }
    let mut out = String::new();
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

fn heading(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// `GET /v1/status`, all routes or one.
pub fn status(status: &Value, only: Option<&str>) -> String {
    let sessions = &status["sessions"];
    let mut out = format!(
        "lockstep {}, home {}, {} clients ({} without other leg)\n",
        text(&status["version"]),
        text(&status["home"]),
        text(&sessions["clients"]),
        text(&sessions["without_other_leg"]),
    );
    let mut rows = vec![heading(&["BACKEND", "ADDRESS", "VERSION", "STATE"])];
    for side in ["source", "target"] {
        let b = &status["backends"][side];
        let state = match (&b["up"], &b["read_only"]) {
            (Value::Bool(true), Value::Bool(true)) => "up, read-only".to_owned(),
            (Value::Bool(true), _) => "up".to_owned(),
            _ => format!("down: {}", text(&b["error"])),
        };
        rows.push(vec![
            side.to_owned(),
            text(&b["address"]),
            text(&b["version"]),
            state,
        ]);
    }
    out.push_str(&columns(&rows));
    out.push('\n');
    let all = status["routes"].as_array().into_iter().flatten();
    let asked: Vec<&Value> = all
        .filter(|r| only.is_none_or(|name| r["name"] == name))
        .collect();
    out.push_str(&routes(&asked));
    out
}

/// Routes, with what their next steps wait for.
pub fn routes(routes: &[&Value]) -> String {
    let mut out = String::new();
    let mut rows = vec![heading(&[
        "ROUTE",
        "PHASE",
        "EPOCH",
        "ACTIVE",
        "READS ON TARGET",
        "MIRRORED",
        "FAILED",
        "DEFERRED",
    ])];
    for route in routes {
        let mirror = &route["mirror"];
        rows.push(vec![
            text(&route["name"]),
            text(&route["phase"]),
            text(&route["epoch"]),
            text(&route["active"]),
            format!("{} %", text(&route["reads_target_percent"])),
            text(&mirror["writes_ok"]),
            text(&mirror["writes_failed"]),
            text(&mirror["writes_deferred"]),
        ]);
    }
    out.push_str(&columns(&rows));
    for route in routes {
        out.push_str(&next(route));
    }
    out
}

/// Copy, follower and journal of a route, a line each.
fn background(route: &Value) -> String {
    let mut out = String::new();
    let name = text(&route["name"]);
    let copy = &route["copy"];
    if !copy.is_null() {
        let done = copy["rows_done"].as_u64().unwrap_or(0);
        let of = copy["rows_estimated"].as_u64().unwrap_or(0);
        out.push_str(&format!(
            "\n{name}: copy {}: {done} of about {of} rows",
            text(&copy["state"])
        ));
        if copy["state"] == "running" {
            let percent = done.saturating_mul(100).checked_div(of).unwrap_or(0);
            out.push_str(&format!(
                " ({percent} %), {} rows/s, {} left",
                text(&copy["rows_per_s"]),
                copy["eta_s"].as_u64().map_or("?".to_owned(), duration)
            ));
        }
        if let Some(detail) = copy["detail"].as_str() {
            out.push_str(&format!(": {detail}"));
        }
        out.push('\n');
    }
    let follow = &route["follow"];
    if !follow.is_null() {
        out.push_str(&format!(
            "\n{name}: follow {} ({}): {}, {} ms behind, at {}\n",
            text(&follow["direction"]),
            text(&follow["mode"]),
            text(&follow["state"]),
            text(&follow["lag_ms"]),
            text(&follow["position"])
        ));
        if !follow["detail"].is_null() {
            out.push_str(&format!("  {}\n", text(&follow["detail"])));
        }
    }
    let journal = &route["journal"];
    if journal["lines"].as_u64().is_some_and(|lines| lines > 0) {
        let lines = text(&journal["lines"]);
        out.push_str(&format!("\n{name}: journal: {lines} lines to be healed\n"));
        if !journal["detail"].is_null() {
            out.push_str(&format!("  {}\n", text(&journal["detail"])));
        }
    }
    out
}

/// `POST …/compare`.
pub fn compared(answer: &Value) -> String {
    let name = text(&answer["route"]);
    if answer["running"] == true {
        return format!("{name}: comparing; lockstep status shows how far it is\n");
    }
    let report = &answer["report"];
    let mut rows = vec![heading(&["TABLE", "ROWS", "VERDICT"])];
    for table in report["tables"].as_array().into_iter().flatten() {
        let verdict = match &table["verdict"] {
            Value::Object(why) => why
                .iter()
                .map(|(word, why)| format!("{word}: {}", text(why)))
                .collect(),
            word => text(word),
        };
        rows.push(vec![text(&table["table"]), text(&table["rows"]), verdict]);
    }
    let mut out = columns(&rows);
    out.push_str(&format!(
        "\n{name}: {} rows compared, {} differed, {} repaired, {} differ still\n",
        text(&report["rows"]),
        text(&report["divergent"]),
        text(&report["repaired"]),
        text(&report["open"]),
    ));
    if !report["weak"].is_null() {
        out.push_str(&format!("{}\n", text(&report["weak"])));
    }
    out
}

/// `GET …/divergences`.
pub fn divergences(answer: &Value) -> String {
    let list = answer["divergences"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if list.is_empty() {
        return format!("{}: none\n", text(&answer["route"]));
    }
    let mut rows = vec![heading(&[
        "TABLE",
        "KEY",
        "KIND",
        "STATE",
        "FIRST SEEN",
        "ACTIVE",
        "MIRROR",
    ])];
    for one in &list {
        let seen = one["first_seen_ms"].as_u64().unwrap_or(0);
        let seen = std::time::UNIX_EPOCH + std::time::Duration::from_millis(seen);
        rows.push(vec![
            text(&one["table"]),
            text(&one["key"]),
            text(&one["kind"]),
            text(&one["state"]),
            crate::migration::events::rfc3339(seen),
            text(&one["active_digest"]),
            text(&one["mirror_digest"]),
        ]);
    }
    let mut out = columns(&rows);
    if answer["more"].as_u64().is_some_and(|n| n > 0) {
        out.push_str(&format!("and {} more\n", text(&answer["more"])));
    }
    out
}

/// Seconds as people say them.
fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// What a route does, waits for, and needs for its next step.
pub fn next(route: &Value) -> String {
    let mut out = String::new();
    if route["mirror"]["suspended"] == Value::Bool(true) {
        out.push_str(&format!(
            "\n{}: MIRRORING IS SUSPENDED: {}\n",
            text(&route["name"]),
            text(&route["mirror"]["suspended_reason"])
        ));
    }
    out.push_str(&background(route));
    if !route["next"].is_null() {
        out.push_str(&format!(
            "\n{}: conditions of {}\n",
            text(&route["name"]),
            text(&route["next"]["phase"])
        ));
        out.push_str(&conditions(&route["next"]["conditions"]));
    }
    out
}

/// A list of conditions, one a line.
pub fn conditions(list: &Value) -> String {
    let rows: Vec<Vec<String>> = list
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| {
            let mark = match c["ok"] {
                Value::Bool(true) => "ok",
                Value::Bool(false) => "NO",
                _ => "?",
            };
            vec![format!("  {mark}"), text(&c["name"]), text(&c["detail"])]
        })
        .collect();
    columns(&rows)
}

/// What became of an edge.
pub fn outcome(answer: &Value) -> String {
    let steps = answer["steps"].as_array().cloned().unwrap_or_default();
    let name = text(&answer["route"]);
    let mut out = String::new();
    for step in &steps {
        let (from, to) = (text(&step["from"]), text(&step["to"]));
        if step["epoch"].is_null() {
            out.push_str(&format!("{name}: would go from {from} to {to}\n"));
            out.push_str(&conditions(&step["conditions"]));
        } else {
            let pause = step["pause_ms"].as_f64().unwrap_or(0.0);
            out.push_str(&format!(
                "{name}: {from} to {to}, epoch {}, writes held for {pause:.1} ms\n",
                text(&step["epoch"])
            ));
        }
        let overridden = step["overridden"].as_array().into_iter().flatten();
        let overridden: Vec<String> = overridden.map(text).collect();
        if !overridden.is_empty() {
            out.push_str(&format!("  overridden: {}\n", overridden.join(", ")));
        }
    }
    if steps.is_empty() {
        out.push_str(&format!(
            "{name}: is in {} already\n",
            text(&answer["phase"])
        ));
    }
    out
}

/// `POST /v1/explain`.
pub fn explain(answer: &Value) -> String {
    let list = |v: &Value| {
        let items: Vec<String> = v.as_array().into_iter().flatten().map(text).collect();
        if items.is_empty() {
            "-".to_owned()
        } else {
            items.join(", ")
        }
    };
    let rows: Vec<Vec<String>> = [
        ("decision", text(&answer["decision"])),
        ("backends", list(&answer["backends"])),
        ("reason", text(&answer["reason"])),
        (
            "statement",
            format!("{} ({})", text(&answer["verb"]), text(&answer["class"])),
        ),
        ("tables", list(&answer["tables"])),
        ("route", text(&answer["route"])),
        ("phase", text(&answer["phase"])),
    ]
    .into_iter()
    .map(|(name, value)| vec![name.to_owned(), value])
    .collect();
    columns(&rows)
}

/// `GET /v1/sessions`.
pub fn sessions(answer: &Value) -> String {
    let mut rows = vec![heading(&[
        "ID",
        "USER",
        "ADDRESS",
        "DATABASE",
        "SOURCE",
        "TARGET",
        "IN TRANSACTION",
        "STATEMENTS",
    ])];
    for s in answer["sessions"].as_array().into_iter().flatten() {
        let transaction = match s["in_transaction"] {
            Value::Bool(true) => format!("{} ms", text(&s["transaction_ms"])),
            _ => "-".to_owned(),
        };
        rows.push(vec![
            text(&s["id"]),
            text(&s["user"]),
            text(&s["address"]),
            text(&s["database"]),
            text(&s["legs"]["source"]),
            text(&s["legs"]["target"]),
            transaction,
            text(&s["statements"]),
        ]);
    }
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_missing_breaks_it() {
        for v in [Value::Null, json!({}), json!({"routes": 3}), json!([1])] {
            let _ = (
                status(&v, None),
                outcome(&v),
                explain(&v),
                sessions(&v),
                conditions(&v),
            );
        }
    }

    #[test]
    fn columns_align() {
        let rows = vec![heading(&["A", "BB"]), heading(&["ccc", "d"])];
        assert_eq!(columns(&rows), "A    BB\nccc  d\n");
    }
}
