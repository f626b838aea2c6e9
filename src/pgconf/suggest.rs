//! What a person may have meant: the nearest known word, a repaired name, a clipped quotation.
//!
//! Only ever used inside messages. Never decides anything.

/// Longest piece of somebody's text that a message repeats, in characters: a message stays one
/// line that a terminal and a note can show.
const CLIP: usize = 60;

/// The text on one line, at most 60 characters of it.
pub fn clip(text: &str) -> String {
    let mut clipped: String =
        text.chars().take(CLIP).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(CLIP).is_some() {
        clipped.push('…');
    }
    clipped
}

/// The candidate nearest to the word, if one is near enough that a slip of the fingers explains the
/// difference: two edits at most, and never more than a third of the word. Case does not count.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    // A word of somebody's essay is no slip, and distance costs the product of both lengths.
    if word.len() > 64 {
        return None;
    }
    let allowed = (word.chars().count() / 3).clamp(1, 2);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, candidate)| (*distance, *candidate))
        .map(|(_, candidate)| candidate)
}

/// Edits between two words: insert, delete, replace, swap two neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(from != to);
            let mut best = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *to && *from == b[j - 1] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = above;
        above = row;
    }
    above[b.len()]
}

/// A name in the shape the server wants, when only `-`, spaces or quotes are wrong with it.
pub fn repaired_name(text: &str) -> Option<String> {
    let bare = text.trim_matches(|c: char| c == '"' || c == '\'' || c == '`' || c == ' ');
    let repaired: String =
        bare.chars().map(|c| if c == '-' || c == ' ' { '_' } else { c }).collect();
    let valid = repaired != text && super::name::Name::new(&repaired).is_ok();
    valid.then_some(repaired)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_offered_only_when_it_is_near() {
        fn check(word: &str, expected: Option<&str>) {
            let known = ["work_mem", "max_connections", "shared_buffers", "port", "ssl"];
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        check("work_mme", Some("work_mem"));
        check("WORKMEM", Some("work_mem"));
        check("max_conections", Some("max_connections"));
        check("shared_bufers", Some("shared_buffers"));
        check("prt", Some("port"));
        check("x", None);
        check("something_else", None);
        check(&"x".repeat(10_000), None);
    }

    #[test]
    fn clipping_keeps_one_line() {
        assert_eq!(clip("a\nb"), "a b");
        assert_eq!(clip(&"é".repeat(80)).chars().count(), 61);
    }
}
