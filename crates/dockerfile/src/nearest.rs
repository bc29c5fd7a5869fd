//! The known word that was probably meant.

/// The nearest of `known`, if it is near enough to be meant: two edits at most, and fewer than the word has letters.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let letters = lower.chars().count();
    if letters > 64 {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= 2 && *distance < letters)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for row in 1..=from.len() {
        let mut current = vec![row];
        for column in 1..=to.len() {
            let replace = usize::from(from[row - 1] != to[column - 1]);
            let mut best = (last[column] + 1).min(current[column - 1] + 1).min(last[column - 1] + replace);
            let swapped = row > 1 && column > 1 && from[row - 1] == to[column - 2] && from[row - 2] == to[column - 1];
            if swapped {
                best = best.min(before[column - 2] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut last, current);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_nonsense_is_not() {
        let known = ["RUN", "COPY", "FROM", "ENTRYPOINT", "EXPOSE"];
        assert_eq!(nearest("RUNN", known), Some("RUN"));
        assert_eq!(nearest("form", known), Some("FROM"));
        assert_eq!(nearest("ENTRYPIONT", known), Some("ENTRYPOINT"));
        assert_eq!(nearest("APT-GET", known), None);
        assert_eq!(nearest("X", known), None);
    }
}
