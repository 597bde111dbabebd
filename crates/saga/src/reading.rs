//! Reads JSON into the saga's types and reports *everything* that is wrong with it, not only the first problem. Reports
//! never repeat values, which may be secret.

use jiff::civil::Date;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// One problem with a piece of input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Where it is: a JSON pointer (RFC 6901); empty for the whole input.
    pub pointer: String,
    /// What is wrong and what is expected, to follow the pointer: `is required`, `must be a string`.
    pub detail: String,
}

impl Violation {
    /// All violations on one line.
    pub fn list(violations: &[Self]) -> String {
        let all: Vec<_> = violations.iter().map(|v| format!("{}: {}", v.pointer, v.detail)).collect();
        all.join("; ")
    }
}

/// The JSON pointer to this member of the object, or item of the array, that `pointer` points to.
pub(crate) fn member(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Reads an object. Fields that `read` does not ask for are violations.
pub fn read_object<T>(value: &Value, read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>) -> Result<T, Vec<Violation>> {
    let mut violations = Vec::new();
    match object(value, String::new(), &mut violations, read) {
        Some(read) if violations.is_empty() => Ok(read),
        _ => Err(violations),
    }
}

fn object<T>(
    value: &Value,
    pointer: String,
    violations: &mut Vec<Violation>,
    read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>,
) -> Option<T> {
    let Value::Object(map) = value else {
        violations.push(Violation { pointer, detail: "must be an object".into() });
        return None;
    };
    let mut fields = Fields { map, pointer, asked: Vec::new(), may_have_others: false, violations };
    let result = read(&mut fields);
    let is_odd = |name: &&String| !fields.may_have_others && !fields.asked.contains(&name.as_str());
    for name in map.keys().filter(is_odd).collect::<Vec<_>>() {
        let pointer = fields.at(name);
        fields.violations.push(Violation { pointer, detail: "is not a field of this object".into() });
    }
    result
}

/// The fields of an object that is being read.
pub struct Fields<'v, 'e> {
    map: &'v Map<String, Value>,
    pointer: String,
    asked: Vec<&'static str>,
    may_have_others: bool,
    violations: &'e mut Vec<Violation>,
}

impl Fields<'_, '_> {
    fn at(&self, name: &str) -> String {
        member(&self.pointer, name)
    }

    /// Accepts unknown fields in this object: a newer program may have written it.
    pub fn ignore_others(&mut self) {
        self.may_have_others = true;
    }

    /// Reports a problem with this field.
    pub fn violation(&mut self, name: &str, detail: impl Into<String>) {
        let pointer = self.at(name);
        self.violations.push(Violation { pointer, detail: detail.into() });
    }

    /// Reports a problem with the object as a whole.
    pub fn violation_of_all(&mut self, detail: impl Into<String>) {
        self.violations.push(Violation { pointer: self.pointer.clone(), detail: detail.into() });
    }

    fn field<T>(&mut self, name: &'static str, read: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        self.asked.push(name);
        match self.map.get(name).map(read) {
            Some(Ok(value)) => return Some(value),
            Some(Err(detail)) => self.violation(name, detail),
            None => self.violation(name, "is required"),
        }
        None
    }

    /// A string that `parse` accepts.
    pub fn text<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.field(name, |value| parse(value.as_str().ok_or("must be a string")?))
    }

    /// A whole number from 1 to `most`.
    pub fn count(&mut self, name: &'static str, max: u32) -> Option<u32> {
        self.field(name, |value| match value.as_u64().and_then(|n| u32::try_from(n).ok()) {
            Some(n) if (1..=max).contains(&n) => Ok(n),
            _ => Err(format!("must be a whole number from 1 to {max}")),
        })
    }

    /// A civil date, `YYYY-MM-DD`.
    pub fn date(&mut self, name: &'static str) -> Option<Date> {
        self.text(name, |text| match text.parse::<Date>() {
            // Years before 0 are written with a sign and six digits.
            Ok(date) if text.len() == "YYYY-MM-DD".len() && date.to_string() == text => Ok(date),
            _ => Err("must be a date of the form YYYY-MM-DD".into()),
        })
    }

    /// A civil date that is not before `earliest`.
    pub fn date_since(&mut self, name: &'static str, earliest: Date) -> Option<Date> {
        let date = self.date(name)?;
        if date < earliest {
            self.violation(name, "is in the past");
        }
        Some(date)
    }

    /// A nested object, read by `read`.
    pub fn object<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>) -> Option<T> {
        self.asked.push(name);
        let pointer = self.at(name);
        match self.map.get(name) {
            Some(value) => object(value, pointer, self.violations, read),
            None => {
                self.violation(name, "is required");
                None
            }
        }
    }

    /// A nested object, if present. The outer result says whether it is.
    pub fn object_if_present<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>,
    ) -> Option<Option<T>> {
        self.map.contains_key(name).then(|| self.object(name, read))
    }

    /// A value of a type that implements `Deserialize`.
    pub fn value<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        self.field(name, |value| T::deserialize(value).map_err(|error| error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reports_everything_at_once() {
        let input = json!({"seats": 0, "date": "2027-02-30", "a/b": 1, "inner": {"x": 1}});
        let violations = read_object(&input, |fields| {
            let seats = fields.count("seats", 9);
            let date = fields.date("date");
            let name = fields.text("name", |s| Ok(s.to_owned()));
            fields.object("inner", |_| Some(()));
            Some((seats?, date?, name?))
        })
        .unwrap_err();
        let pointers: Vec<_> = violations.iter().map(|v| v.pointer.as_str()).collect();
        assert_eq!(pointers, ["/seats", "/date", "/name", "/inner/x", "/a~1b"]);
    }

    #[test]
    fn a_date_has_one_form() {
        for bad in
            ["2027-3-1", "20270301", "2027-03-01T00:00", "+002027-03-01", "-002027-03-01", " 2027-03-01", "2027-13-01"]
        {
            let read = read_object(&json!({ "d": bad }), |fields| fields.date("d"));
            assert!(read.is_err(), "{bad}");
        }
    }
}
