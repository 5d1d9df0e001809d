//! Texts with places for the facts of a notice: `{"message": "{{subject}}"}`.
//!
//! Invariants: a place that names no fact is refused when the settings are read; a fact cannot
//! break out of the JSON it is put into.

use serde_json::Value;

/// The facts that a place may name.
pub const FACTS: [&str; 12] = [
    "id", "kind", "severity", "pair", "run", "at", "subject", "text", "warnings", "runbook",
    "link", "incident",
];

/// A text with places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Texts and the facts between them.
    parts: Vec<Part>,
    writing: Writing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Fact(&'static str),
}

/// How a fact is written into the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// As a part of a JSON string.
    Json,
    /// For a form: percent-encoded.
    Form,
    /// For XML and HTML: what would begin a tag, a reference or end a value is written as a
    /// reference.
    Markup,
    /// As it is.
    Plain,
}

impl Writing {
    /// Returns how facts are written into a body of a media type.
    pub fn of(content_type: &str) -> Self {
        let media_type =
            content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/x-www-form-urlencoded" => Self::Form,
            "application/json" | "text/json" => Self::Json,
            "application/xml" | "text/xml" | "text/html" => Self::Markup,
            other if other.ends_with("+json") => Self::Json,
            other if other.ends_with("+xml") => Self::Markup,
            _ => Self::Plain,
        }
    }

    /// Writes a fact so that it is nothing but text in a body of this kind.
    pub fn write(self, fact: &str) -> String {
        match self {
            Self::Markup => fact.chars().map(markup).collect(),
            Self::Plain => fact.to_owned(),
            Self::Json => {
                let quoted = Value::String(fact.to_owned()).to_string();
                quoted[1..quoted.len() - 1].to_owned()
            }
            Self::Form => fact.bytes().map(percent).collect(),
        }
    }
}

/// Source: XML 1.0, 2.2 "Char": most control characters may not stand in a document, also not as a
/// reference; 2.4: what is escaped in text and in values.
fn markup(character: char) -> String {
    match character {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\'' => "&#39;".to_owned(),
        '\n' | '\t' | '\r' => character.to_string(),
        other if other.is_control() || matches!(other, '\u{fffe}' | '\u{ffff}') => {
            "\u{fffd}".to_owned()
        }
        other => other.to_string(),
    }
}

/// Source: WHATWG URL, 5.2 "application/x-www-form-urlencoded serializing".
fn percent(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"*-._".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// What is wrong with it: a place that names no fact or has no end, or JSON that is none.
    pub fn read(text: &str, writing: Writing) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").ok_or("has {{ without }}")?;
            let name = name.trim();
            let fact = FACTS.into_iter().find(|fact| *fact == name).ok_or_else(|| {
                let shown: String = name.chars().take(40).collect();
                format!(
                    "has {{{{{shown}}}}}; allowed are {}",
                    FACTS.map(|fact| format!("{{{{{fact}}}}}")).join(", ")
                )
            })?;
            parts.extend([Part::Text(before.to_owned()), Part::Fact(fact)]);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let template = Self { parts, writing };
        let is_json = || {
            serde_json::from_str::<serde::de::IgnoredAny>(&template.render(|_| "\"".to_owned()))
                .is_ok()
        };
        if writing == Writing::Json && !text.is_empty() && !is_json() {
            return Err(
                "is no JSON once its places are filled; each place belongs inside a string"
                    .to_owned(),
            );
        }
        Ok(template)
    }

    /// Fills the places.
    pub fn render(&self, fact: impl Fn(&str) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Fact(name) => self.writing.write(&fact(name)),
        };
        self.parts.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_put_into_json_as_a_part_of_a_string() {
        let template = Template::read(r#"{"text": "{{ subject }}: {{text}}"}"#, Writing::Json)
            .expect("both are facts");
        let filled = template.render(|name| {
            if name == "subject" { "a \"b\"".to_owned() } else { "c\nd".to_owned() }
        });
        assert_eq!(filled, r#"{"text": "a \"b\": c\nd"}"#);
    }

    #[test]
    fn a_form_is_percent_encoded_and_plain_text_is_not() {
        let fill = |writing| {
            Template::read("m={{text}}", writing).expect("a fact").render(|_| "a b&c=ü".to_owned())
        };
        assert_eq!(
            fill(Writing::of("application/x-www-form-urlencoded; charset=utf-8")),
            "m=a%20b%26c%3D%C3%BC"
        );
        assert_eq!(fill(Writing::of("text/plain")), "m=a b&c=ü");
        assert_eq!(Writing::of("application/vnd.api+json"), Writing::Json);
    }

    /// As in case 22, for other languages: a fact cannot break out of the XML or HTML that it is
    /// put into.
    #[test]
    fn a_fact_is_text_in_xml_and_in_html() {
        let fill = |content_type: &str| {
            let template =
                Template::read("<m a=\"{{text}}\"/>", Writing::of(content_type)).expect("a fact");
            template.render(|_| "<b>\"&amp;'\u{7}\n".to_owned())
        };
        let escaped = "<m a=\"&lt;b&gt;&quot;&amp;amp;&#39;\u{fffd}\n\"/>";
        for content_type in
            ["application/xml", "text/xml; charset=utf-8", "application/soap+xml", "Text/HTML"]
        {
            assert_eq!(fill(content_type), escaped, "{content_type}");
        }
    }

    #[test]
    fn what_is_no_fact_and_what_is_no_json_is_refused() {
        let refused = |text: &str| Template::read(text, Writing::Json).expect_err("it is refused");
        assert!(
            refused(r#"{"text": "{{password}}"}"#)
                .starts_with("has {{password}}; allowed are {{id}}, {{kind}}")
        );
        assert_eq!(refused(r#"{"text": "{{text"}"#), "has {{ without }}");
        assert!(refused(r#"{"text": {{text}}}"#).starts_with("is no JSON"));
    }
}
