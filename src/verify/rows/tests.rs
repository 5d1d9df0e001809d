//! Rows that differ, found and told.

use super::*;

/// Returns hashes of rows, each given as its key and what it holds.
fn hashes(list: &[(u64, u64)]) -> String {
    let rows: Vec<String> =
        list.iter().map(|(key, holds)| format!("{key:016x}{holds:016x}")).collect();
    rows.concat()
}

#[test]
fn rows_are_gone_changed_or_added() {
    let (backup, staging) = (
        hashes(&[(1, 7), (2, 8), (3, 9), (5, 1)]),
        hashes(&[(1, 7), (2, 80), (4, 9), (5, 1), (6, 6)]),
    );
    let found = compare_rows(Shape::Keyed, &backup, &staging);
    assert_eq!(found.counts, RowCounts { gone: 1, changed: 1, added: 2 });
    let hash = |key: u64| format!("{key:016x}");
    assert_eq!(
        (found.gone, found.changed, found.added),
        (vec![hash(3)], vec![hash(2)], vec![hash(4), hash(6)])
    );
    assert_eq!(compare_rows(Shape::Keyed, &backup, &backup), RowsFound::default());
}

#[test]
fn a_side_without_rows_has_lost_or_got_all() {
    let rows = hashes(&[(1, 7), (2, 8)]);
    assert_eq!(
        compare_rows(Shape::Keyed, &rows, "").counts,
        RowCounts { gone: 2, ..RowCounts::default() }
    );
    assert_eq!(
        compare_rows(Shape::Keyed, "", &rows).counts,
        RowCounts { added: 2, ..RowCounts::default() }
    );
}

#[test]
fn rows_without_a_key_are_counted_as_often_as_they_are_there() {
    let (twice, once) = (hashes(&[(7, 7), (7, 7)]), hashes(&[(7, 7), (8, 8)]));
    assert_eq!(
        compare_rows(Shape::Keyless, &twice, &once).counts,
        RowCounts { gone: 1, changed: 0, added: 1 }
    );
}

#[test]
fn twenty_rows_are_named_three_are_told_and_all_are_counted() {
    let many: Vec<(u64, u64)> = (0..5_000).map(|id| (id, id)).collect();
    let found = compare_rows(Shape::Keyed, &hashes(&many), "");
    assert_eq!((found.gone.len(), found.counts.gone), (20, 5_000));
    let named = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    let told = RowDifferences { gone: named, ..RowDifferences::counted(found.counts) };
    assert_eq!(told.to_string(), "5,000 rows of the backup are gone; gone: a, b, c, …");
}

#[test]
fn counts_are_told_as_people_read_them() {
    let told = |gone, changed, added| {
        RowDifferences::counted(RowCounts { gone, changed, added }).to_string()
    };
    assert_eq!(told(1, 0, 0), "1 row of the backup is gone");
    assert_eq!(told(0, 1_234_567, 0), "1,234,567 rows are changed");
    assert_eq!(told(2, 1, 1), "2 rows of the backup are gone, 1 is changed, 1 was added");
    assert_eq!(told(0, 0, 999), "999 rows were added");
    assert_eq!(told(0, 0, 0), "no row differs any more");
}

#[test]
fn a_lower_bound_is_told_as_one() {
    let some = RowDifferences::counted(RowCounts { gone: 2, changed: 1, added: 0 });
    let bound = RowDifferences { limits: "5 of 9 parts were not looked into".to_owned(), ..some };
    assert_eq!(
        bound.to_string(),
        "at least 2 rows of the backup are gone, at least 1 is changed; 5 of 9 parts \
            were not looked into"
    );
    assert!(bound.has_losses());
    let added = RowDifferences::counted(RowCounts { added: 3, ..RowCounts::default() });
    assert!(!added.has_losses());
    assert!(
        RowDifferences { limits: "it was not looked into".to_owned(), ..added }.has_losses(),
        "rows may be changed"
    );
}

#[test]
fn what_differs_and_was_not_looked_into_is_counted_from_below() {
    let counts = |gone, changed, added| RowCounts { gone, changed, added };
    assert_eq!(RowCounts::at_least(5, 3), counts(2, 0, 0));
    assert_eq!(RowCounts::at_least(3, 5), counts(0, 0, 2));
    assert_eq!(RowCounts::at_least(3, 3), counts(0, 1, 0));
    let part = |number: u32, rows: u64, digest: &str| (number, (rows, digest.to_owned()));
    let backup: Parts = [part(1, 4, "a"), part(2, 5, "b"), part(3, 6, "c")].into();
    let staging: Parts = [part(2, 5, "b"), part(3, 6, "x"), part(4, 7, "d")].into();
    assert_eq!(differing_parts(&backup, &staging), [(1, 4), (3, 6), (4, 7)]);
    assert_eq!(RowCounts::of_parts(&backup, &staging, &[]), counts(4, 1, 7));
    assert_eq!(RowCounts::of_parts(&backup, &staging, &[1, 4]), counts(0, 1, 0));
}

#[test]
fn an_answer_that_is_no_list_of_hashes_is_none() {
    let answer =
        |text: Option<&str>| decode_rows(&Rows { rows: vec![vec![text.map(str::to_owned)]] });
    assert_eq!(answer(None), Some(String::new()), "there is no row");
    assert_eq!(answer(Some(&hashes(&[(1, 2)]))), Some(hashes(&[(1, 2)])));
    assert_eq!((answer(Some("00")), answer(Some(&"x".repeat(32)))), (None, None));
    assert_eq!(decode_rows(&Rows::default()), None);
}

#[test]
fn only_the_ranges_that_differ_are_looked_into() {
    let range = |from: u64, digest: &str| Range {
        blocks: Blocks { from, to: Some(from + 10) },
        digest: Digest { count: 1, digest: digest.to_owned() },
    };
    let (backup, staging) =
        (vec![range(0, "1"), range(10, "2")], vec![range(0, "1"), range(10, "3")]);
    let all =
        |ranges: Vec<Blocks>| ranges.iter().map(|blocks| blocks.condition()).collect::<Vec<_>>();
    assert_eq!(
        all(differing_ranges(Some(&backup), Some(&staging))),
        [" where ctid >= '(10,0)' and ctid < '(20,0)'"]
    );
    assert_eq!(all(differing_ranges(Some(&backup), None)), [""]);
}
