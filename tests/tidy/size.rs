//! How much an eye reads at once: columns, lines, words.

use anyhow::Result;

use super::{files, pages, read, root};

/// Lines after which a file holds more than one idea.
const LINES: usize = 560;

/// Columns that an eye reads without moving.
const COLUMNS: usize = 100;

/// Words after which a sentence of a comment is read twice.
const WORDS: usize = 30;

/// Sentences that are longer. They are from before this rule, and become fewer: who shortens one
/// lowers the number.
const LONG_SENTENCES: usize = 48;

#[test]
fn a_file_holds_one_idea() -> Result<()> {
    let mut faults = Vec::new();
    for path in files("src", &["rs"])
        .into_iter()
        .chain(files("tests", &["rs"]))
        .chain(files("xtask", &["rs"]))
    {
        let lines = read(&path)?.lines().count();
        if lines > LINES {
            faults.push(format!("{} has {lines} lines; allowed are {LINES}", path.display()));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    Ok(())
}

/// Returns whether a line may be wider: a string, a table, an example in a comment.
fn may_be_wide(line: &str) -> bool {
    let line = line.trim_start();
    let comment = ["//! ", "/// ", "// "].iter().find_map(|mark| line.strip_prefix(mark));
    match comment {
        Some(text) => text.starts_with(['|', '`']),
        None => line.contains('"'),
    }
}

#[test]
fn a_line_is_read_at_one_glance() -> Result<()> {
    let mut faults = Vec::new();
    for path in ["src", "tests", "xtask"].iter().flat_map(|folder| files(folder, &["rs"])) {
        for (number, line) in read(&path)?.lines().enumerate() {
            if line.chars().count() > COLUMNS && !may_be_wide(line) {
                faults.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "wider than {COLUMNS} columns: {faults:#?}");
    Ok(())
}

/// Returns the paragraphs of the comments of a source, without tables, headings and examples.
fn paragraphs(text: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut is_example = false;
    for line in text.lines().map(str::trim) {
        let mark = ["//!", "///", "//"].iter().find_map(|mark| line.strip_prefix(mark));
        let words = mark.unwrap_or_default().trim();
        is_example = mark.is_some() && (is_example ^ words.starts_with("```"));
        let is_prose = !is_example && !words.is_empty() && !words.starts_with(['|', '#', '`']);
        if !is_prose || words.starts_with("- ") {
            found.push(String::new());
        }
        if is_prose && let Some(last) = found.last_mut() {
            last.push_str(words);
            last.push(' ');
        }
    }
    found
}

/// Returns how many words each sentence of a paragraph has.
fn sentences(paragraph: &str) -> Vec<usize> {
    let mut lengths = vec![0];
    for word in paragraph.split_whitespace() {
        if let Some(last) = lengths.last_mut() {
            *last += 1;
        }
        if word.trim_end_matches(['*', ')', '"', '`']).ends_with(['.', '!', '?']) {
            lengths.push(0);
        }
    }
    lengths
}

#[test]
fn a_sentence_of_a_comment_is_read_once() -> Result<()> {
    let mut long = Vec::new();
    for path in ["src", "tests", "xtask"].iter().flat_map(|folder| files(folder, &["rs"])) {
        for paragraph in paragraphs(&read(&path)?) {
            let most = sentences(&paragraph).into_iter().max().unwrap_or_default();
            if most > WORDS {
                let begins: String = paragraph.chars().take(60).collect();
                long.push(format!("{} ({most} words): {begins}…", path.display()));
            }
        }
    }
    assert_eq!(long.len(), LONG_SENTENCES, "longer than {WORDS} words: {long:#?}");
    Ok(())
}

#[test]
fn a_line_of_a_page_is_read_at_one_glance() -> Result<()> {
    let mut faults = Vec::new();
    // The page of notices shows them as they are sent.
    for path in pages().into_iter().filter(|path| !path.ends_with("notices.md")) {
        let mut is_example = false;
        for (number, line) in read(&path)?.lines().enumerate() {
            is_example ^= line.trim_start().starts_with("```");
            let is_free = is_example || line.trim_start().starts_with(['|', '>', '#']);
            if line.chars().count() > COLUMNS && !is_free {
                faults.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "wider than {COLUMNS} columns: {faults:#?}");
    Ok(())
}

#[test]
fn the_readme_is_short_enough_to_be_read() -> Result<()> {
    let words = read(&root().join("README.md"))?.split_whitespace().count();
    assert!(words <= 1_600, "README.md has {words} words; allowed are 1,600");
    Ok(())
}
