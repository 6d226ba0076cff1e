//! Lists for people: the first names, and how many more there are.

/// Most names in one list.
const NAMED_MAX: usize = 10;

/// The first [`NAMED_MAX`] of `names`, and behind them "and N more" where there
/// are more.
pub fn few(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut names = names.into_iter();
    let mut named: Vec<String> = names.by_ref().take(NAMED_MAX).collect();
    let more = names.count();
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_many_it_leaves_out() {
        let names = |n: usize| (0..n).map(|i| i.to_string());
        assert!(few(names(0)).is_empty());
        assert_eq!(few(names(NAMED_MAX)).len(), NAMED_MAX);
        let long = few(names(NAMED_MAX + 2));
        assert_eq!(long.last().map(String::as_str), Some("and 2 more"));
        assert_eq!(long.len(), NAMED_MAX + 1);
    }
}
