//! `template.yaml` as the tests read it: with what is merged, and with the sellers that it has. No test names them.

use saga::PartName;
use serde_yaml_ng::Value;

/// The template, with what is merged.
pub fn template() -> Value {
    merged(include_str!("../template.yaml"))
}

/// YAML with its merge keys carried out, however deep they are: each round takes one level of what is merged.
pub fn merged(text: &str) -> Value {
    let mut value: Value = serde_yaml_ng::from_str(text).unwrap();
    while is_to_merge(&value) {
        value.apply_merge().unwrap();
    }
    value
}

fn is_to_merge(value: &Value) -> bool {
    match value {
        Value::Mapping(fields) => fields.iter().any(|(key, value)| *key == "<<" || is_to_merge(value)),
        Value::Sequence(items) => items.iter().any(is_to_merge),
        Value::Tagged(tagged) => is_to_merge(&tagged.value),
        _ => false,
    }
}

/// The parts that are sold: each has a function that has a table of stock.
pub fn sellers() -> Vec<PartName> {
    let template = template();
    let resources = template["Resources"].as_mapping().unwrap();
    let functions = resources.iter().filter(|(_, resource)| resource["Type"] == "AWS::Serverless::Function");
    let sells =
        functions.filter(|(_, function)| !function["Properties"]["Environment"]["Variables"]["STOCK_TABLE"].is_null());
    let names: Vec<_> =
        sells.map(|(name, _)| name.as_str().unwrap().trim_end_matches("Function").to_lowercase()).collect();
    let parts: Vec<_> = names.iter().map(|name| PartName::try_from(name.as_str()).unwrap()).collect();
    assert!(parts.len() >= 3, "the template has no more sellers than {parts:?}");
    for part in &parts {
        assert!(resources.contains_key(logical(*part, "StockTable")), "{part} has a stock table of another name");
    }
    let tables = resources.keys().filter(|name| name.as_str().unwrap().ends_with("StockTable"));
    assert_eq!(tables.count(), parts.len(), "a table of stock that belongs to nobody");
    parts
}

/// What the template calls what belongs to a participant: of `hotel` and `Inbox`, `HotelInbox`.
pub fn logical(participant: impl ToString, of: &str) -> String {
    let name = participant.to_string();
    format!("{}{}{of}", name[..1].to_uppercase(), &name[1..])
}
