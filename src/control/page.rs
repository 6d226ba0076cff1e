//! The page at `/`: where the routes stand, in plain HTML.

use serde_json::Value;

/// The page for a status.
pub fn render(status: &Value) -> String {
    let mut rows = String::new();
    for route in status["routes"].as_array().into_iter().flatten() {
        let cells = [
            text(&route["name"]),
            route["tables"]
                .as_array()
                .map(|t| t.iter().map(text).collect::<Vec<_>>().join(", "))
                .unwrap_or_default(),
            text(&route["phase"]),
            text(&route["epoch"]),
            text(&route["active"]),
            format!("{} %", text(&route["reads_target_percent"])),
        ];
        let cells: String = cells
            .iter()
            .map(|c| format!("<td>{}</td>", escape(c)))
            .collect();
        rows.push_str(&format!("<tr>{cells}</tr>\n"));
    }
    let backends: String = ["source", "target"]
        .iter()
        .map(|side| {
            let b = &status["backends"][*side];
            let up = if b["up"] == Value::Bool(true) {
                "up"
            } else {
                "down"
            };
            let line = format!(
                "{side}: {} {} {up}",
                text(&b["address"]),
                text(&b["version"])
            );
            format!("<li>{}</li>", escape(&line))
        })
        .collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta http-equiv=\"refresh\" content=\"2\"><title>Lockstep</title>\
         <style>body{{font:15px system-ui,sans-serif;margin:2rem}}\
         td,th{{text-align:left;padding:.3rem 1rem .3rem 0}}</style>\
         <h1>Lockstep {}</h1><p>home: {}, clients: {}</p><ul>{backends}</ul>\
         <table><tr><th>route<th>tables<th>phase<th>epoch<th>active<th>reads on target</tr>\n\
         {rows}</table></html>",
        escape(&text(&status["version"])),
        escape(&text(&status["home"])),
        escape(&text(&status["sessions"]["clients"])),
    )
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
}
