//! JSON, as much as it takes to read what cargo and a container engine say.

use std::iter::Peekable;
use std::str::Chars;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Self>),
    /// In the order of the text.
    Map(Vec<(String, Self)>),
}

impl Value {
    /// Reads a value; `None` if the text is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut chars = text.chars().peekable();
        let value = value(&mut chars)?;
        skip_space(&mut chars);
        chars.next().is_none().then_some(value)
    }

    /// The value of a map's key.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// A map's entries; none if it is no map.
    pub(crate) fn entries(&self) -> &[(String, Self)] {
        match self {
            Self::Map(entries) => entries,
            _ => &[],
        }
    }

    /// A list's items; none if it is no list.
    pub(crate) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// The number.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The text.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

fn value(chars: &mut Peekable<Chars<'_>>) -> Option<Value> {
    skip_space(chars);
    match chars.peek()? {
        '{' => {
            chars.next();
            let mut entries = Vec::new();
            while more(chars, '}', entries.is_empty())? {
                skip_space(chars);
                let key = text(chars)?;
                skip_space(chars);
                chars.next_if_eq(&':')?;
                entries.push((key, value(chars)?));
            }
            Some(Value::Map(entries))
        }
        '[' => {
            chars.next();
            let mut items = Vec::new();
            while more(chars, ']', items.is_empty())? {
                items.push(value(chars)?);
            }
            Some(Value::List(items))
        }
        '"' => text(chars).map(Value::Text),
        _ => {
            let mut word = String::new();
            while let Some(char) =
                chars.next_if(|char| char.is_ascii_alphanumeric() || "+-.".contains(*char))
            {
                word.push(char);
            }
            match word.as_str() {
                "null" => Some(Value::Null),
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                number => number.parse().ok().map(Value::Number),
            }
        }
    }
}

/// Whether another item follows, past the comma before it.
fn more(chars: &mut Peekable<Chars<'_>>, end: char, first: bool) -> Option<bool> {
    skip_space(chars);
    if chars.next_if_eq(&end).is_some() {
        return Some(false);
    }
    if !first {
        chars.next_if_eq(&',')?;
    }
    Some(true)
}

fn text(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    chars.next_if_eq(&'"')?;
    let mut text = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => match chars.next()? {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'b' => text.push('\u{8}'),
                'f' => text.push('\u{c}'),
                'u' => {
                    let hex: String = chars.by_ref().take(4).collect();
                    let code = u32::from_str_radix(&hex, 16).ok()?;
                    // Halves of a surrogate pair: nothing here has any.
                    text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
}

fn skip_space(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|char| char.is_ascii_whitespace()).is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_kinds_are_read() {
        let text = r#" {"a": [1, -2.5e1, true, null, {}, []], "b": "x\"\\\u00e9\n", "c": false} "#;
        let value = Value::parse(text).unwrap();
        let list = value.get("a").unwrap().items();
        assert_eq!(list[..2], [Value::Number(1.0), Value::Number(-25.0)]);
        assert_eq!(list[2..4], [Value::Bool(true), Value::Null]);
        assert_eq!((list[1].number(), list[2].number()), (Some(-25.0), None));
        assert_eq!(value.get("b").unwrap().text(), Some("x\"\\é\n"));
        assert_eq!(value.entries().len(), 3);
        assert!(value.get("d").is_none() && list[4].items().is_empty());
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["", "{", "[1 2]", "{\"a\" 1}", "\"a", "nul", "1 2", "[,]"] {
            assert_eq!(Value::parse(text), None, "{text}");
        }
    }
}
