//! A catalogue that is larger than a reply may be comes in pages.
//!
//! In: the statement that lists something. Out: the statement for a page of it, and what the pages
//! hold together.
//!
//! Invariants: a page is filled by the bytes of its rows, not by their number. Every page tells how
//! many there are and a digest of all rows: where that has changed since the first, somebody has
//! changed the database between two pages, and they are fetched again from the first.
//!
//! Source: neondatabase/neon `proxy`, read 2026-11-21: a response of more than 10 MiB is refused
//! with 507.

use super::catalogue::{catalogue_batch, text};
use crate::neon::sql::{Batch, Rows};

/// Bytes of the rows of a page. As JSON text they may be twice as many; two lists share a reply.
const PAGE: u32 = 2_000_000;

/// How the row is called that tells how many pages there are.
const LAST: &str = "pages";

/// How often pages are fetched again from the first.
const RESTARTS: u32 = 3;

/// Returns the statement for a page of what a statement lists. `digested` are the columns that make
/// two rows the same.
pub(super) fn paged(list: &str, columns: &[&str], digested: &str, page: u32) -> String {
    let names = columns.join(", ");
    let nothing = ", null".repeat(columns.len() - 3);
    format!(
        "with q({names}) as materialized ({list}), s as (select q.*, \
            (coalesce(sum(octet_length(concat(q))) over \
            (order by kind, name, {digested} rows between unbounded preceding and 1 preceding), 0) \
            / {PAGE})::int as page from q) \
            select {names} from s where page = {page} union all select '{LAST}', \
            (coalesce(max(page), 0) + 1)::text, \
            coalesce(sum(hashtextextended(concat(row(kind, name, {digested})), 1)), \
            0)::text{nothing} from s"
    )
}

/// Takes the last row off a page: how many pages there are, and the digest of all of them.
fn take_last(rows: &mut Rows) -> Option<(u32, String)> {
    let last = rows.rows.pop()?;
    let is_last = text(&last, 0)? == LAST;
    is_last.then_some(())?;
    Some((text(&last, 1)?.parse().ok()?, text(&last, 2)?.to_owned()))
}

/// The pages of a catalogue that have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// What stands beside the lists, from the first page.
    beside: Vec<Rows>,
    /// The lists: relations, and what may be wrong where that was asked.
    lists: Vec<Rows>,
    seals: Vec<String>,
    next: u32,
    restarts: u32,
}

impl Pages {
    /// Returns the number of the page that is asked next.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Takes up a page. Returns whether it was the last; `None` when it makes no sense.
    pub fn take(&mut self, results: &[Rows]) -> Option<bool> {
        // The settings and the digests of definitions are in the first page alone.
        let (beside, lists) = match (self.next, results) {
            (0, [settings, relations, schema, defects @ ..]) => (
                vec![settings.clone(), schema.clone()],
                [std::slice::from_ref(relations), defects].concat(),
            ),
            (1.., [_, lists @ ..]) => (Vec::new(), lists.to_vec()),
            (0, _) | (1.., []) => return None,
        };
        let mut lists = lists;
        let (mut count, mut seals) = (1, Vec::new());
        for list in &mut lists {
            let (pages, seal) = take_last(list)?;
            count = count.max(pages);
            seals.push(seal);
        }
        if self.next > 0
            && (seals.len() != self.seals.len() || seals != self.seals && self.restarts < RESTARTS)
        {
            *self = Self { restarts: self.restarts + 1, ..Self::default() };
            return Some(false);
        }
        if self.next == 0 {
            (self.beside, self.lists, self.seals) = (beside, lists, seals);
        } else {
            self.lists.iter_mut().zip(lists).for_each(|(all, more)| all.rows.extend(more.rows));
        }
        self.next += 1;
        Some(self.next >= count)
    }

    /// Fetches page after page, for a caller that can wait; `ask` sends a batch. `None` when an
    /// answer makes no sense.
    ///
    /// # Errors
    ///
    /// Those of `ask`.
    pub fn fetch<E>(
        exclusions: &[String],
        looks_for_defects: bool,
        mut ask: impl FnMut(&Batch) -> Result<Vec<Rows>, E>,
    ) -> Result<Option<Vec<Rows>>, E> {
        let mut pages = Self::default();
        loop {
            let rows = ask(&catalogue_batch(exclusions, looks_for_defects, pages.next()))?;
            match pages.take(&rows) {
                None => return Ok(None),
                Some(true) => return Ok(Some(pages.whole())),
                Some(false) => {}
            }
        }
    }

    /// Returns the whole, as one reply would have brought it.
    pub fn whole(self) -> Vec<Rows> {
        let mut lists = self.lists.into_iter();
        let mut beside = self.beside.into_iter();
        [beside.next(), lists.next(), beside.next()].into_iter().flatten().chain(lists).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str], pages: &str, seal: &str) -> Rows {
        let row = |values: [&str; 3]| values.map(|value| Some(value.to_owned())).to_vec();
        let rows = names.iter().map(|name| row(["r", name, ""])).chain([row([LAST, pages, seal])]);
        Rows { rows: rows.collect() }
    }

    fn names(rows: &Rows) -> Vec<&str> {
        rows.rows.iter().filter_map(|row| text(row, 1)).collect()
    }

    #[test]
    fn a_catalogue_of_one_page_is_whole_at_once() {
        let mut pages = Pages::default();
        let reply = [
            Rows::default(),
            list(&["a"], "1", "7"),
            list(&["kinds"], "1", "0"),
            list(&["fk"], "1", "8"),
        ];
        assert_eq!(pages.take(&reply), Some(true));
        let whole = pages.whole();
        assert_eq!(
            (whole.len(), names(&whole[1]), names(&whole[2]).len(), names(&whole[3])),
            (4, vec!["a"], 2, vec!["fk"])
        );
    }

    #[test]
    fn pages_are_put_together_and_the_list_with_more_of_them_is_fetched_to_its_end() {
        let mut pages = Pages::default();
        assert_eq!(
            pages.take(&[
                Rows::default(),
                list(&["a"], "2", "7"),
                Rows::default(),
                list(&["x"], "3", "8")
            ]),
            Some(false)
        );
        assert_eq!(
            (
                pages.next(),
                pages.take(&[Rows::default(), list(&["b"], "2", "7"), list(&["y"], "3", "8")])
            ),
            (1, Some(false))
        );
        assert_eq!(
            (
                pages.next(),
                pages.take(&[Rows::default(), list(&[], "2", "7"), list(&["z"], "3", "8")])
            ),
            (2, Some(true))
        );
        let whole = pages.whole();
        assert_eq!((names(&whole[1]), names(&whole[3])), (vec!["a", "b"], vec!["x", "y", "z"]));
    }

    #[test]
    fn what_has_changed_between_two_pages_is_fetched_again_from_the_first() {
        let mut pages = Pages::default();
        let first = |seal: &str| [Rows::default(), list(&["a"], "2", seal), Rows::default()];
        assert_eq!(pages.take(&first("7")), Some(false));
        assert_eq!(
            (pages.take(&[Rows::default(), list(&["b"], "2", "9")]), pages.next()),
            (Some(false), 0)
        );
        assert_eq!(
            (pages.take(&first("9")), pages.take(&[Rows::default(), list(&["b"], "2", "9")])),
            (Some(false), Some(true))
        );
        assert_eq!(names(&pages.whole()[1]), ["a", "b"]);
    }

    #[test]
    fn a_page_that_does_not_say_how_many_there_are_is_none() {
        let cut = Rows { rows: vec![vec![Some("r".to_owned()), Some("a".to_owned()), None]] };
        assert_eq!(Pages::default().take(&[Rows::default(), cut, Rows::default()]), None);
        assert_eq!(
            Pages::default().take(&[Rows::default(), Rows::default(), Rows::default()]),
            None
        );
    }
}
