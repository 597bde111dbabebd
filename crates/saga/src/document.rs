//! A JSON text as a client sent it: its content, and what is ambiguous about it.

use std::{collections::BTreeSet, fmt};

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::{
    id::digest,
    reading::{Violation, member},
};

/// A JSON text, read without any rules about its content.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    value: Value,
    /// The JSON pointers of repeated members: names that occur more than once in one object.
    repeated: BTreeSet<String>,
}

impl Document {
    /// Reads JSON in UTF-8. A byte order mark before it is skipped, as RFC 8259, section 8.1 allows.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        let mut repeated = BTreeSet::new();
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let value = deserializer.deserialize_any(Node { pointer: String::new(), repeated: &mut repeated })?;
        deserializer.end()?;
        Ok(Self { value, repeated })
    }

    /// Identifies the content of the text, however it is written: white space, escapes, the order of members and the
    /// form of numbers (`1`, `1.0`, `10e-1`) make no difference; every member does, known or unknown.
    ///
    /// It depends on no rules, so that requests can be told apart even if they would be refused today.
    pub fn digest(&self) -> String {
        let mut content = self.value.clone();
        content.sort_all_objects(); // already sorted, unless a dependency enables `preserve_order`
        write_whole_numbers_alike(&mut content);
        let content = content.to_string();
        let repeated = self.repeated.iter().map(String::as_bytes);
        digest(&[content.as_bytes()].into_iter().chain(repeated).collect::<Vec<_>>())
    }

    /// Reads the value by these rules. A repeated member is a further violation, because it is unclear which value is
    /// meant.
    pub fn read<T>(&self, read: impl FnOnce(&Value) -> Result<T, Vec<Violation>>) -> Result<T, Vec<Violation>> {
        let result = read(&self.value);
        if self.repeated.is_empty() {
            return result;
        }
        let twice = |pointer: &String| Violation { pointer: pointer.clone(), detail: "is given more than once".into() };
        let mut violations: Vec<_> = self.repeated.iter().map(twice).collect();
        let others = result.err().into_iter().flatten();
        violations.extend(others.filter(|violation| !self.repeated.contains(&violation.pointer)));
        Err(violations)
    }
}

impl From<Value> for Document {
    fn from(value: Value) -> Self {
        Self { value, repeated: BTreeSet::new() }
    }
}

/// The integers that a double holds exactly lie in this range: <https://www.rfc-editor.org/rfc/rfc8259#section-6>.
const EXACT: std::ops::RangeInclusive<f64> = -9_007_199_254_740_991.0..=9_007_199_254_740_991.0;

fn write_whole_numbers_alike(value: &mut Value) {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && EXACT.contains(&float) => {
                *value = Value::from(float as i64);
            }
            _ => {}
        },
        Value::Array(items) => items.iter_mut().for_each(write_whole_numbers_alike),
        Value::Object(members) => members.values_mut().for_each(write_whole_numbers_alike),
        _ => {}
    }
}

/// Reads a value and records repeated names: `Value` itself silently keeps the last member.
struct Node<'r> {
    pointer: String,
    repeated: &'r mut BTreeSet<String>,
}

impl<'de> serde::de::DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, bool: bool) -> Result<Value, E> {
        Ok(Value::from(bool))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        loop {
            let pointer = member(&self.pointer, &array.len().to_string());
            let Some(item) = items.next_element_seed(Node { pointer, repeated: self.repeated })? else { break };
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let pointer = member(&self.pointer, &name);
            let value = members.next_value_seed(Node { pointer: pointer.clone(), repeated: self.repeated })?;
            if object.insert(name, value).is_some() {
                self.repeated.insert(pointer);
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> Document {
        Document::parse(text.as_bytes()).unwrap()
    }

    fn accepts(text: &str) -> Result<(), Vec<String>> {
        let pointers = |violations: Vec<Violation>| violations.into_iter().map(|violation| violation.pointer).collect();
        parsed(text).read(|_| Ok(())).map_err(pointers)
    }

    #[test]
    fn a_member_that_is_there_twice_is_pointed_at_at_any_depth() {
        assert_eq!(accepts(r#"{"a": [{"b": 1}, {"b": 1}], "b": {"a": 1}}"#), Ok(()));
        assert_eq!(accepts(r#"{"a": 1, "a": 1}"#), Err(vec!["/a".into()]));
        assert_eq!(accepts(r#"{"a": 1, "\u0061": 2, "a": 3}"#), Err(vec!["/a".into()]));
        let deep = r#"{"a/b": [0, {"~": 1, "~": 2}], "c": null, "c": null}"#;
        assert_eq!(accepts(deep), Err(vec!["/a~1b/1/~0".into(), "/c".into()]));
    }

    #[test]
    fn what_else_is_wrong_is_reported_too_and_each_place_once() {
        let wrong = |pointer: &str| Violation { pointer: pointer.into(), detail: "is wrong".into() };
        let read = parsed(r#"{"a": 1, "a": 1, "b": 1}"#).read(|_| Err::<(), _>(vec![wrong("/a"), wrong("/b")]));
        let pointers: Vec<_> = read.unwrap_err().into_iter().map(|violation| violation.pointer).collect();
        assert_eq!(pointers, ["/a", "/b"]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_once_and_nothing_may_follow() {
        assert_eq!(parsed("\u{feff}{\"a\": 1}"), parsed("{\"a\": 1}"));
        for not_json in ["\u{feff}\u{feff}1", "{} {}", "{\u{feff}}", "", "\u{feff}", "1e400", "{\"a\": 1,}"] {
            assert!(Document::parse(not_json.as_bytes()).is_err(), "{not_json:?}");
        }
        assert!(Document::parse(&[b'"', 0xff, b'"']).is_err());
        assert!(Document::parse("[".repeat(100_000).as_bytes()).is_err(), "without a stack overflow");
    }

    /// Changing what digests are made of needs a plan for the requests that are under way.
    #[test]
    fn the_digest_of_a_text_stays() {
        let digest = parsed(r#"{"b": [1.0, null, -2.5, "é"], "a": {"y": true, "x": "\""}}"#).digest();
        assert_eq!(digest, crate::id::digest(&[r#"{"a":{"x":"\"","y":true},"b":[1,null,-2.5,"é"]}"#.as_bytes()]));
    }

    #[test]
    fn members_twice_are_another_text() {
        let all = [r#"{"a": 1}"#, r#"{"a": 1, "a": 1}"#, r#"{"a": 2, "a": 1}"#, r#"{"a": "1"}"#, r#"{"a": [1]}"#];
        assert_ne!(parsed(all[0]).digest(), parsed(all[1]).digest());
        assert_ne!(parsed(all[0]).digest(), parsed(all[2]).digest());
        assert_ne!(parsed(all[0]).digest(), parsed(all[3]).digest());
        assert_ne!(parsed(all[0]).digest(), parsed(all[4]).digest());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-1_000_000_000_000_000i64..1_000_000_000_000_000).prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // Only numbers that every decimal parser reads exactly.
            (any::<i32>(), 0..5).prop_map(|(n, places)| Value::from(f64::from(n) / 2f64.powi(places))),
            "\\PC{0,8}".prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[a-c~/é\"]{0,3}", inner, 0..6)
                    .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    /// The same JSON, formatted differently.
    fn otherwise(value: &Value, out: &mut String) {
        match value {
            Value::Number(number) => match number.as_i64() {
                Some(whole) if whole.unsigned_abs() < 1 << 48 && whole % 2 == 0 => out.push_str(&format!("{whole}.0")),
                Some(whole) if whole.unsigned_abs() < 1 << 48 => out.push_str(&format!("{whole}0e-1")),
                _ => out.push_str(&number.to_string()),
            },
            Value::String(text) => {
                let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
                out.push_str(&format!("\"{units}\""));
            }
            Value::Array(items) => {
                out.push_str("[\n");
                for (place, item) in items.iter().enumerate() {
                    out.push_str(if place > 0 { "\t,\r\n" } else { "" });
                    otherwise(item, out);
                }
                out.push_str(" ]");
            }
            Value::Object(members) => {
                out.push_str("{ ");
                for (place, (name, member)) in members.iter().rev().enumerate() {
                    out.push_str(if place > 0 { " , " } else { "" });
                    otherwise(&json!(name), out);
                    out.push_str(" : ");
                    otherwise(member, out);
                }
                out.push('}');
            }
            other => out.push_str(&other.to_string()),
        }
    }

    proptest! {
        #[test]
        fn another_notation_has_the_same_digest(value in json()) {
            let mut text = String::new();
            otherwise(&value, &mut text);
            let digest = Document::from(value.clone()).digest();
            prop_assert_eq!(&parsed(&text).digest(), &digest, "{}", text);
            prop_assert_eq!(&parsed(&serde_json::to_string_pretty(&value).unwrap()).digest(), &digest);
        }

        #[test]
        fn other_contents_have_another_digest(one in json(), other in json()) {
            let (a, b) = (Document::from(one.clone()), Document::from(other.clone()));
            let (mut one, mut other) = (one, other);
            write_whole_numbers_alike(&mut one);
            write_whole_numbers_alike(&mut other);
            prop_assert_eq!(a.digest() == b.digest(), one == other);
            // An additional member changes the content too, whatever its name.
            let more = json!({"more": other, "this": one});
            prop_assert_ne!(Document::from(json!({"this": one})).digest(), Document::from(more).digest());
        }

        #[test]
        fn what_is_read_is_what_serde_json_reads(value in json()) {
            let text = value.to_string();
            prop_assert_eq!(parsed(&text), Document::from(serde_json::from_str::<Value>(&text).unwrap()));
        }

        #[test]
        fn no_text_panics(text in any::<Vec<u8>>()) {
            let read = Document::parse(&text).map(|document| document.digest());
            let text = text.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(&text);
            prop_assert_eq!(read.is_ok(), serde_json::from_slice::<Value>(text).is_ok());
        }
    }
}
