//! Which databases are read, and what an answer is taken for.

use super::*;
use crate::fixtures::pair;
use crate::fixtures::started;
use crate::neon::Call;

fn row(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|value| Some((*value).to_owned()).filter(|value| value != "-")).collect()
}

fn database() -> DatabaseName {
    DatabaseName::from("neondb")
}

/// Answers the question for the catalogue: two tables of so many bytes each.
fn two_tables(bytes: u64) -> [Rows; 4] {
    let (size, blocks) = (bytes.to_string(), (bytes / 8192).to_string());
    let tables = ["public.a", "public.b"]
        .map(|name| row(&["r", name, "ROW(id)", &size, "", "-", &blocks, "-"]))
        .to_vec();
    let schema = [["server", "1", "7"], ["schemas", "1", "8"]].map(|digest| row(&digest)).to_vec();
    let last = row(&["pages", "1", "0"]);
    let tables = tables.into_iter().chain([last.clone()]).collect();
    [Rows::default(), Rows { rows: tables }, Rows { rows: schema }, Rows { rows: vec![last] }]
}

fn with_two_tables(side: Side, bytes: u64, pair: &Pair) -> Run {
    let mut run = Run::new(started(), None);
    take_catalogue(&mut run, side, &database(), &two_tables(bytes), pair).expect("a catalogue");
    run
}

/// Returns what is to be asked.
fn asked(run: &Run, side: Side) -> Vec<(Piece, Batch)> {
    let catalogue = &run.seen.looked[&database()].catalogues[&side];
    let guide = guide(run.checkpoint.fingerprint.as_ref(), side, &database());
    pieces(catalogue, &run.checkpoint.prints[&side].databases[&database()], guide)
}

fn is_complete(run: &Run, side: Side) -> bool {
    run.checkpoint.prints[&side].databases[&database()].is_complete
}

fn answer(count: usize) -> Vec<Rows> {
    vec![
        Rows::default(),
        Rows { rows: (0..count).map(|index| row(&[&index.to_string(), "3", "77"])).collect() },
    ]
}

fn error(sqlstate: &str) -> SqlError {
    SqlError::Answered {
        database: database(),
        status: 400,
        sqlstate: sqlstate.to_owned(),
        message: "no".to_owned(),
    }
}

#[test]
fn an_answer_that_leaves_out_a_table_is_no_reading() {
    let side = Side::Staging;
    let mut run = with_two_tables(side, 8192, &pair());
    let (piece, _) = asked(&run, side).remove(0);
    let first = take_pieces(
        &mut run,
        side,
        &database(),
        vec![(&piece, (Ok(answer(1)), Duration::ZERO))],
        &pair(),
    );
    assert_eq!(
        (first, is_complete(&run, side)),
        (Some(SqlError::Undecodable { database: database() }), false)
    );
    let first = take_pieces(
        &mut run,
        side,
        &database(),
        vec![(&piece, (Ok(answer(2)), Duration::ZERO))],
        &pair(),
    );
    assert_eq!((first, is_complete(&run, side)), (None, true));
    assert_eq!(run.checkpoint.prints[&side].table_count(), 2);
}

#[test]
fn the_next_tick_goes_on_with_what_was_not_read() {
    let side = Side::Backup;
    let mut run = with_two_tables(side, 1 << 30, &pair());
    let (piece, _) = asked(&run, side).remove(0);
    assert_eq!(
        take_pieces(
            &mut run,
            side,
            &database(),
            vec![(&piece, (Ok(answer(1)), Duration::from_secs(1)))],
            &pair()
        ),
        None
    );
    let mut next = Run::new(run.checkpoint, None);
    take_catalogue(&mut next, side, &database(), &two_tables(1 << 30), &pair())
        .expect("a catalogue");
    assert!(
        !asked(&next, side).iter().any(|(other, _)| other.parts == piece.parts),
        "it was read before"
    );
}

/// Answers parts that are read each in a block of its own: the second is refused.
fn second_refused(sqlstate: &str) -> Vec<Rows> {
    let found = serde_json::json!([{"rows": ["(0,3,77)"]}, {"error": sqlstate, "message": "no"}])
        .to_string();
    vec![Rows::default(), Rows::default(), Rows::default(), Rows { rows: vec![row(&[&found])] }]
}

fn asked_first(run: &Run, side: Side) -> Piece {
    asked(run, side).remove(0).0
}

fn take_one(
    run: &mut Run,
    side: Side,
    piece: &Piece,
    answer: Result<Vec<Rows>, SqlError>,
) -> Option<SqlError> {
    take_pieces(run, side, &database(), vec![(piece, (answer, Duration::ZERO))], &pair())
}

#[test]
fn an_error_about_one_table_leaves_the_others_and_one_about_the_login_all() {
    let side = Side::Backup;
    let mut run = with_two_tables(side, 8192, &pair());
    let piece = asked_first(&run, side);
    assert_eq!(
        take_one(&mut run, side, &piece, Err(error("XX001"))),
        None,
        "who is to blame is asked next"
    );
    let piece = asked_first(&run, side);
    assert_eq!(
        (piece.is_one_by_one(), take_one(&mut run, side, &piece, Ok(second_refused("XX001")))),
        (true, None)
    );
    assert!(is_complete(&run, side));
    let print = &run.checkpoint.prints[&side].databases[&database()];
    assert_eq!(
        (print.tables.len(), print.not_checked["public.b"].as_str()),
        (1, "query neondb: answered 400 XX001: public.b: no")
    );
    let mut run = with_two_tables(side, 8192, &pair());
    let piece = asked_first(&run, side);
    assert_eq!(take_one(&mut run, side, &piece, Err(error("28P01"))), Some(error("28P01")));
}

/// As in case 08: what may pass is waited for some times, with the name of the table, and then
/// left out with its reason.
#[test]
fn a_table_that_is_refused_alone_is_told_by_name_and_given_up_after_some_attempts() {
    let side = Side::Backup;
    let mut run = with_two_tables(side, 8192, &pair());
    let piece = asked_first(&run, side);
    assert_eq!(take_one(&mut run, side, &piece, Err(error("58P01"))), None);
    let piece = asked_first(&run, side);
    run.checkpoint.idle_tick_count = 2;
    let first =
        take_one(&mut run, side, &piece, Ok(second_refused("58P01"))).expect("it is waited for");
    assert!(first.to_string().contains("58P01: public.b: no"), "{first}");
    assert_eq!(run.checkpoint.idle_tick_count, 0, "a table was read");
    for _ in 0..10 {
        let Some((piece, _)) = asked(&run, side).pop() else { break };
        let found = serde_json::json!([{"error": "58P01", "message": "no"}]).to_string();
        let rows = vec![
            Rows::default(),
            Rows::default(),
            Rows::default(),
            Rows { rows: vec![row(&[&found])] },
        ];
        let _ = take_one(&mut run, side, &piece, Ok(rows));
    }
    assert!(is_complete(&run, side));
    let print = &run.checkpoint.prints[&side].databases[&database()];
    assert_eq!((print.tables.len(), print.not_checked.len()), (1, 1));
}

#[test]
fn staging_is_listed_again_when_a_table_of_it_is_not_as_it_was() {
    let side = Side::Staging;
    let mut run = with_two_tables(side, 8192, &pair());
    let piece = asked_first(&run, side);
    assert_eq!(take_one(&mut run, side, &piece, Err(error("42P01"))), None);
    let piece = asked_first(&run, side);
    assert_eq!(take_one(&mut run, side, &piece, Ok(second_refused("42P01"))), None);
    assert!(!run.seen.looked[&database()].catalogues.contains_key(&side));
}

#[test]
fn an_endpoint_is_made_on_the_backup_and_never_on_production_or_staging() {
    use crate::id::Secret;
    use crate::sync::checkpoint::Backup;
    use crate::sync::machine::Seen;

    let (pair, checkpoint) = (pair(), started());
    let configured_password = Some(Secret::new("x".to_owned()));
    let backup = Backup {
        id: "br-back-up-1".into(),
        name: "backup-20261121".into(),
        lsn: None,
        made_at: checkpoint.started_at,
        operations: Vec::new(),
        is_ready: true,
        is_verified: false,
        endpoints: None,
    };
    let checkpoint = Checkpoint { backup: Some(backup), ..checkpoint };
    let seen = Seen { endpoints: Some(Vec::new()), configured_password, ..Seen::default() };
    let view =
        View { checkpoint: &checkpoint, seen: &seen, pair: &pair, now: checkpoint.started_at };
    let asked = |branch: &BranchId| {
        query(
            &view,
            branch,
            &database(),
            Purpose::Catalogue(Side::Backup),
            catalogue_batch(&[], false, 0),
        )
    };
    assert!(matches!(
        asked(&"br-back-up-1".into()),
        Decision::Act(Action::Call(Call::CreateEndpoint(..)))
    ));
    for branch in [&pair.production_branch, &pair.staging_branch] {
        assert!(matches!(asked(branch), Decision::Conclude(Conclusion::End(_))), "{branch}");
    }
}

#[test]
fn the_time_budget_is_for_all_databases_of_a_side() {
    let side = Side::Backup;
    let mut pair = pair();
    pair.verification.time_budget = Some(Duration::from_mins(1));
    let mut run = with_two_tables(side, 1 << 30, &pair);
    let (piece, _) = asked(&run, side).remove(0);
    assert_eq!(
        take_pieces(
            &mut run,
            side,
            &database(),
            vec![(&piece, (Ok(answer(1)), Duration::from_secs(59)))],
            &pair
        ),
        None
    );
    assert!(!is_complete(&run, side));
    let other = DatabaseName::from("other");
    take_catalogue(&mut run, side, &other, &two_tables(8192), &pair).expect("a catalogue");
    let print = run.checkpoint.prints[&side].databases[&other].clone();
    let (piece, _) = pieces(&run.seen.looked[&other].catalogues[&side], &print, None).remove(0);
    assert_eq!(
        take_pieces(
            &mut run,
            side,
            &other,
            vec![(&piece, (Ok(answer(2)), Duration::from_secs(1)))],
            &pair
        ),
        None
    );
    let (piece, _) = asked(&run, side).remove(0);
    assert_eq!(
        take_pieces(
            &mut run,
            side,
            &database(),
            vec![(&piece, (Ok(answer(1)), Duration::ZERO))],
            &pair
        ),
        None
    );
    assert!(is_complete(&run, side));
    assert_eq!(run.checkpoint.prints[&side].databases[&database()].not_checked.len(), 2);
}
