//! The page at `/`: where the routes stand, in plain HTML.

use serde_json::Value;

/// The page for a status; it asks for the next one by itself.
pub fn render(status: &Value) -> String {
    let names = [
        "route",
        "tables",
        "phase",
        "epoch",
        "active",
        "reads on target",
        "mirrored",
        "failed",
        "deferred",
    ];
    let mut rows: String = names.iter().map(|n| format!("<th>{n}")).collect();
    let mut details = String::new();
    for route in status["routes"].as_array().into_iter().flatten() {
        let cells = [
            text(&route["name"]),
            tables(route),
            text(&route["phase"]),
            text(&route["epoch"]),
            text(&route["active"]),
            format!("{} %", text(&route["reads_target_percent"])),
            text(&route["mirror"]["writes_ok"]),
            text(&route["mirror"]["writes_failed"]),
            text(&route["mirror"]["writes_deferred"]),
        ];
        let cells = cells.map(|c| format!("<td>{}", escape(&c)));
        rows.push_str(&format!("<tr>{}\n", cells.concat()));
        details.push_str(&escape(&super::print::next(route)));
    }
    let backends = ["source", "target"].map(|side| backend(side, &status["backends"][side]));
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta http-equiv=\"refresh\" content=\"2\"><title>Lockstep</title>\
         <style>body{{font:15px system-ui,sans-serif;margin:2rem}}\
         td,th{{text-align:left;padding:.3rem 1rem .3rem 0}}</style>\
         <h1>Lockstep {}</h1><p>home: {}, clients: {}</p><ul>{}</ul>\
         <table><tr>{rows}</table><pre>{}</pre></html>",
        escape(&text(&status["version"])),
        escape(&text(&status["home"])),
        escape(&text(&status["sessions"]["clients"])),
        backends.concat(),
        details.trim_start_matches('\n'),
    )
}

fn tables(route: &Value) -> String {
    let all = route["tables"].as_array().into_iter().flatten();
    all.map(text).collect::<Vec<_>>().join(", ")
}

fn backend(side: &str, b: &Value) -> String {
    let state = match b["up"] == Value::Bool(true) {
        true => "up".to_owned(),
        false => format!("down: {}", text(&b["error"])),
    };
    let line = format!(
        "{side}: {} {} {state}",
        text(&b["address"]),
        text(&b["version"])
    );
    format!("<li>{}</li>", escape(&line))
}

/// A JSON value as people write it.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_escaped() {
        let page = render(&json!({
            "routes": [{"name": "<b>", "tables": ["a.\"b\""], "epoch": 3}],
        }));
        assert!(page.contains("&lt;b&gt;") && page.contains("&quot;b&quot;"));
        assert!(!page.contains("<b>"));
    }

    #[test]
    fn what_a_route_waits_for_is_shown() {
        let page = render(&json!({
            "routes": [{
                "name": "shop",
                "mirror": {"writes_failed": 7, "suspended": true, "suspended_reason": "lost: <x>"},
                "copy": {"state": "running", "rows_done": 5, "rows_estimated": 10},
            }],
        }));
        assert!(page.contains("<td>7") && page.contains("SUSPENDED: lost: &lt;x&gt;"));
        assert!(page.contains("shop: copy running: 5 of about 10 rows"));
    }
}
