//! Holds the template against the rules of the house.

use std::collections::BTreeSet;

use serde_yaml_ng::Value;

fn template() -> Value {
    serde_yaml_ng::from_str(include_str!("../template.yaml")).expect("the template is YAML")
}

fn resources(kind: &str) -> Vec<(String, Value)> {
    let template = template();
    let all = template["Resources"].as_mapping().expect("resources");
    let of_kind = all.iter().filter(|(_, resource)| resource["Type"].as_str() == Some(kind));
    of_kind
        .map(|(name, resource)| (name.as_str().expect("a name").to_owned(), resource["Properties"].clone()))
        .collect()
}

/// The text behind a short-form intrinsic function such as `!Ref X`.
fn reference(value: &Value) -> &str {
    match value {
        Value::Tagged(tagged) => tagged.value.as_str().unwrap_or_default(),
        other => other.as_str().unwrap_or_default(),
    }
}

/// Every table is encrypted. Without a specification it is so with the key that DynamoDB owns; `SSEEnabled: true` would be
/// a key in the account, which KMS charges for:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.howitworks.html>.
#[test]
fn every_table_is_billed_per_request_backed_up_and_encrypted_for_nothing() {
    let tables = resources("AWS::DynamoDB::Table");
    assert_eq!(tables.len(), 8);
    for (name, table) in tables {
        assert_eq!(table["BillingMode"], "PAY_PER_REQUEST", "{name}");
        assert_eq!(table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"], true, "{name}");
        assert_eq!(table["SSESpecification"], Value::Null, "{name}");
        let Value::Tagged(protected) = &table["DeletionProtectionEnabled"] else { panic!("{name} is not protected") };
        assert_eq!(protected.value[0], "IsProtected", "{name}");
    }
}

#[test]
fn who_travels_is_deleted_in_the_end_and_kept_nowhere_else() {
    for (name, table) in resources("AWS::DynamoDB::Table") {
        let expires = table["TimeToLiveSpecification"]["AttributeName"] == "expiration";
        assert_eq!(expires, name == "TravellersTable" || name == "JournalTable", "{name}");
    }
    let api = &resources("AWS::Serverless::Api")[0].1;
    let Value::Tagged(setting) = &api["AccessLogSetting"] else { panic!("access logs are not by parameter") };
    let format = setting.value[1]["Format"].as_str().expect("a format");
    // https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-variables-for-access-logging.html
    for personal in
        ["identity", "authorizer", "caller", "sourceIp", "path\"", "$context.path\"", "userAgent", "requestOverride"]
    {
        assert!(!format.contains(personal), "{personal} is logged: {format}");
    }
}

#[test]
fn every_queue_and_topic_refuses_what_does_not_come_through_tls() {
    let refuses = |policy: &Value| {
        let statements = policy["PolicyDocument"]["Statement"].as_sequence().expect("statements");
        statements.iter().any(|statement| {
            statement["Effect"] == "Deny"
                && statement["Principal"] == "*"
                && statement["Condition"]["Bool"]["aws:SecureTransport"] == "false"
        })
    };
    let mut covered = BTreeSet::new();
    for (kind, list) in [("AWS::SQS::QueuePolicy", "Queues"), ("AWS::SNS::TopicPolicy", "Topics")] {
        for (name, policy) in resources(kind) {
            assert!(refuses(&policy), "{name} lets plain HTTP in");
            for of in policy[list].as_sequence().expect(list) {
                assert!(covered.insert(reference(of).to_owned()), "{of:?} has two policies, of which one holds");
            }
        }
    }
    let all = resources("AWS::SQS::Queue").into_iter().chain(resources("AWS::SNS::Topic"));
    assert_eq!(covered, all.map(|(name, _)| name).collect());
}

#[test]
fn every_function_logs_to_a_group_that_forgets() {
    let groups = resources("AWS::Logs::LogGroup");
    for (name, function) in resources("AWS::Serverless::Function") {
        let group = reference(&function["LoggingConfig"]["LogGroup"]).to_owned();
        let found = groups.iter().find(|(name, _)| *name == group).unwrap_or_else(|| panic!("{name} logs to no group"));
        assert_eq!(reference(&found.1["RetentionInDays"]), "LogRetentionDays", "{group}");
    }
}

#[test]
fn every_function_is_a_folder_and_every_folder_a_function() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../functions");
    let folders: BTreeSet<_> = std::fs::read_dir(root)
        .expect("functions")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let deployed: BTreeSet<_> = resources("AWS::Serverless::Function")
        .iter()
        .map(|(_, function)| function["CodeUri"].as_str().expect("CodeUri"))
        .map(|uri| uri.trim_start_matches("functions/").trim_end_matches('/').to_owned())
        .collect();
    assert_eq!(folders, deployed);
}

#[test]
fn the_state_machine_gets_exactly_the_substitutions_that_it_uses() {
    let machines = resources("AWS::Serverless::StateMachine");
    let given: BTreeSet<_> = machines[0].1["DefinitionSubstitutions"]
        .as_mapping()
        .expect("substitutions")
        .keys()
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect();
    let used: BTreeSet<_> = include_str!("../statemachines/booking.asl.json")
        .split("${")
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(given, used);
}

/// In GovCloud and in China ARNs begin differently:
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html>.
#[test]
fn nothing_is_bound_to_one_partition() {
    for (file, text) in [
        ("template.yaml", include_str!("../template.yaml")),
        ("booking.asl.json", include_str!("../statemachines/booking.asl.json")),
    ] {
        for (number, line) in text.lines().enumerate() {
            assert!(!line.contains("arn:aws"), "{file}, line {}: {line}", number + 1);
        }
    }
}

#[test]
fn every_parameter_and_output_says_what_it_is() {
    let template = template();
    for section in ["Parameters", "Outputs"] {
        for (name, value) in template[section].as_mapping().expect(section) {
            assert!(value["Description"].as_str().is_some_and(|text| !text.is_empty()), "{name:?}");
        }
    }
    for (name, parameter) in template["Parameters"].as_mapping().expect("parameters") {
        let bounded = ["AllowedValues", "AllowedPattern", "MinValue"].iter().any(|bound| !parameter[*bound].is_null());
        assert!(bounded, "{name:?} takes anything");
    }
}
