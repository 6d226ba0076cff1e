//! The nearest collation of the other family.
//!
//! What decides, in this order: the character set, sensitivity to accents and
//! case, the language, whether trailing spaces count, the version of the
//! Unicode tables. MySQL's 0900 collations do not pad (`'a' <> 'a '`), nor do
//! MariaDB's nopad ones; the others do.

use std::collections::BTreeSet;

/// Languages that both families tailor, as (MySQL 0900's, UCA 1400's) names.
const LANGUAGES: [(&str, &str); 21] = [
    ("de_pb", "german2"),
    ("is", "icelandic"),
    ("lv", "latvian"),
    ("ro", "romanian"),
    ("sl", "slovenian"),
    ("pl", "polish"),
    ("et", "estonian"),
    ("es", "spanish"),
    ("sv", "swedish"),
    ("tr", "turkish"),
    ("cs", "czech"),
    ("da", "danish"),
    ("lt", "lithuanian"),
    ("sk", "slovak"),
    ("es_trad", "spanish2"),
    ("la", "roman"),
    ("eo", "esperanto"),
    ("hu", "hungarian"),
    ("hr", "croatian"),
    ("vi", "vietnamese"),
    ("fa", "persian"),
];

/// A collation's properties, from its name.
struct Nature<'a> {
    charset: &'a str,
    /// As UCA 1400 names it; empty: none.
    language: &'a str,
    accents: bool,
    case: bool,
    nopad: bool,
    binary: bool,
}

fn nature(name: &str) -> Option<Nature<'_>> {
    let (charset, rest) = name.split_once('_')?;
    let nopad = rest.contains("nopad") || rest.contains("0900");
    let mut nature = Nature {
        charset,
        language: "",
        accents: rest.contains("as_"),
        case: rest.contains("_cs") || rest == "cs",
        nopad,
        binary: rest.ends_with("bin"),
    };
    let language = |own: &str| {
        LANGUAGES
            .iter()
            .find(|(mysql, maria)| *mysql == own || *maria == own)
            .map(|(_, maria)| *maria)
    };
    if let Some(at) = rest.find("0900") {
        nature.language = language(rest[..at].trim_end_matches('_')).unwrap_or_default();
    } else if let Some(tail) = rest.strip_prefix("uca1400_") {
        let own = tail.split("_nopad").next().unwrap_or(tail);
        let own = own.split("_ai").next().unwrap_or(own);
        let own = own.split("_as").next().unwrap_or(own);
        nature.language = language(own).unwrap_or_default();
    } else {
        let own = rest.split('_').next().unwrap_or_default();
        nature.language = language(own).unwrap_or_default();
    }
    Some(nature)
}

/// The collation to use where `known` are those of the server: itself, or the
/// nearest. None: not even the character set is there.
pub fn nearest(name: &str, known: &BTreeSet<String>) -> Option<String> {
    if known.contains(name) {
        return Some(name.to_owned());
    }
    let wanted = nature(name)?;
    let all = known.iter().filter_map(|k| nature(k).map(|n| (k, n)));
    let best = all
        .filter(|(_, n)| n.charset == wanted.charset)
        .min_by_key(|(name, n)| (distance(&wanted, n), rank(name), (*name).clone()))?;
    Some(best.0.clone())
}

/// Whether one may stand for the other where the families have no collation in
/// common: both are of kinds that only one of them has, or that [`nearest`]
/// falls back to, and they differ in trailing spaces and in the language at
/// most. `check` names them.
pub fn may_stand_for(one: &str, other: &str) -> bool {
    const KINDS: [&str; 4] = ["0900", "uca1400", "nopad", "unicode_520"];
    let of_a_kind = |name: &str| KINDS.iter().any(|kind| name.contains(kind));
    let near = |one: &Nature<'_>, other: &Nature<'_>| {
        one.charset == other.charset && distance(one, other) < 16
    };
    let natures = nature(one).zip(nature(other));
    of_a_kind(one) && of_a_kind(other) && natures.is_some_and(|(a, b)| near(&a, &b))
}

fn distance(wanted: &Nature<'_>, have: &Nature<'_>) -> u32 {
    u32::from(wanted.binary != have.binary) * 64
        + u32::from(wanted.case != have.case) * 32
        + u32::from(wanted.accents != have.accents) * 16
        + u32::from(wanted.language != have.language) * 8
        // Another language is worse than none.
        + u32::from(wanted.language != have.language && !have.language.is_empty()) * 4
        + u32::from(wanted.nopad != have.nopad) * 2
}

/// Among equals: the newest Unicode tables, and nothing that this file does
/// not know to be general.
fn rank(name: &str) -> u32 {
    let rest = name.split_once('_').map_or("", |(_, r)| r);
    match () {
        () if rest.starts_with("uca1400") => 0,
        () if rest.starts_with("0900") => 1,
        () if rest.starts_with("unicode_520") => 2,
        () if rest.starts_with("unicode") => 3,
        () if rest.contains("0900") => 4,
        () if rest.starts_with("general_ci") || rest.starts_with("nopad_bin") => 5,
        () if rest.starts_with("general") => 6,
        () => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn what_may_stand_for_another() {
        for (one, other, may) in [
            ("utf8mb4_0900_ai_ci", "utf8mb4_uca1400_nopad_ai_ci", true),
            ("utf8mb4_uca1400_ai_ci", "utf8mb4_unicode_520_ci", true),
            ("utf8mb4_0900_bin", "utf8mb4_nopad_bin", true),
            ("utf8mb4_0900_ai_ci", "utf8mb4_uca1400_nopad_as_cs", false),
            ("utf8mb4_0900_ai_ci", "utf8mb4_general_ci", false),
            ("utf8mb4_general_ci", "utf8mb4_unicode_ci", false),
            ("utf8mb4_0900_ai_ci", "utf8mb3_unicode_520_ci", false),
        ] {
            assert_eq!(may_stand_for(one, other), may, "{one} {other}");
            assert_eq!(may_stand_for(other, one), may, "{other} {one}");
        }
    }

    #[test]
    fn nearest_of_the_other_family() {
        let mysql = of(&[
            "utf8mb4_0900_ai_ci",
            "utf8mb4_0900_as_cs",
            "utf8mb4_0900_as_ci",
            "utf8mb4_0900_bin",
            "utf8mb4_bin",
            "utf8mb4_general_ci",
            "utf8mb4_unicode_520_ci",
            "utf8mb4_sv_0900_ai_ci",
            "utf8mb4_ru_0900_ai_ci",
            "latin1_swedish_ci",
        ]);
        for (from, to) in [
            ("utf8mb4_general_ci", "utf8mb4_general_ci"),
            ("utf8mb4_uca1400_ai_ci", "utf8mb4_unicode_520_ci"),
            ("utf8mb4_uca1400_nopad_ai_ci", "utf8mb4_0900_ai_ci"),
            ("utf8mb4_uca1400_as_cs", "utf8mb4_0900_as_cs"),
            ("utf8mb4_uca1400_as_ci", "utf8mb4_0900_as_ci"),
            (
                "utf8mb4_uca1400_swedish_nopad_ai_ci",
                "utf8mb4_sv_0900_ai_ci",
            ),
            ("utf8mb4_nopad_bin", "utf8mb4_0900_bin"),
            ("latin1_swedish_nopad_ci", "latin1_swedish_ci"),
        ] {
            assert_eq!(nearest(from, &mysql).as_deref(), Some(to), "{from}");
        }
        assert_eq!(nearest("gb18030_bin", &mysql), None);
        let mariadb = of(&[
            "utf8mb4_uca1400_ai_ci",
            "utf8mb4_uca1400_nopad_ai_ci",
            "utf8mb4_uca1400_nopad_as_cs",
            "utf8mb4_uca1400_german2_nopad_ai_ci",
            "utf8mb4_general_ci",
            "utf8mb4_bin",
            "utf8mb4_nopad_bin",
        ]);
        for (from, to) in [
            ("utf8mb4_0900_ai_ci", "utf8mb4_uca1400_nopad_ai_ci"),
            ("utf8mb4_0900_as_cs", "utf8mb4_uca1400_nopad_as_cs"),
            ("utf8mb4_0900_bin", "utf8mb4_nopad_bin"),
            (
                "utf8mb4_de_pb_0900_ai_ci",
                "utf8mb4_uca1400_german2_nopad_ai_ci",
            ),
            ("utf8mb4_ja_0900_as_cs", "utf8mb4_uca1400_nopad_as_cs"),
        ] {
            assert_eq!(nearest(from, &mariadb).as_deref(), Some(to), "{from}");
        }
        let old = of(&[
            "utf8mb4_general_ci",
            "utf8mb4_unicode_520_ci",
            "utf8mb4_bin",
        ]);
        assert_eq!(
            nearest("utf8mb4_0900_ai_ci", &old).as_deref(),
            Some("utf8mb4_unicode_520_ci")
        );
    }
}
