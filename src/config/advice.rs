//! What is allowed, and probably not meant.

use super::{Config, NoticeKind};

impl Config {
    /// Returns, for each pair, the trouble of which no channel hears.
    pub fn unheard(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (index, pair) in self.pairs.iter().enumerate() {
            let hears = |kind: NoticeKind| {
                self.channels.iter().any(|channel| channel.hears(&pair.name, kind))
            };
            let trouble = NoticeKind::ALL
                .into_iter()
                .filter(|kind| kind.is_trouble() && *kind != NoticeKind::SnapshotFailed);
            let unheard: Vec<&str> =
                trouble.filter(|kind| !hears(*kind)).map(NoticeKind::as_str).collect();
            if !unheard.is_empty() {
                let kinds = unheard.join(", ");
                found.push(format!(
                    "pairs[{index}]: no channel hears of {} when it is {kinds}; add one, for \
                     example kind = \"slack\"",
                    pair.name
                ));
            }
        }
        found
    }
}
