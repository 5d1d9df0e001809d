//! How values travel: a JSON value becomes the text of a parameter, and a text of Postgres becomes
//! JSON by its type.

use serde_json::{Value, json};

use super::{Answer, error};
use crate::wire::Field;

/// Turns a JSON value into the text of a parameter.
pub(super) fn parameter(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => Some(array_literal(items)),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => Some(value.to_string()),
    }
}

fn array_literal(items: &[Value]) -> String {
    let parts: Vec<String> = items
        .iter()
        .map(|item| match item {
            Value::Null => "NULL".to_owned(),
            Value::Array(items) => array_literal(items),
            Value::String(text) => {
                format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
            }
            Value::Bool(_) | Value::Number(_) => item.to_string(),
            Value::Object(_) => {
                format!("\"{}\"", item.to_string().replace('\\', "\\\\").replace('"', "\\\""))
            }
        })
        .collect();
    format!("{{{}}}", parts.join(","))
}

/// Writes a row; as an object it may have the same key twice, as the proxy's has.
pub(super) fn render_row(
    out: &mut String,
    row: &[Option<String>],
    fields: &[Field],
    is_array: bool,
    is_raw: bool,
) -> Result<(), Answer> {
    out.push(if is_array { '[' } else { '{' });
    for (index, (value, field)) in row.iter().zip(fields).enumerate() {
        if index > 0 {
            out.push(',');
        }
        if !is_array {
            out.push_str(&json!(field.name).to_string());
            out.push(':');
        }
        let rendered = match value {
            None => "null".to_owned(),
            Some(text) if is_raw => json!(text).to_string(),
            Some(text) => typed(text, field.type_oid)
                .ok_or_else(|| error(500, "could not parse postgres response"))?,
        };
        out.push_str(&rendered);
    }
    out.push(if is_array { ']' } else { '}' });
    Ok(())
}

/// Writes a value by its type.
pub(super) fn typed(text: &str, oid: u32) -> Option<String> {
    Some(match oid {
        16 => json!(text == "t").to_string(),
        21 | 23 => text.parse::<i64>().ok()?.to_string(),
        700 | 701 => match text {
            "NaN" | "Infinity" | "-Infinity" => json!(text).to_string(),
            _ => serde_json::from_str::<serde_json::Number>(text).ok()?.to_string(),
        },
        114 | 3802 => text.to_owned(),
        1000 => array(text, 16)?,
        1005 | 1007 => array(text, 23)?,
        1021 | 1022 => array(text, 701)?,
        199 | 3807 => array(text, 114)?,
        1009 | 1015 | 1016 | 1231 | 2951 | 1115 | 1185 | 1182 => array(text, 25)?,
        _ => json!(text).to_string(),
    })
}

/// Writes an array. An empty one is misread as having one empty item: the proxy does that, and
/// clients must know.
fn array(text: &str, element: u32) -> Option<String> {
    let text = text
        .split_once('=')
        .filter(|(bounds, _)| bounds.starts_with('['))
        .map_or(text, |(_, rest)| rest);
    let mut rest = text.char_indices().peekable();
    array_items(&mut rest, element)
}

fn array_items(
    rest: &mut std::iter::Peekable<std::str::CharIndices<'_>>,
    element: u32,
) -> Option<String> {
    let (_, '{') = rest.next()? else { return None };
    let mut items = Vec::new();
    loop {
        match rest.peek()?.1 {
            '{' => items.push(array_items(rest, element)?),
            '"' => {
                rest.next();
                let mut item = String::new();
                loop {
                    match rest.next()?.1 {
                        '\\' => item.push(rest.next()?.1),
                        '"' => break,
                        other => item.push(other),
                    }
                }
                items.push(typed(&item, element)?);
            }
            _ => {
                let mut item = String::new();
                while !matches!(rest.peek()?.1, ',' | '}') {
                    item.push(rest.next()?.1);
                }
                items.push(if item == "NULL" { "null".to_owned() } else { typed(&item, element)? });
            }
        }
        match rest.next()?.1 {
            ',' => {}
            '}' => return Some(format!("[{}]", items.join(","))),
            _ => return None,
        }
    }
}
