//! Rules about the source text itself: which module may use which, how long a
//! file may be, and what may not stand in it.

use std::fs;
use std::path::{Path, PathBuf};

/// A hard look is due at 600 lines; nothing is longer than this.
const MAX_LINES: usize = 700;

/// `use crate::…` edges that are allowed, per folder of `src/`. An entry
/// `session::registry` allows that part of a module only; [`WORDS`] and [`FREE`]
/// names may be used by all. A new folder needs a row of its own, and a reason
/// in ARCHITECTURE.md.
const EDGES: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("auth", &["wire"]),
    ("sql", &[]),
    ("route", &["sql", "rows", "telemetry"]),
    ("leg", &["wire", "auth", "telemetry"]),
    (
        "session",
        &[
            "wire",
            "auth",
            "leg",
            "mirror",
            "route",
            "sql",
            "rows",
            "telemetry",
            "config",
        ],
    ),
    (
        "mirror",
        &[
            "wire",
            "leg",
            "route",
            "sql",
            "telemetry",
            "store",
            "binlog",
        ],
    ),
    ("binlog", &["wire", "leg"]),
    ("rows", &["binlog", "config", "telemetry"]),
    (
        "follow",
        &[
            "binlog",
            "rows",
            "sql",
            "copy::raw",
            "copy::select",
            "leg",
            "telemetry",
        ],
    ),
    (
        "copy",
        &["binlog", "config", "follow", "leg", "rows", "wire"],
    ),
    (
        "plane",
        &[
            "auth",
            "leg",
            "binlog",
            "follow",
            "copy",
            "compare",
            "config",
            "mirror::journal",
            "route",
            "rows",
            "schema",
            "sql",
            "store",
            "telemetry",
        ],
    ),
    ("schema", &["rows"]),
    ("check", &["config", "follow", "route", "rows", "schema"]),
    (
        "compare",
        &["binlog", "copy", "follow", "rows", "telemetry"],
    ),
    ("store", &["config"]),
    (
        "migration",
        &[
            "plane",
            "compare",
            "route",
            "store",
            "rows",
            "mirror",
            "session::registry",
            "config",
            "telemetry",
        ],
    ),
    (
        "control",
        &[
            "check",
            "migration",
            "session",
            "route",
            "mirror",
            "sql",
            "config",
            "telemetry",
        ],
    ),
    ("config", &["telemetry"]),
    ("telemetry", &[]),
    // Assembles the process from all of them.
    (
        "server",
        &[
            "auth",
            "config",
            "control",
            "leg",
            "migration",
            "mirror",
            "plane",
            "route",
            "rows",
            "session",
            "store",
            "telemetry",
        ],
    ),
];

/// Plain types that name things of the domain, each with the file it stands in.
/// Such a file uses nothing itself, so an edge to it cannot close a circle.
const WORDS: &[(&str, &str)] = &[
    ("route::table", "src/route/table.rs"),
    ("sql::Isolation", "src/sql/mode.rs"),
];

/// Files at the root of `src/` that assemble the rest.
const ROOT: [&str; 2] = ["lib.rs", "main.rs"];

/// Names at the crate's root that are no module.
const FREE: [&str; 1] = ["Side"];

#[test]
fn modules_use_only_what_the_layout_allows() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let Some(module) = module_of(&file.path) else {
            continue;
        };
        if file.is_test() {
            continue;
        }
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!(
                "{}: the module `{module}` is not in the table of edges",
                file.path
            ));
            continue;
        };
        let code = without_tests(&blank(&file.text));
        for path in uses(&code, &file.path) {
            let first = path.split("::").next().unwrap_or_default();
            let fine = first == module
                || FREE.contains(&first)
                || WORDS.iter().any(|(word, _)| covers(word, &path))
                || allowed.iter().any(|edge| covers(edge, &path));
            if !fine {
                wrong.push(format!(
                    "{}: `{module}` may not use `crate::{path}`",
                    file.path
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_of_plain_words_use_nothing() {
    for (_, path) in WORDS {
        let Ok(text) = fs::read_to_string(root().join(path)) else {
            continue;
        };
        let code = without_tests(&blank(&text));
        let mut used = uses(&code, path);
        used.retain(|name| !covers(FREE[0], name));
        assert!(
            used.is_empty() && !code.contains("super::"),
            "{path} uses {used:?}"
        );
    }
}

#[test]
fn files_are_short_finished_and_do_not_panic() {
    let mut wrong = Vec::new();
    let unfinished = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!"));
    for file in ["src", "tests", "examples", "benches", "fuzz"]
        .iter()
        .flat_map(|f| rust_files(f))
    {
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines, at most {MAX_LINES}", file.path));
        }
        let code = blank(&file.text);
        for name in &unfinished {
            if code.contains(name.as_str()) {
                wrong.push(format!("{}: {name}", file.path));
            }
        }
        if file.path.starts_with("src/") && !file.is_test() {
            wrong.extend(panics(&file, &without_tests(&code)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_path_of_one_machine_stands_in_the_repository() {
    // Put together here so that this file does not name them.
    let paths = ["work", "root", "home", "tmp/m97"].map(|name| format!("/{name}/"));
    let folders = [
        "src", "tests", "examples", "benches", "scripts", "docker", ".ci",
    ];
    let mut files: Vec<PathBuf> = folders.iter().flat_map(|f| walk(&root().join(f))).collect();
    let top = fs::read_dir(root())
        .expect("repository")
        .flatten()
        .map(|e| e.path());
    files.extend(top.filter(|p| p.is_file()));
    let mut wrong = Vec::new();
    for file in files {
        if file.components().any(|c| c.as_os_str() == "node_modules") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for (n, line) in text.lines().enumerate() {
            if paths.iter().any(|p| line.contains(p.as_str())) {
                wrong.push(format!("{}:{}: {}", shown(&file), n + 1, line.trim()));
            }
        }
    }
    // A worktree's link file and editors' leftovers are not part of it.
    wrong.retain(|w| !w.starts_with(".git:"));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_rules_see_what_they_look_for() {
    let source = r##"
use crate::{auth::{self, Secret}, sql as s};
// crate::comment
/* crate::block /* crate::nested */ */
const A: &str = "crate::text \" .unwrap()";
const B: &str = r#"crate::raw " "#;
fn f<'a>(c: &'a str) -> char { crate::leg::open(c).unwrap(); '"' }
#[cfg(test)]
mod tests { use crate::control; fn g() { x.unwrap() } }
fn h() { crate::Side::Source; super::super::route::plan() }
"##;
    let code = without_tests(&blank(source));
    let found = uses(&code, "src/wire/frame.rs");
    let expected = [
        "auth",
        "auth::Secret",
        "sql",
        "leg::open",
        "Side::Source",
        "route::plan",
    ];
    assert_eq!(found, expected);
    assert_eq!(code.matches(".unwrap()").count(), 1);
    assert_eq!(code.lines().count(), source.lines().count());
    assert!(covers("session::registry", "session::Registry"));
    assert!(covers("session::registry", "session::registry::Entry"));
    assert!(!covers("session::registry", "session::relay"));
    assert!(!covers("session::registry", "session"));
}

// --- reading the tree --------------------------------------------------------

struct Source {
    /// From the repository's root, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// Whether the file is compiled for tests only: its parent declares it, or a
    /// folder on the way to it, under `#[cfg(test)]`.
    fn is_test(&self) -> bool {
        let path = self
            .path
            .trim_end_matches("/mod.rs")
            .trim_end_matches(".rs");
        let parts: Vec<&str> = path.split('/').collect();
        (1..parts.len()).any(|n| {
            let folder = parts[..n].join("/");
            let parents = [
                format!("{folder}/mod.rs"),
                format!("{folder}.rs"),
                format!("{folder}/lib.rs"),
            ];
            let declared = format!("mod {};", parts[n]);
            parents
                .iter()
                .filter_map(|p| fs::read_to_string(root().join(p)).ok())
                .any(|text| {
                    let code = blank(&text);
                    code.contains(&declared) && !without_tests(&code).contains(&declared)
                })
        })
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|e| e.path())
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect();
    files.sort();
    files
}

fn rust_files(folder: &str) -> Vec<Source> {
    let all = walk(&root().join(folder)).into_iter();
    all.filter(|p| p.extension().is_some_and(|e| e == "rs") && !shown(p).contains("/target/"))
        .map(|p| Source {
            path: shown(&p),
            text: fs::read_to_string(&p).expect("source file"),
        })
        .collect()
}

/// `src/wire/frame.rs` → `wire`; nothing for the files that assemble the crate.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    if ROOT.contains(&inside) || inside.starts_with("bin/") {
        return None;
    }
    inside
        .split('/')
        .next()
        .map(|name| name.trim_end_matches(".rs"))
}

// --- reading the text --------------------------------------------------------

/// The source with comments and the contents of literals replaced by spaces;
/// every line keeps its number.
fn blank(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let word = out.ends_with(|p: char| p.is_alphanumeric() || p == '_');
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => 1 + quoted(&rest[1..], '"'),
            'r' if !word || out.ends_with('b') => raw_string(rest).unwrap_or(0),
            '\'' => char_literal(rest),
            _ => 0,
        };
        if length == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            let gone = &rest[..length];
            out.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let here = &text.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length up to and including the closing quote.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(1 + hashes + 1 + body.find(&end)? + end.len())
}

/// The length of a character literal; 0 for a lifetime.
fn char_literal(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => 1 + quoted(&text[1..], '\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// Blanked code with each item under `#[cfg(test)]` replaced by empty lines.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        let item = &rest[at..];
        let (mut depth, mut end) = (0_i32, item.len());
        for (i, c) in item.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth <= 0 && matches!(c, '}' | ';') {
                end = i + 1;
                break;
            }
        }
        out.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    out.push_str(rest);
    out
}

/// The paths below the crate's root that blanked code names, `crate::` left out.
fn uses(code: &str, file: &str) -> Vec<String> {
    let mut found = Vec::new();
    let names = EDGES.iter().map(|(name, _)| *name);
    // How many `super::` reach the root from this file's top level.
    let up = file.matches('/').count() - usize::from(file.ends_with("/mod.rs"));
    let to_root = "super::".repeat(up);
    let supers: Vec<String> = names.map(|name| format!("{to_root}{name}::")).collect();
    for (at, _) in code.match_indices("::") {
        let (head, tail) = (&code[..at], &code[at + 2..]);
        let whole = |word: &str| {
            head.strip_suffix(word).is_some_and(|before| {
                !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
            })
        };
        if whole("crate") {
            expand("", tail, &mut found);
        } else if up > 0 && whole(to_root.trim_end_matches("::")) {
            let path = supers
                .iter()
                .any(|s| format!("{to_root}{tail}").starts_with(s.as_str()));
            if path {
                expand("", tail, &mut found);
            }
        }
    }
    found
}

/// Follows a use tree or path from its start, adding each full path. Returns
/// what is left of the text behind it.
fn expand<'t>(prefix: &str, tree: &'t str, found: &mut Vec<String>) -> &'t str {
    let mut tree = tree.trim_start();
    if let Some(mut inner) = tree.strip_prefix('{') {
        loop {
            inner = inner.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if inner.is_empty() {
                return inner;
            }
            if let Some(behind) = inner.strip_prefix('}') {
                return behind;
            }
            let behind = expand(prefix, inner, found);
            inner = behind.find([',', '}']).map_or("", |at| &behind[at..]);
        }
    }
    let end = tree.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*'));
    let (name, behind) = tree.split_at(end.unwrap_or(tree.len()));
    tree = behind;
    let path = match (prefix, name) {
        (prefix, "self") => prefix.to_string(),
        ("", name) => name.to_string(),
        (prefix, name) => format!("{prefix}::{name}"),
    };
    match tree.strip_prefix("::") {
        Some(further) if !further.starts_with('<') => expand(&path, further, found),
        _ => {
            found.push(path);
            tree
        }
    }
}

/// Whether an allowed edge covers a used path.
fn covers(edge: &str, path: &str) -> bool {
    let mut used = path.split("::");
    edge.split("::").all(|part| {
        used.next()
            .is_some_and(|name| name.eq_ignore_ascii_case(part))
    })
}

/// Places that panic on a value, unless `// tidy: reason` stands there or above.
fn panics(file: &Source, code: &str) -> Vec<String> {
    let original: Vec<&str> = file.text.lines().collect();
    let excused = |n: usize| {
        original
            .get(n)
            .is_some_and(|line| line.contains("// tidy: "))
    };
    let lines = code.lines().enumerate();
    lines
        .filter(|(_, line)| line.contains(".unwrap()") || line.contains(".expect("))
        .filter(|(n, _)| !excused(*n))
        .map(|(n, line)| format!("{}:{}: {}", file.path, n + 1, line.trim()))
        .collect()
}
