//! The Worker's own SQL of verification on real PostgreSQL: every change of content is seen, and
//! odd tables are read or reported.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use firstlight::id::Secret;
use firstlight::neon::sql::{Batch, Login, Rows};
use firstlight::port::HttpResponse;
use firstlight::verify::{
    Catalogue, DatabasePrint, Pages, RowCounts, RowDifferences, RowsFound, Shape, Wanted,
    compare_rows, decode_catalogue, decode_keys, decode_parts, decode_rows, differing_parts,
    differing_ranges, keys_batch, parts_batch, pieces, role_batch, role_facts, rows_batch,
};
use harness::emulator::Emulator;

use crate::emulator;

/// Sends a batch to staging's first database as the Worker does.
pub(crate) fn send(
    emulator: &Emulator,
    role: &str,
    password: &str,
    batch: &Batch,
) -> Result<Vec<Rows>> {
    send_to(emulator, "neondb", (role, password), batch)
}

/// Sends a batch to a database of staging as the Worker does.
pub(crate) fn send_to(
    emulator: &Emulator,
    database: &str,
    (role, password): (&str, &str),
    batch: &Batch,
) -> Result<Vec<Rows>> {
    let endpoint = emulator.writer(&emulator.staging)?;
    let host = endpoint["host"].as_str().context("the host")?.to_owned();
    let login = Login {
        host,
        database: database.into(),
        role: role.into(),
        password: Secret::new(password.to_owned()),
    };
    let request = batch.encode(&login, Some(&format!("{}/sql", emulator.url)), None);
    let mut headers: Vec<(&str, &str)> =
        request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    headers
        .extend(request.secret_headers.iter().map(|(name, value)| (name.as_str(), value.reveal())));
    headers.retain(|(name, _)| *name != "Content-Type");
    let answer =
        harness::http::send_with("POST", &request.url, None, &headers, Some(&request.body))?;
    Ok(batch.decode(
        &login,
        Ok(HttpResponse { status: answer.status, body: answer.body, ..HttpResponse::default() }),
    )?)
}

/// Reads everything that staging's database holds.
fn print(emulator: &Emulator, role: &str, password: &str) -> Result<DatabasePrint> {
    content(emulator, role, password, &catalogue(emulator, role, password)?)
}

/// Reads what staging's database contains.
pub(crate) fn catalogue(emulator: &Emulator, role: &str, password: &str) -> Result<Catalogue> {
    decode_catalogue(&listed(emulator, role, password, &[], false)?)
        .context("the catalogue makes no sense")
}

/// Fetches what a database contains, page by page.
pub(crate) fn listed(
    emulator: &Emulator,
    role: &str,
    password: &str,
    exclusions: &[String],
    defects: bool,
) -> Result<Vec<Rows>> {
    Pages::fetch(exclusions, defects, |batch| send(emulator, role, password, batch))?
        .context("a page makes no sense")
}

/// Reads the content of what a catalogue lists.
pub(crate) fn content(
    emulator: &Emulator,
    role: &str,
    password: &str,
    catalogue: &Catalogue,
) -> Result<DatabasePrint> {
    content_by(emulator, (role, password), catalogue, catalogue.print.clone(), None)
}

/// Reads the content of what a catalogue lists, as another print guides.
fn content_by(
    emulator: &Emulator,
    (role, password): (&str, &str),
    catalogue: &Catalogue,
    print: DatabasePrint,
    guide: Option<&DatabasePrint>,
) -> Result<DatabasePrint> {
    content_with(&|batch| send(emulator, role, password, batch), catalogue, print, guide)
}

/// Reads the content of what a catalogue lists; `ask` sends a batch.
pub(crate) fn content_with(
    ask: &dyn Fn(&Batch) -> Result<Vec<Rows>>,
    catalogue: &Catalogue,
    mut print: DatabasePrint,
    guide: Option<&DatabasePrint>,
) -> Result<DatabasePrint> {
    for _ in 0..1_000 {
        let asked = pieces(catalogue, &print, guide);
        if asked.is_empty() {
            return Ok(print);
        }
        for (piece, batch) in asked {
            let began = Instant::now();
            let answer = ask(&batch)?;
            print.take(&piece, &answer, began.elapsed()).context("the content makes no sense")?;
        }
    }
    bail!("reading does not come to an end")
}

/// Returns the password of the owner of staging.
pub(crate) fn owner(emulator: &Emulator) -> Result<String> {
    emulator.owner_password(&emulator.staging)
}

#[test]
fn every_change_of_content_changes_the_digest_of_its_table() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let password = owner(&emulator)?;
    emulator.sql(
        &emulator.staging,
        &[
            "create extension citext",
            "create type mood as enum ('glad', 'sad')",
            "create table public.odd(id int primary key, f float8, n numeric, i interval, c \
                citext, j json, x xml, p point, b bit(3), m money, \
                a text[], mood mood, t timestamptz, raw bytea, flag bool, z name)",
            "insert into odd select g, g, g, make_interval(days => g), 'a' || g, '{}', \
                '<a/>', point(g, g), b'101', g::money, array['x', null], 'glad', \
                timestamptz '2026-01-01' + make_interval(days => g), '\\x00', true, 'n' from \
                generate_series(1, 20) g",
            "update odd set f = null, n = 1.0, i = '1 mon', c = 'Case' where id = 1",
            "update odd set f = 0.0 where id = 2",
        ],
    )?;
    let changes = [
        ("a changed row", "update odd set flag = false where id = 7"),
        ("a missing row", "delete from odd where id = 7"),
        ("an extra row", "insert into odd(id) values (100)"),
        ("two values swapped between rows", "update odd set f = 9 - f where id in (4, 5)"),
        ("NULL for 0.0", "update odd set f = null where id = 2"),
        ("0.0 for NULL", "update odd set f = 0.0 where id = 1"),
        ("-0 for 0", "update odd set f = '-0' where id = 2"),
        ("NaN", "update odd set f = 'NaN' where id = 3"),
        ("1.00 for 1.0", "update odd set n = 1.00 where id = 1"),
        ("30 days for 1 mon", "update odd set i = '30 days' where id = 1"),
        ("another case of citext", "update odd set c = 'CASE' where id = 1"),
        ("white space in json", "update odd set j = '{ }' where id = 3"),
        ("xml", "update odd set x = '<b/>' where id = 3"),
        ("a point", "update odd set p = point(0, 0) where id = 3"),
        ("bits", "update odd set b = b'111' where id = 3"),
        ("money", "update odd set m = 0::money where id = 3"),
        ("an element of an array", "update odd set a = array['x', 'null'] where id = 3"),
        ("an enum", "update odd set mood = 'sad' where id = 3"),
        ("a microsecond", "update odd set t = t + interval '1 microsecond' where id = 3"),
    ];
    let before = print(&emulator, "neondb_owner", &password)?;
    assert_eq!(before.tables["public.odd"].count, 20);
    for (what, change) in changes {
        // The change is undone by a copy, so that each is compared with the same beginning.
        emulator.sql(&emulator.staging, &["create table keep as table odd", change])?;
        let after = print(&emulator, "neondb_owner", &password)?;
        assert_ne!(after.tables["public.odd"], before.tables["public.odd"], "{what} was not seen");
        emulator.sql(
            &emulator.staging,
            &["delete from odd", "insert into odd select * from keep", "drop table keep"],
        )?;
        assert_eq!(
            print(&emulator, "neondb_owner", &password)?.tables["public.odd"],
            before.tables["public.odd"],
            "{what} was not undone"
        );
    }
    Ok(())
}

#[test]
fn odd_tables_are_read_and_named_as_postgres_quotes_them() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let password = owner(&emulator)?;
    emulator.sql(
        &emulator.staging,
        &[
            "create schema \"Odd \"\" schema\"",
            "create table \"Odd \"\" schema\".\"tab'le\nünï\"(\"col\"\"umn\" text, \"select\" int)",
            "insert into \"Odd \"\" schema\".\"tab'le\nünï\" values ('x', 1)",
            "create table public.no_columns()",
            "insert into public.no_columns default values",
            "create table public.acl(id int, a aclitem, b aclitem[])",
            "insert into public.acl values (1, 'neondb_owner=r/neondb_owner', \
                array['neondb_owner=r/neondb_owner'::aclitem])",
            "create table public.parent(id int) partition by list (id)",
            "create table public.leaf partition of public.parent for values in (1)",
            "insert into public.parent values (1)",
            "create materialized view public.filled as select 1 as one",
            "create unlogged table public.scratch(id int)",
            "create materialized view public.later as select 1 as one with no data",
        ],
    )?;
    let print = print(&emulator, "neondb_owner", &password)?;
    let count = |name: &str| print.tables.get(name).map(|digest| digest.count);
    assert_eq!(count("\"Odd \"\" schema\".\"tab'le\nünï\""), Some(1), "{:?}", print.tables.keys());
    assert_eq!((count("public.no_columns"), count("public.acl")), (Some(1), Some(1)));
    assert_eq!(
        (count("public.leaf"), count("public.parent"), count("public.filled")),
        (Some(1), None, Some(1))
    );
    assert_eq!(print.skipped.get("public.scratch").map(String::as_str), Some("unlogged"));
    assert_eq!(print.skipped.get("public.later").map(String::as_str), Some("not populated"));
    assert!(
        print.tables.keys().all(|name| !name.starts_with("neon.")),
        "{:?}",
        print.tables.keys()
    );
    Ok(())
}

#[test]
fn a_role_that_may_not_read_or_is_filtered_gets_not_checked_and_never_equal() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    emulator.sql(
        &emulator.staging,
        &[
            "create table public.hidden(id int)",
            "create table public.filtered(id int)",
            "alter table public.filtered enable row level security",
            "create role reader login password 'reader_secret'",
            "grant select on public.filtered, public.users to reader",
        ],
    )?;
    let print = print(&emulator, "reader", "reader_secret")?;
    let reason = |name: &str| print.not_checked.get(name).map(String::as_str);
    assert_eq!(reason("public.hidden"), Some("the role may not read it"));
    assert_eq!(reason("public.filtered"), Some("row-level security filters the role"));
    assert!(print.tables.contains_key("public.users"));
    let sees_all_rows = |role: &str, password: &str| -> Result<bool> {
        Ok(role_facts(&send(&emulator, role, password, &role_batch())?)
            .context("the answer makes no sense")?
            .sees_all_rows)
    };
    assert!(!sees_all_rows("reader", "reader_secret")?);
    assert!(sees_all_rows("neondb_owner", &owner(&emulator)?)?);
    Ok(())
}

/// Compares two tables that began as copies of each other, by their parts, and names the rows in
/// which they differ.
pub(crate) fn differing_rows(
    emulator: &Emulator,
    password: &str,
    catalogue: &Catalogue,
    tables: &[String; 2],
) -> Result<RowDifferences> {
    let ask = |batch: &Batch| send(emulator, "neondb_owner", password, batch);
    let (_, has_key) = catalogue.shape(&tables[0]).context("the table is read")?;
    let shape = if has_key { Shape::Keyed } else { Shape::Keyless };
    let whole =
        tables.each_ref().map(|table| Wanted::whole(table, shape, differing_ranges(None, None), 0));
    let parts = ask(&parts_batch(catalogue, &whole))?;
    let parts = parts[1..]
        .iter()
        .map(|rows| decode_parts(rows).context("the parts make no sense"))
        .collect::<Result<Vec<_>>>()?;
    let differing: Vec<u32> =
        differing_parts(&parts[0], &parts[1]).into_iter().map(|(part, _)| part).collect();
    let hashes_of = |wanted: &[Wanted]| -> Result<RowsFound> {
        let rows = ask(&rows_batch(catalogue, wanted))?;
        let rows = rows[1..]
            .iter()
            .map(|rows| decode_rows(rows).context("the rows make no sense"))
            .collect::<Result<Vec<_>>>()?;
        Ok(compare_rows(shape, &rows[0], &rows[1]))
    };
    let found = hashes_of(&whole.clone().map(|wanted| wanted.of_parts(differing.clone(), 0)))?;
    assert_eq!(found, hashes_of(&whole)?, "all rows are found in the parts that differ");
    if !has_key {
        return Ok(RowDifferences::counted(found.counts));
    }
    let hashes = [[found.gone.clone(), found.changed.clone()].concat(), found.added.clone()];
    let keys = ask(&keys_batch(catalogue, &whole, &hashes))?;
    let keys = keys[1..]
        .iter()
        .map(|rows| decode_keys(rows).context("the keys make no sense"))
        .collect::<Result<Vec<_>>>()?;
    let named = |side: usize, hashes: &[String]| {
        hashes.iter().filter_map(|hash| keys[side].get(hash).cloned()).collect()
    };
    let (gone, changed, added) =
        (named(0, &found.gone), named(0, &found.changed), named(1, &found.added));
    Ok(RowDifferences { gone, changed, added, ..RowDifferences::counted(found.counts) })
}

#[test]
fn every_one_of_two_hundred_random_changes_is_found_and_its_row_named() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let password = owner(&emulator)?;
    let tables = ["public.backup", "public.copy"].map(str::to_owned);
    for table in &tables {
        let columns = "\"a \"\"key\"\"\" text, id int, v float8, w numeric, t text, \
            primary key (id, \"a \"\"key\"\"\")";
        let rows = "select 'k' || g, g, g, g, 'x' || g from generate_series(1, 300) g";
        emulator.sql(
            &emulator.staging,
            &[&format!("create table {table}({columns})"), &format!("insert into {table} {rows}")],
        )?;
    }
    let catalogue = catalogue(&emulator, "neondb_owner", &password)?;
    assert_eq!(
        differing_rows(&emulator, &password, &catalogue, &tables)?,
        RowDifferences::default()
    );
    let mut random = fastrand::Rng::with_seed(20_261_121);
    for round in 0..200 {
        let ids =
            emulator.sql(&emulator.staging, &["select id::text from public.copy order by id"])?;
        let id = ids[random.usize(..ids.len())][0].clone().unwrap_or_default();
        let (change, counts) = match random.u8(..6) {
            0 => (format!("delete from public.copy where id = {id}"), (1, 0, 0)),
            1 => (
                format!("insert into public.copy values ('k', {round} + 1000, 0, 0, '')"),
                (0, 0, 1),
            ),
            2 => (
                format!(
                    "update public.copy set v = case when v is null then 0.0 else null end \
                        where id = {id}"
                ),
                (0, 1, 0),
            ),
            3 => (format!("update public.copy set w = w * 1.0 where id = {id}"), (0, 1, 0)),
            4 => (format!("update public.copy set t = t || ' ' where id = {id}"), (0, 1, 0)),
            _ => (format!("update public.copy set id = -id where id = {id}"), (1, 0, 1)),
        };
        emulator.sql(&emulator.staging, &[&change])?;
        let print = content(&emulator, "neondb_owner", &password, &catalogue)?;
        assert_ne!(print.tables[&tables[0]], print.tables[&tables[1]], "round {round}: {change}");
        let found = differing_rows(&emulator, &password, &catalogue, &tables)?;
        let (gone, changed, added) = counts;
        assert_eq!(
            found.counts,
            RowCounts { gone, changed, added },
            "round {round}: {change}: {found}"
        );
        assert_eq!(
            (found.gone.len(), found.changed.len(), found.added.len()),
            counts_named(counts),
            "round {round}: {change}: {found}"
        );
        let named: Vec<&String> = found.gone.iter().chain(&found.changed).collect();
        assert!(
            named.iter().all(|key| key.contains(&format!("\"id\": {id}"))),
            "round {round}: {change}: {found}"
        );
        emulator.sql(
            &emulator.staging,
            &["delete from public.backup", "insert into public.backup select * from public.copy"],
        )?;
    }
    Ok(())
}

/// Returns how many rows are named where so few differ: all.
fn counts_named((gone, changed, added): (u64, u64, u64)) -> (usize, usize, usize) {
    let named = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    (named(gone), named(changed), named(added))
}

/// As in case 37, on real PostgreSQL and with as many rows as fit one reply: every row that was
/// changed is counted.
#[test]
fn a_hundred_thousand_rows_that_are_gone_or_changed_are_counted_exactly() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let password = owner(&emulator)?;
    let tables = ["public.backup", "public.copy"].map(str::to_owned);
    for table in &tables {
        let rows =
            format!("insert into {table} select g, md5(g::text) from generate_series(1, 100000) g");
        emulator.sql(
            &emulator.staging,
            &[&format!("create table {table}(id int primary key, v text)"), &rows],
        )?;
    }
    let changes = [
        "delete from public.copy where id % 7 = 0",
        "update public.copy set v = v || 'x' where id % 7 > 1",
        "insert into public.copy values (-1, '')",
    ];
    emulator.sql(&emulator.staging, &changes)?;
    let found = differing_rows(
        &emulator,
        &password,
        &catalogue(&emulator, "neondb_owner", &password)?,
        &tables,
    )?;
    // Of every seven ids one is gone and five are changed.
    assert_eq!(found.counts, RowCounts { gone: 14_285, changed: 71_429, added: 1 });
    assert_eq!(
        (found.gone.len(), found.changed.len(), found.added),
        (20, 20, vec!["{\"id\": -1}".to_owned()])
    );
    Ok(())
}

/// Returns a print that is read in pieces of so many bytes at first.
fn in_pieces_of(bytes: u64, print: &DatabasePrint) -> Result<DatabasePrint> {
    let mut value = serde_json::to_value(print)?;
    value["pace"] = serde_json::json!({"piece_bytes": bytes, "spent_ms": 0});
    Ok(serde_json::from_value(value)?)
}

#[test]
fn a_table_read_in_ranges_has_the_digest_of_the_whole_and_a_difference_is_located() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let password = owner(&emulator)?;
    let login = ("neondb_owner", password.as_str());
    emulator.sql(
        &emulator.staging,
        &[
            "create table public.big(id int primary key, v text, doc jsonb)",
            "insert into public.big select g, repeat(md5(g::text), 8), \
                jsonb_build_object('k', g) from generate_series(1, 20000) g",
            "delete from public.big where id % 7 = 0",
            "update public.big set v = v || 'x' where id % 11 = 0",
        ],
    )?;
    let catalogue = catalogue(&emulator, login.0, login.1)?;
    let whole = content(&emulator, login.0, login.1, &catalogue)?;
    let first =
        content_by(&emulator, login, &catalogue, in_pieces_of(65_536, &catalogue.print)?, None)?;
    let ranges = &first.ranges["public.big"];
    assert!(ranges.len() > 3, "{ranges:?}");
    assert_eq!(first.tables, whole.tables);

    emulator.sql(
        &emulator.staging,
        &["update public.big set doc = '{}' where ctid = (select min(ctid) from public.big where \
            id = 3)"],
    )?;
    let second = content_by(&emulator, login, &catalogue, catalogue.print.clone(), Some(&first))?;
    assert_ne!(second.tables["public.big"], first.tables["public.big"]);
    let differing = differing_ranges(Some(ranges), Some(&second.ranges["public.big"]));
    // The old row was in one range, the new one is in another or the same.
    assert!((1..=2).contains(&differing.len()), "{differing:?}");
    let wanted = Wanted::whole("public.big", Shape::Keyed, differing, 0);
    let parts = send(&emulator, login.0, login.1, &parts_batch(&catalogue, &[wanted]))?;
    let all: u64 = decode_parts(&parts[1])
        .context("the parts make no sense")?
        .values()
        .map(|(count, _)| count)
        .sum();
    assert!(all > 0 && all < first.tables["public.big"].count / 2, "{all} rows were looked into");
    Ok(())
}

#[test]
fn large_objects_are_digested_and_those_that_may_not_be_read_are_not_checked() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let password = owner(&emulator)?;
    let large = |print: &DatabasePrint| print.tables.get("large objects").cloned();
    assert_eq!(large(&print(&emulator, "neondb_owner", &password)?), None, "there is none");
    emulator.sql(
        &emulator.staging,
        &[
            "select lo_from_bytea(100000, '\\x0102'), lo_from_bytea(100001, \
                convert_to(repeat('x', 100000), 'utf8'))",
            "create role reader login password 'reader_secret'",
        ],
    )?;
    emulator.sql(
        &emulator.staging,
        &[
            "alter large object 100000 owner to neondb_owner",
            "alter large object 100001 owner to neondb_owner",
        ],
    )?;
    let before = large(&print(&emulator, "neondb_owner", &password)?).context("they are read")?;
    assert_eq!(before.count, 2);
    emulator.sql(&emulator.staging, &["select lo_put(100001, 50000, '\\x00')"])?;
    let after = large(&print(&emulator, "neondb_owner", &password)?).context("they are read")?;
    assert_ne!(after, before);
    let print = print(&emulator, "reader", "reader_secret")?;
    assert_eq!(
        print.not_checked.get("large objects").map(String::as_str),
        Some("the role may not read 2 of 2")
    );
    emulator.sql(&emulator.staging, &["grant select on large object 100000, 100001 to public"])?;
    let of_reader = decode_catalogue(&listed(&emulator, "reader", "reader_secret", &[], false)?)
        .context("a catalogue")?;
    assert!(!of_reader.print.not_checked.contains_key("large objects"));
    Ok(())
}

#[test]
fn what_the_configuration_excludes_is_left_out_and_named() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let password = owner(&emulator)?;
    emulator.sql(
        &emulator.staging,
        &[
            "create schema audit",
            "create table audit.log(id int)",
            "create table public.events(id int, at timestamptz) partition by list (id)",
            "create table public.events_1 partition of public.events for values in (1)",
            "create table public.\"A b\"(id int, \"Seen at\" timestamptz)",
            "insert into public.\"A b\" values (1, now())",
        ],
    )?;
    let exclusions = ["audit", "public.events", "public.\"A b\".\"Seen at\"", "public.nothing"]
        .map(str::to_owned);
    let read = || -> Result<DatabasePrint> {
        let catalogue =
            decode_catalogue(&listed(&emulator, "neondb_owner", &password, &exclusions, false)?)
                .context("a catalogue")?;
        content(&emulator, "neondb_owner", &password, &catalogue)
    };
    let print = read()?;
    let reason = Some("excluded by the configuration");
    assert_eq!(
        ["audit.log", "public.events_1"].map(|name| print.skipped.get(name).map(String::as_str)),
        [reason, reason]
    );
    assert_eq!(print.left_out, [("public.\"A b\"".to_owned(), "\"Seen at\"".to_owned())].into());
    assert_eq!(print.unknown_exclusions, ["public.nothing"]);
    emulator.sql(&emulator.staging, &["update public.\"A b\" set \"Seen at\" = null"])?;
    assert_eq!(read()?.tables, print.tables);
    emulator.sql(&emulator.staging, &["update public.\"A b\" set id = 2"])?;
    assert_ne!(read()?.tables, print.tables);
    Ok(())
}
