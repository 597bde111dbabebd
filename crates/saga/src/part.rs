//! The parts of a saga, by name. A seller reads its own part; everyone else looks only at names, as sets.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::digest;

/// The maximum length of a part's name.
const MAX_LETTERS: usize = 20;

/// Names reserved for participants, resources, and fields of a request or response.
const RESERVED: [&str; 17] = [
    "api",
    "booking",
    "conductor",
    "customer",
    "errors",
    "order",
    "outcomes",
    "parked",
    "parts",
    "payment",
    "reason",
    "reconciler",
    "status",
    "timeline",
    "total",
    "traveller",
    "variant",
];

/// The name of a part and of the participant that sells it: `[a-z]{1,20}`, and not one of the reserved names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PartName {
    /// Padded with zeros.
    letters: [u8; MAX_LETTERS],
}

impl PartName {
    /// A name for use in constants. An invalid name does not compile.
    pub const fn new(name: &str) -> Self {
        match Self::read(name) {
            Some(name) => name,
            None => panic!("a part's name is 1 to 20 letters a-z, and not a reserved name"),
        }
    }

    const fn read(name: &str) -> Option<Self> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() > MAX_LETTERS {
            return None;
        }
        let mut letters = [0; MAX_LETTERS];
        let mut at = 0;
        while at < bytes.len() {
            if !bytes[at].is_ascii_lowercase() {
                return None;
            }
            letters[at] = bytes[at];
            at += 1;
        }
        let mut taken = 0;
        while taken < RESERVED.len() {
            if is_same(bytes, RESERVED[taken].as_bytes()) {
                return None;
            }
            taken += 1;
        }
        Some(Self { letters })
    }

    /// The name as written everywhere.
    pub fn as_str(&self) -> &str {
        let length = self.letters.iter().position(|letter| *letter == 0).unwrap_or(MAX_LETTERS);
        std::str::from_utf8(&self.letters[..length]).unwrap_or_default() // only ASCII letters get in
    }
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<&str> for PartName {
    type Error = String;

    fn try_from(name: &str) -> Result<Self, String> {
        Self::read(name)
            .ok_or_else(|| "must be the name of a part: 1 to 20 letters a-z, and not a reserved name".into())
    }
}

impl TryFrom<String> for PartName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::try_from(name.as_str())
    }
}

impl From<PartName> for String {
    fn from(name: PartName) -> Self {
        name.as_str().to_owned()
    }
}

/// A set of parts. Whether all parts are priced, or cancelled, is whether two such sets are equal: a count would take
/// the same part twice for two parts.
pub type PartNames = BTreeSet<PartName>;

/// The parts of a plan: at least one, each with its contents, which only its seller reads. Written as `{"flight": {…},
/// "hotel": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<PartName, Value>")]
pub struct Parts(BTreeMap<PartName, Value>);

impl Parts {
    /// This part with its contents, or none if the plan does not have it.
    pub fn get(&self, name: PartName) -> Option<Part> {
        self.0.get(&name).map(|contents| Part { name, contents: contents.clone() })
    }

    /// The names of all parts, as a set.
    pub fn names(&self) -> PartNames {
        self.0.keys().copied().collect()
    }

    /// All parts with their contents, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (PartName, &Value)> {
        self.0.iter().map(|(name, contents)| (*name, contents))
    }
}

impl TryFrom<BTreeMap<PartName, Value>> for Parts {
    type Error = String;

    fn try_from(parts: BTreeMap<PartName, Value>) -> Result<Self, String> {
        if parts.is_empty() { Err("must have at least one part".into()) } else { Ok(Self(parts)) }
    }
}

/// One part of a plan, as its seller receives it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// Which part it is.
    pub name: PartName,
    /// What the customer asked for; only the seller of this part reads it.
    pub contents: Value,
}

impl Part {
    /// Distinguishes this part from any other, to check whether a repeated command is the same command. The order of
    /// members makes no difference: the JSON may have passed through other programs.
    pub fn digest(&self) -> String {
        let mut contents = self.contents.clone();
        contents.sort_all_objects(); // already sorted, unless a dependency enables `preserve_order`
        digest(&[self.name.as_str().as_bytes(), contents.to_string().as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_is_lower_case_letters_that_nothing_else_has() {
        for good in ["a", "flight", "abcdefghijklmnopqrst"] {
            assert_eq!(PartName::try_from(good).unwrap().as_str(), good);
        }
        let too_long = "abcdefghijklmnopqrstu";
        for bad in ["", too_long, "Flight", "f1", "a b", "a.b", "é", "booking", "payment", "api", "reconciler"] {
            assert!(PartName::try_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_sort_as_text_does() {
        let names = ["a", "aa", "ab", "b"].map(|name| PartName::try_from(name).unwrap());
        assert!(names.is_sorted());
    }

    #[test]
    fn a_plan_has_at_least_one_part_and_good_names() {
        let read = |json: Value| serde_json::from_value::<Parts>(json);
        assert_eq!(read(json!({"b": 1, "a": {}})).unwrap().names().len(), 2);
        for bad in [json!({}), json!({"payment": {}}), json!({"A": {}}), json!([]), json!(null)] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_tells_contents_and_names_apart_but_not_the_order_of_members() {
        let part = |name, text: &str| {
            Part { name: PartName::new(name), contents: serde_json::from_str(text).unwrap() }.digest()
        };
        assert_eq!(part("a", r#"{"x":1,"y":2}"#), part("a", r#"{ "y": 2, "x": 1 }"#));
        assert_ne!(part("a", r#"{"x":1}"#), part("a", r#"{"x":2}"#));
        assert_ne!(part("a", r#"{"x":1}"#), part("b", r#"{"x":1}"#));
    }
}
