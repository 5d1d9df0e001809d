//! What is asked next, whatever the pace and whatever fails.

use std::time::Duration;

use super::*;
use crate::neon::sql::Rows;

fn catalogue(sizes: &[u64]) -> Catalogue {
    let relation = |(index, bytes): (usize, &u64)| Relation {
        name: format!("public.t{index}"),
        is_sequence: false,
        row: "ROW(id)".into(),
        bytes: *bytes,
        blocks: bytes / 8192,
        key: None,
    };
    Catalogue {
        print: DatabasePrint::new(),
        relations: sizes.iter().enumerate().map(relation).collect(),
    }
}

/// Answers a piece: a row in each block, of which each digests to its number.
fn answer(catalogue: &Catalogue, piece: &Piece) -> Vec<Rows> {
    let row = |(index, part): (usize, &Part)| {
        let relation = catalogue
            .relations
            .iter()
            .find(|relation| relation.name == part.name)
            .expect("it is listed");
        let blocks = part.blocks.unwrap_or(Blocks::ALL);
        let all = blocks.from..blocks.to.unwrap_or(relation.blocks);
        let total: i128 = all.clone().map(i128::from).sum();
        [index.to_string(), all.count().to_string(), total.to_string()].map(Some).to_vec()
    };
    vec![Rows::default(), Rows { rows: piece.parts.iter().enumerate().map(row).collect() }]
}

/// Reads everything, each piece in the given time; returns the print and the number of requests.
fn read(
    catalogue: &Catalogue,
    guide: Option<&DatabasePrint>,
    took: impl Fn(u64) -> Duration,
) -> (DatabasePrint, usize) {
    let (mut print, mut requests) = (catalogue.print.clone(), 0);
    for _ in 0..10_000 {
        let asked = pieces(catalogue, &print, guide);
        if asked.is_empty() {
            return (print, requests);
        }
        assert!(asked.len() <= AT_ONCE);
        requests += asked.len();
        for (piece, _) in asked {
            print
                .take(&piece, &answer(catalogue, &piece), took(piece.bytes))
                .expect("a complete answer");
        }
    }
    panic!("reading does not come to an end");
}

/// At so many bytes a millisecond.
fn at(pace: u64) -> impl Fn(u64) -> Duration {
    move |bytes| Duration::from_millis(20 + bytes / pace)
}

#[test]
fn many_small_tables_share_a_request_but_no_more_than_a_server_has_locks_for() {
    let requests = |count: usize| -> Vec<usize> {
        let catalogue = catalogue(&vec![8192; count]);
        pieces(&catalogue, &catalogue.print, None)
            .iter()
            .map(|(piece, _)| piece.parts.len())
            .collect()
    };
    assert_eq!(
        (requests(500), requests(1_000), requests(9_000)),
        (vec![500], vec![750, 250], vec![750, 750])
    );
    let (piece, batch) = pieces(&catalogue(&[8192; 100]), &DatabasePrint::new(), None).remove(0);
    assert_eq!((piece.parts.len(), batch.statements.len()), (100, 1 + 2));
}

#[test]
fn what_is_left_is_shared_out_among_the_requests() {
    let counts = |sizes: &[u64]| -> Vec<usize> {
        let catalogue = catalogue(sizes);
        pieces(&catalogue, &catalogue.print, None)
            .iter()
            .map(|(piece, _)| piece.parts.len())
            .collect()
    };
    assert_eq!(counts(&[8192, 200 << 20, 8192]), [3], "one request can read them");
    assert_eq!(counts(&[8192, 600 << 20, 8192]), [2, 1, 1, 1]);
    assert_eq!(counts(&[8192, 6 << 30, 8192]), [2, 1, 1, 1]);
}

#[test]
fn requests_grow_with_bytes_more_slowly_than_bytes_do_until_a_piece_takes_its_time() {
    // 100 MB/s: a piece grows to 1.5 GB, which takes fifteen seconds.
    let requests = |gigabytes: u64| read(&catalogue(&[gigabytes << 30]), None, at(100_000)).1;
    assert_eq!([1, 5, 20, 100].map(requests), [4, 8, 20, 77]);
}

#[test]
fn the_digest_of_a_table_does_not_depend_on_how_it_was_cut() {
    let catalogue = catalogue(&[3 << 30, 8192]);
    let (quick, slow) =
        (read(&catalogue, None, at(1_000_000)).0, read(&catalogue, None, at(2_000)).0);
    let blocks = (3_u64 << 30) / 8192;
    let expected = Digest {
        count: blocks,
        digest: (u128::from(blocks) * u128::from(blocks - 1) / 2).to_string(),
    };
    assert_eq!((&quick.tables["public.t0"], &slow.tables["public.t0"]), (&expected, &expected));
    assert!(slow.ranges["public.t0"].len() > quick.ranges["public.t0"].len());
    let last = slow.ranges["public.t0"].last().expect("a range");
    assert_eq!(last.blocks.to, None, "the last range is open: the table may grow");
}

#[test]
fn a_copy_is_read_in_the_ranges_of_the_backup() {
    let catalogue = catalogue(&[3 << 30, 8192]);
    let backup = read(&catalogue, None, at(20_000)).0;
    let (copy, _) = read(&catalogue, Some(&backup), at(1_000_000));
    assert_eq!((&copy.ranges, &copy.tables), (&backup.ranges, &backup.tables));
}

#[test]
fn reading_goes_on_where_it_stopped() {
    let catalogue = catalogue(&[3 << 30, 8192]);
    let asked = pieces(&catalogue, &catalogue.print, None);
    let mut print = catalogue.print.clone();
    // The second and the fourth of them were answered.
    for (piece, _) in [&asked[1], &asked[3]] {
        print
            .take(piece, &answer(&catalogue, piece), Duration::from_secs(1))
            .expect("a complete answer");
    }
    let stored = serde_json::to_string(&print).expect("plain data");
    let mut print = catalogue
        .print
        .clone()
        .going_on(serde_json::from_str(&stored).expect("our own"), &catalogue);
    for _ in 0..100 {
        for (piece, _) in pieces(&catalogue, &print, None) {
            assert!(
                !piece
                    .parts
                    .iter()
                    .any(|part| asked[1].0.parts.contains(part) || asked[3].0.parts.contains(part)),
                "read twice"
            );
            print
                .take(&piece, &answer(&catalogue, &piece), Duration::from_secs(1))
                .expect("a complete answer");
        }
    }
    assert_eq!(print.tables, read(&catalogue, None, at(100_000)).0.tables);
}

#[test]
fn a_piece_that_takes_too_long_is_asked_again_in_smaller_ones_down_to_a_block() {
    let catalogue = catalogue(&[64 << 10]);
    let mut print = catalogue.print.clone();
    let mut asked = Vec::new();
    for _ in 0..12 {
        let Some((piece, _)) = pieces(&catalogue, &print, None).into_iter().next() else { break };
        asked.push(piece.parts[0].blocks.map_or(8, |blocks| blocks.to.unwrap_or(8) - blocks.from));
        print.too_slow(&piece);
        print.pace.slow_down(piece.bytes());
    }
    assert_eq!(asked, [8, 1]);
    assert_eq!(print.not_checked["public.t0"], "a block of it cannot be digested in 120 s");
}

#[test]
fn a_range_of_the_backup_that_staging_cannot_read_in_time_is_cut_and_one_block_is_given_up() {
    let catalogue = catalogue(&[3 << 30]);
    let backup = read(&catalogue, None, at(1_000_000)).0;
    let mut print = catalogue.print.clone();
    let largest = |print: &DatabasePrint| {
        pieces(&catalogue, print, Some(&backup)).iter().map(|(piece, _)| piece.bytes).max()
    };
    let before = largest(&print).expect("something is left");
    print.pace.slow_down(before);
    assert!(
        largest(&print).is_some_and(|after| after <= before / 4),
        "it is asked for in smaller ranges"
    );
    let whole = |mut print: DatabasePrint| {
        for _ in 0..10_000 {
            let asked = pieces(&catalogue, &print, Some(&backup));
            if asked.is_empty() {
                return print;
            }
            for (piece, _) in asked {
                print
                    .take(&piece, &answer(&catalogue, &piece), at(20_000)(piece.bytes))
                    .expect("a complete answer");
            }
        }
        panic!("reading does not come to an end")
    };
    assert_eq!(whole(print).tables, backup.tables);
    // A table of one block with much that is stored out of line.
    let toasted = Catalogue {
        print: DatabasePrint::new(),
        relations: vec![Relation { blocks: 1, ..self::catalogue(&[1 << 30]).relations.remove(0) }],
    };
    let mut print = toasted.print.clone();
    let (piece, _) = pieces(&toasted, &print, None).remove(0);
    print.too_slow(&piece);
    assert!(print.not_checked.contains_key("public.t0"));
}

/// Returns the answer to parts that are read each in a block of its own, those of some names
/// refused.
fn one_by_one(piece: &Piece, bad: &[&str], state: &str) -> Vec<Rows> {
    let answer = |(index, part): (usize, &Part)| {
        if bad.contains(&part.name.as_str()) {
            serde_json::json!({"error": state, "message": "no"})
        } else {
            serde_json::json!({"rows": [format!("({index},1,7)")]})
        }
    };
    let found: serde_json::Value = piece.parts.iter().enumerate().map(answer).collect();
    vec![
        Rows::default(),
        Rows::default(),
        Rows::default(),
        Rows { rows: vec![vec![Some(found.to_string())]] },
    ]
}

/// Reads a database of which some tables are refused, and returns the print and how many requests
/// that took.
fn read_with(bad: &[&str], state: &str) -> (DatabasePrint, usize) {
    let catalogue = catalogue(&[8192; 500]);
    let mut print = catalogue.print.clone();
    let mut requests = 0;
    for _ in 0..40 {
        for (piece, _) in pieces(&catalogue, &print, None) {
            requests += 1;
            let is_bad = piece.parts.iter().any(|part| bad.contains(&part.name.as_str()));
            if piece.is_one_by_one() {
                let refused = print
                    .take(&piece, &one_by_one(&piece, bad, state), Duration::ZERO)
                    .expect("a complete answer");
                for refused in &refused {
                    print.refused_alone(refused, &refused.error(&"neondb".into()));
                }
            } else if is_bad {
                print.refused(&piece);
            } else {
                print
                    .take(&piece, &answer(&catalogue, &piece), Duration::ZERO)
                    .expect("a complete answer");
            }
        }
    }
    (print, requests)
}

#[test]
fn a_table_that_cannot_be_read_is_found_among_others_and_they_are_read() {
    let (print, requests) = read_with(&["public.t7"], "XX001");
    assert_eq!(
        (print.tables.len(), requests),
        (499, 2),
        "those that are read together, and each by itself"
    );
    assert_eq!(
        print.not_checked,
        [("public.t7".to_owned(), "query neondb: answered 400 XX001: public.t7: no".to_owned())]
            .into()
    );
}

/// Three hundred tables that nobody can read cost no more requests than one.
#[test]
fn as_many_tables_as_cannot_be_read_are_found_at_once() {
    let bad: Vec<String> = (0..300).map(|number| format!("public.t{number}")).collect();
    let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
    let (print, requests) = read_with(&bad, "42501");
    assert_eq!((print.tables.len(), print.not_checked.len()), (200, 300));
    assert!(requests < 10, "{requests}");
}

/// As in case 08: class 58 may pass, and does not while the same object is asked for.
#[test]
fn an_error_that_may_pass_is_met_some_times_and_longer_where_somebody_holds_a_lock() {
    let requests = |state: &str| read_with(&["public.t7"], state).1;
    assert_eq!([requests("XX001"), requests("58P01"), requests("55P03")], [2, 7, 15]);
}

#[test]
fn a_request_for_wide_tables_has_no_more_sql_than_neon_takes() {
    let mut catalogue = catalogue(&[8192; 160]);
    catalogue.relations.iter_mut().for_each(|relation| relation.row = "h".repeat(100_000));
    let asked = pieces(&catalogue, &catalogue.print, None);
    let sql = |batch: &Batch| batch.statements.iter().map(|(sql, _)| sql.len()).sum::<usize>();
    assert_eq!(asked.len(), 4);
    assert!(
        asked.iter().all(|(_, batch)| sql(batch) < 2_100_000),
        "{:?}",
        asked.iter().map(|(_, batch)| sql(batch)).collect::<Vec<_>>()
    );
}

#[test]
fn what_does_not_fit_the_time_budget_is_not_checked_and_the_small_tables_were_read_first() {
    let catalogue = catalogue(&[3 << 30, 8192, 8192]);
    let mut print = catalogue.print.clone();
    for (piece, _) in pieces(&catalogue, &print, None) {
        print
            .take(&piece, &answer(&catalogue, &piece), Duration::from_mins(1))
            .expect("a complete answer");
    }
    print.pace.spend(Duration::from_mins(1));
    print.out_of_time(&catalogue, None, Duration::from_mins(1));
    assert_eq!(print.tables.keys().collect::<Vec<_>>(), ["public.t1", "public.t2"]);
    assert_eq!(print.not_checked["public.t0"], "did not fit the time budget of 60 s");
    assert!(pieces(&catalogue, &print, None).is_empty());
}

#[test]
fn an_answer_that_leaves_out_a_table_is_none() {
    let catalogue = catalogue(&[8192, 8192]);
    let (piece, _) = pieces(&catalogue, &catalogue.print, None).remove(0);
    let mut answered = answer(&catalogue, &piece);
    answered[1].rows.pop();
    assert_eq!(catalogue.print.clone().take(&piece, &answered, Duration::ZERO), None);
    let again = answered[1].rows[0].clone();
    answered[1].rows.push(again);
    assert_eq!(
        catalogue.print.clone().take(&piece, &answered, Duration::ZERO),
        None,
        "the first one twice"
    );
}
