//! Reads a JSON object key by key and collects every problem.
//!
//! In: a value and its path. Out: typed fields, and for each fault the path of the key, the value
//! that was found and what is allowed.
//!
//! Invariants: reading never stops at the first fault; a key that nobody asked for is a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::str::FromStr;

use serde_json::{Map, Value};

/// Names what is allowed or known: `"hub" or "shop"`.
pub fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or ")
}

/// Characters of a text that is shown; what is longer is seldom a word that somebody meant.
const SHOWN: usize = 60;

/// Returns a value as a fault may show it: a word or a number as it is, and of anything that may be
/// a secret only what it is.
///
/// A secret is pasted where a name belongs sooner or later. So a list, a table, an address, a text
/// with blanks that begins like a header, and a long word of letters and digits are described and
/// not shown.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a table".to_owned(),
        Value::String(text) => shown_text(text),
    }
}

/// Returns a text as a fault may show it.
pub(super) fn shown_text(text: &str) -> String {
    let length = text.chars().count();
    if text.is_empty() {
        "empty".to_owned()
    } else if text.contains("://") {
        format!("an address of {length} characters")
    } else if length > SHOWN || may_be_secret(text) {
        format!("a text of {length} characters")
    } else {
        format!("{text:?}")
    }
}

/// Returns whether a text looks like a key, a token or a password: long words of letters and
/// digits, or what stands before them.
pub(super) fn may_be_secret(text: &str) -> bool {
    let is_dense = |word: &str| {
        let has = |is: fn(char) -> bool| word.chars().any(is);
        word.chars().count() >= 20
            && !word.starts_with("br-")
            && has(|c| c.is_ascii_digit())
            && has(char::is_alphabetic)
    };
    let lower = text.to_ascii_lowercase();
    let begins =
        ["bearer ", "basic ", "napi_", "whsec_", "sk_", "ghp_", "xoxb-", "eyj", "-----begin"];
    begins.iter().any(|begin| lower.starts_with(begin)) || text.split_whitespace().any(is_dense)
}

/// Returns what a value is, where nothing of it may be shown.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// Returns a key as a path may show it.
pub(super) fn shown_key(key: &str) -> String {
    let is_plain = key.len() <= SHOWN
        && !may_be_secret(key)
        && !key.chars().any(|c| c.is_control() || c.is_whitespace());
    if is_plain { key.to_owned() } else { format!("(a key of {} characters)", key.chars().count()) }
}

/// One fault of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `pairs[0].deadline`.
    pub path: String,
    /// What was found and what is allowed.
    pub text: String,
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}

/// The fields of one object, with the faults found so far.
pub(super) struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
    asked: BTreeSet<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Fields<'a> {
    /// Starts to read an object.
    pub(super) fn new(
        path: String,
        map: &'a Map<String, Value>,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        Self { path, map, asked: BTreeSet::new(), problems }
    }

    /// Notes a fault of a key.
    pub(super) fn problem(&mut self, key: &str, text: impl Into<String>) {
        let path = self.path_of(key);
        self.problems.push(Problem { path, text: text.into() });
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Returns a value, if the key is there.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.asked.insert(key);
        self.map.get(key)
    }

    /// Reads a text that is not empty.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        let value = self.value(key)?;
        match value.as_str() {
            Some(text) if !text.trim().is_empty() && !text.chars().any(char::is_control) => {
                Some(text.to_owned())
            }
            // A text with line ends may be a key of several lines.
            Some("") => self.refused(
                key,
                "is empty; allowed is a text that is not empty and has no control characters",
            ),
            Some(_) => self
                .refused(key, "has control characters, or blanks alone; allowed is a text without"),
            None => self.refused(key, &format!("is {}; allowed is a text", kind_of(value))),
        }
    }

    /// Reads a text that must be there.
    pub(super) fn required(&mut self, key: &'static str, example: &str) -> Option<String> {
        self.need(key, example);
        self.text(key)
    }

    /// Reads a text and converts it.
    pub(super) fn parsed<T: FromStr>(&mut self, key: &'static str, allowed: &str) -> Option<T> {
        let text = self.text(key)?;
        match text.parse() {
            Ok(parsed) => Some(parsed),
            Err(_) => self.refuse(key, &Value::String(text), allowed),
        }
    }

    /// Reads one of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            self.refuse::<()>(
                key,
                &Value::String(text),
                &one_of(words.iter().map(|(word, _)| *word)),
            );
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// Reads a whole number within bounds.
    pub(super) fn number(&mut self, key: &'static str, low: u32, high: u32) -> Option<u32> {
        let value = self.value(key)?;
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        match number {
            Some(number) if (low..=high).contains(&number) => Some(number),
            Some(_) | None => {
                self.refuse(key, value, &format!("a whole number from {low} to {high}"))
            }
        }
    }

    /// Reads a yes or no.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.value(key)?;
        value.as_bool().or_else(|| self.refuse(key, value, "true or false"))
    }

    /// Reads an object, and returns it with its path.
    pub(super) fn object(&mut self, key: &'static str) -> Option<(String, &'a Map<String, Value>)> {
        let value = self.value(key)?;
        let path = self.path_of(key);
        value
            .as_object()
            .map(|map| (path, map))
            .or_else(|| self.refused(key, &format!("is {}; allowed is a table", kind_of(value))))
    }

    /// Reads a list of objects.
    pub(super) fn objects(&mut self, key: &'static str) -> Vec<(String, &'a Map<String, Value>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(items) = value.as_array() else {
            self.problem(key, format!("is {}; allowed is a list of tables", kind_of(value)));
            return Vec::new();
        };
        let mut found = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(key));
            match item.as_object() {
                Some(map) => found.push((path, map)),
                None => self.problems.push(Problem { path, text: "expected a table".to_owned() }),
            }
        }
        found
    }

    /// Reads a list of texts.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.value(key)?;
        let texts: Option<Vec<String>> = value.as_array().and_then(|items| {
            items
                .iter()
                .map(|item| item.as_str().filter(|text| !text.is_empty()).map(str::to_owned))
                .collect()
        });
        let is_list = value.is_array();
        let found = if is_list {
            "has an entry that is empty or no text".to_owned()
        } else {
            format!("is {}", kind_of(value))
        };
        texts.or_else(|| {
            self.refused(key, &format!("{found}; allowed is a list of texts that are not empty"))
        })
    }

    /// Reads a table of texts or numbers, all as texts.
    pub(super) fn map(&mut self, key: &'static str) -> BTreeMap<String, String> {
        let Some((path, map)) = self.object(key) else { return BTreeMap::new() };
        let mut found = BTreeMap::new();
        for (name, value) in map {
            match value {
                Value::String(text) => drop(found.insert(name.clone(), text.clone())),
                Value::Number(_) | Value::Bool(_) => {
                    drop(found.insert(name.clone(), value.to_string()));
                }
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    let text = format!("is {}; allowed is a text or a number", kind_of(value));
                    self.problems
                        .push(Problem { path: format!("{path}.{}", shown_key(name)), text });
                }
            }
        }
        found
    }

    /// Gives the list of faults to a nested reader.
    pub(super) fn problems(&mut self) -> &mut Vec<Problem> {
        self.problems
    }

    /// Notes that a key must be there.
    pub(super) fn need(&mut self, key: &'static str, example: &str) {
        self.asked.insert(key);
        if !self.map.contains_key(key) {
            self.problem(key, format!("is missing; for example {key} = {example}"));
        }
    }

    fn refuse<T>(&mut self, key: &str, value: &Value, allowed: &str) -> Option<T> {
        self.refused(key, &format!("is {}; allowed is {allowed}", shown(value)))
    }

    /// Notes a fault whose text shows nothing of the value.
    fn refused<T>(&mut self, key: &str, text: &str) -> Option<T> {
        self.problem(key, text);
        None
    }

    /// Reads a number, whole or not.
    pub(super) fn float(&mut self, key: &'static str) -> Option<f64> {
        let value = self.value(key)?;
        value.as_f64().or_else(|| self.refuse(key, value, "a number"))
    }

    /// Reads a text, a number, or true or false, as text. A text may be empty.
    pub(super) fn scalar(&mut self, key: &'static str) -> Option<String> {
        let value = self.value(key)?;
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                self.refuse(key, value, "a text or a number")
            }
        }
    }

    /// Notes every key that nobody asked for.
    pub(super) fn refuse_unknown(&mut self) {
        for key in self.map.keys().filter(|key| !self.asked.contains(key.as_str())) {
            let known: Vec<&str> = self.asked.iter().copied().collect();
            let key = shown_key(key);
            let path = if self.path.is_empty() { key } else { format!("{}.{key}", self.path) };
            self.problems.push(Problem {
                path,
                text: format!("is not a key; known here are {}", known.join(", ")),
            });
        }
    }
}
