//! Shortens what a notice tells to what a channel takes.
//!
//! In: a [`Letter`] and the [`Room`] that a channel has. Out: text as the channel writes it.
//!
//! Invariants: a text is cut between two characters as they are written, never inside of an entity
//! or behind an escape. Where something is left out, that is said, with where the whole is told.

use super::{Letter, place};

/// The room of a channel whose own limit nobody reaches: a text and warnings that people can still
/// read.
///
/// Both together take 64 kB, in HTML as well. Of the channels that are written so, healthchecks
/// take the least, 100 kB.
pub(super) const LONG: Room =
    Room { text: 16_000, warnings: 48_000, around: 3, count: char::len_utf8, write: plain };

/// What stands for what was cut.
const ELLIPSIS: char = '…';

/// How much of a notice a channel takes, and how it writes a character.
///
/// **Units**: whatever `count` counts. UTF-16 code units are never fewer than characters, so they
/// hold for a limit in characters too.
pub(super) struct Room {
    /// For the text.
    pub(super) text: usize,
    /// For all warnings.
    pub(super) warnings: usize,
    /// What stands around each of them.
    pub(super) around: usize,
    /// What a character takes that was written.
    pub(super) count: fn(char) -> usize,
    /// Writes a character that follows another, so that it is nothing but itself.
    pub(super) write: fn(char, char, &mut String),
}

/// Writes a character as it is.
pub(super) fn plain(_previous: char, character: char, into: &mut String) {
    into.push(character);
}

/// Writes what Slack and HTML read as mark-up as an entity.
pub(super) fn entities(_previous: char, character: char, into: &mut String) {
    match character {
        '&' => into.push_str("&amp;"),
        '<' => into.push_str("&lt;"),
        '>' => into.push_str("&gt;"),
        other => into.push(other),
    }
}

/// Returns the bytes of a character in a JSON text.
pub(super) fn json_bytes(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' => 2,
        other => other.len_utf8(),
    }
}

impl Room {
    /// Writes the text of a notice.
    pub(super) fn text(&self, letter: &Letter<'_>) -> String {
        let text = &letter.notice.text;
        let (whole, is_cut) = self.fit(text, self.text);
        if !is_cut {
            return whole;
        }
        let (place, _) = self.fit(&format!(" the whole is at {}", place(letter)), usize::MAX);
        self.fit(text, self.text.saturating_sub(self.size(&place))).0 + &place
    }

    /// Writes each warning of a notice as a line, as many as there is room for.
    pub(super) fn warnings(&self, letter: &Letter<'_>) -> Vec<String> {
        let warnings = &letter.notice.warnings;
        let mut lines = Vec::new();
        let (mut left_out, mut has_cut) = (warnings.len(), false);
        let mut left =
            self.warnings.saturating_sub(self.size(&self.rest(letter, left_out)) + self.around);
        for warning in warnings {
            // One that is very long leaves room for three others.
            let (line, is_cut) = self.fit(&one_line(warning), self.warnings / 4);
            let Some(after) = left.checked_sub(self.size(&line) + self.around) else { break };
            left = after;
            left_out -= 1;
            has_cut |= is_cut;
            lines.push(line);
        }
        if left_out > 0 || has_cut {
            lines.push(self.rest(letter, left_out));
        }
        lines
    }

    /// Writes one line: a subject, an id.
    pub(super) fn line(&self, text: &str, limit: usize) -> String {
        self.fit(&one_line(text), limit).0
    }

    /// Returns what a text takes that was written.
    pub(super) fn size(&self, written: &str) -> usize {
        written.chars().map(self.count).sum()
    }

    /// Says how many warnings are left out, and where they are told.
    fn rest(&self, letter: &Letter<'_>, left_out: usize) -> String {
        let place = place(letter);
        let text = if left_out > 0 {
            format!("and {left_out} more, told at {place}")
        } else {
            format!("told in full at {place}")
        };
        self.fit(&text, usize::MAX).0
    }

    /// Writes a text; where it takes more than `limit`, as much of it as fits with an ellipsis.
    /// Returns whether it was cut.
    fn fit(&self, text: &str, limit: usize) -> (String, bool) {
        let mut written = String::new();
        let (mut taken, mut kept) = (0, 0);
        let mut previous = '\n';
        for character in text.chars() {
            let begin = written.len();
            let character =
                if character.is_control() && character != '\n' { ' ' } else { character };
            (self.write)(previous, character, &mut written);
            taken += self.size(&written[begin..]);
            if taken > limit {
                written.truncate(kept);
                written.truncate(written.trim_end().len());
                written.push(ELLIPSIS);
                return (written, true);
            }
            if taken + (self.count)(ELLIPSIS) <= limit {
                kept = written.len();
            }
            previous = character;
        }
        (written, false)
    }
}

/// Returns a text as one line: each control character is a space.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{failure, letter};
    use super::*;
    use crate::sync::notice::Notice;

    const ROOM: Room =
        Room { text: 90, warnings: 120, around: 2, count: char::len_utf16, write: entities };

    #[test]
    fn what_fits_is_left_as_it_is() {
        assert_eq!(ROOM.line("four", 4), "four");
        assert_eq!(ROOM.line("a & b", 9), "a &amp; b");
        assert_eq!(LONG.text(&letter(&failure())), failure().text);
        assert_eq!(LONG.warnings(&letter(&failure())), failure().warnings);
    }

    #[test]
    fn a_text_is_cut_between_characters_and_never_inside_an_entity() {
        assert_eq!(ROOM.line("fourty", 4), "fou…");
        assert_eq!(ROOM.line("a   bcdef", 4), "a…");
        for limit in 3..12 {
            let cut = ROOM.line("a&b<c>d&e", limit);
            let whole = ["&amp;", "&lt;", "&gt;"]
                .iter()
                .fold(cut.clone(), |rest, entity| rest.replace(entity, ""));
            assert!(!whole.contains('&') && ROOM.size(&cut) <= limit, "{limit}: {cut}");
        }
        assert_eq!(LONG.line("ä😀x", 7), "ä😀x", "seven bytes");
        assert_eq!(
            LONG.line("ää😀x", 8),
            "ää…",
            "the emoji takes four bytes, and the ellipsis three"
        );
        assert_eq!(Room { write: plain, ..ROOM }.line("😀😀😀", 5), "😀😀…", "two units each");
    }

    #[test]
    fn a_text_that_was_cut_says_where_the_whole_is() {
        let notice = Notice { text: "word ".repeat(100), ..failure() };
        let cut = ROOM.text(&letter(&notice));
        assert_eq!(
            cut,
            "word word word word… the whole is at \
             https://firstlight.example.com/runs/20261121?pair=hub"
        );
        assert!(ROOM.size(&cut) <= ROOM.text);
        let unknown = ROOM.text(&Letter { public_url: None, ..letter(&notice) });
        assert!(unknown.ends_with("word… the whole is at GET /runs/20261121"), "{unknown}");
    }

    #[test]
    fn warnings_that_are_left_out_are_counted() {
        let notice = Notice {
            warnings: vec![
                "first\nline".to_owned(),
                "b".repeat(60),
                "c".repeat(60),
                "d".to_owned(),
                "e".repeat(60),
            ],
            ..failure()
        };
        let lines = ROOM.warnings(&Letter { public_url: None, ..letter(&notice) });
        assert_eq!(lines[0], "first line");
        assert_eq!(lines[1], format!("{}…", "b".repeat(29)), "one takes a quarter at most");
        assert_eq!(
            lines[2..],
            [
                format!("{}…", "c".repeat(29)),
                "d".to_owned(),
                "and 1 more, told at GET /runs/20261121".to_owned()
            ]
        );
        assert!(
            lines.iter().map(|line| ROOM.size(line) + ROOM.around).sum::<usize>() <= ROOM.warnings
        );
        let notice = Notice { warnings: vec!["b".repeat(60)], ..failure() };
        let lines = ROOM.warnings(&Letter { public_url: None, ..letter(&notice) });
        assert_eq!(lines[1], "told in full at GET /runs/20261121");
    }

    #[test]
    fn a_control_character_is_a_space() {
        assert_eq!(LONG.line("a\r\nb\u{0}c", 20), "a  b c");
        let notice = Notice { text: "a\nb\u{1b}[0m".to_owned(), ..failure() };
        assert_eq!(LONG.text(&letter(&notice)), "a\nb [0m");
    }

    #[test]
    fn bytes_of_json_are_counted_as_serde_writes_them() {
        let text = "a\"\\\nä😀…";
        let written = serde_json::to_string(text).expect("a text").len() - 2;
        assert_eq!(text.chars().map(json_bytes).sum::<usize>(), written);
    }
}
