//! What a misspelt word was probably meant to be, and what does not belong into a text.

/// Whether a terminal would obey a character, or show what follows it in another order. Texts from
/// outside may hold some, put there by whoever rents out a machine.
pub(crate) fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The word that was probably meant: the nearest by edits, if it is near enough.
pub(crate) fn nearest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// A longer word than this is no misspelling of ours, and comparing it would cost time.
    const LENGTH_MAX: usize = 60;
    if word.len() > LENGTH_MAX {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    words
        .map(|candidate| (edits(&lower, &candidate.to_ascii_lowercase()), candidate))
        .min_by_key(|&(distance, _)| distance)
        .filter(|&(distance, candidate)| distance <= (candidate.len() / 3).max(1))
        .map(|(_, candidate)| candidate)
}

/// Edits between two words: insertions, deletions, replacements.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings() {
        let keys = || ["patience", "priority", "max", "vram"].into_iter();
        assert_eq!(nearest("patiense", keys()), Some("patience"));
        assert_eq!(nearest("Vram", keys()), Some("vram"));
        assert_eq!(nearest("mx", keys()), Some("max"));
        assert_eq!(nearest("colour", keys()), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
