//! Holds the template against the rules of the house.

use std::collections::BTreeSet;

use end_to_end::deployed::{logical, merged, sellers, template};
use serde_yaml_ng::Value;

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
    let names: BTreeSet<_> = tables.iter().map(|(name, _)| name.clone()).collect();
    let common = ["BookingsTable", "JournalTable", "PaymentsTable", "ProviderLedgerTable", "TravellersTable"];
    let of_sellers = sellers().into_iter().map(|part| logical(part, "StockTable"));
    assert_eq!(names, common.map(str::to_owned).into_iter().chain(of_sellers).collect());
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

/// So that whoever knows a part's name can call its seller: the state machine puts the ARN together.
#[test]
fn every_seller_is_named_after_its_part() {
    let functions = resources("AWS::Serverless::Function");
    for part in sellers() {
        let name = logical(part, "Function");
        let (_, function) = functions.iter().find(|(function, _)| *function == name).expect("a function");
        assert_eq!(reference(&function["FunctionName"]), format!("${{AWS::StackName}}-{part}"));
        assert_eq!(function["CodeUri"], format!("functions/{part}/"), "{name}");
    }
    let machine = &resources("AWS::Serverless::StateMachine")[0].1;
    let prefix = reference(&machine["DefinitionSubstitutions"]["SellerArnPrefix"]);
    let arn = "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:${AWS::StackName}-";
    assert_eq!(prefix, arn);
}

/// The one list of the reconciler: where each participant's messages end that were given up.
#[test]
fn the_reconciler_knows_the_dead_letters_of_every_participant() {
    let functions = resources("AWS::Serverless::Function");
    let (_, reconciler) = functions.iter().find(|(name, _)| name == "ReconcilerFunction").expect("the reconciler");
    let Value::Tagged(joined) = &reconciler["Environment"]["Variables"]["DEAD_LETTERS"] else { panic!("no !Join") };
    assert_eq!((joined.tag.to_string().as_str(), &joined.value[0]), ("!Join", &",".into()));
    let listed: BTreeSet<_> = joined.value[1].as_sequence().expect("a list").iter().map(reference).collect();
    let queues = resources("AWS::SQS::Queue");
    let queue = |function: &str| {
        let mappings = resources("AWS::Lambda::EventSourceMapping");
        let mapping = mappings.iter().find(|(_, mapping)| reference(&mapping["FunctionName"]) == function);
        let inbox = reference(&mapping.expect("a mapping").1["EventSourceArn"]).trim_end_matches(".Arn").to_owned();
        let (_, inbox) = queues.iter().find(|(name, _)| *name == inbox).expect("an inbox");
        reference(&inbox["RedrivePolicy"]["deadLetterTargetArn"]).trim_end_matches(".Arn").to_owned()
    };
    let participants =
        sellers().into_iter().map(|part| part.to_string()).chain(["payment", "booking"].map(str::to_owned));
    let wanted = participants.map(|name| format!("{name}=${{{}}}", queue(&logical(&name, "Function"))));
    assert_eq!(listed, wanted.collect::<Vec<_>>().iter().map(String::as_str).collect());
}

/// A seller is one block and a line in each list of all of them. Whoever reacts to sellers names none of them.
#[test]
fn no_part_is_named_but_in_its_own_block_and_in_lists() {
    let text = include_str!("../template.yaml");
    let (before, rest) = text
        .split_once(
            "  # ---------------------------------------------------------------- the participants that sell stock\n",
        )
        .expect("the sellers");
    let (_, after) = rest
        .split_once("  # ---------------------------------------------------------------- the orchestrated variant\n")
        .expect("what follows them");
    for part in sellers() {
        let (own, capital) = (part.to_string(), logical(part, ""));
        let begins = |line: &str, at: usize| !line[..at].ends_with(char::is_alphabetic);
        let ends = |line: &str, at: usize| !line[at..].starts_with(char::is_alphabetic);
        let lists = [
            format!("- !GetAtt {capital}Function.Arn"),
            format!("- !GetAtt {capital}DeadLetters.Arn"),
            format!("- !Sub \"{own}=${{{capital}DeadLetters}}\""),
            format!("- !Ref {capital}Inbox"),
            format!("- !Ref {capital}DeadLetters"),
            format!("!Ref {capital}Inbox, !Ref {capital}DeadLetters,"),
        ];
        let mut listed = 0;
        for line in before.lines().chain(after.lines()).filter(|line| !line.trim().starts_with('#')) {
            let by_name = line.match_indices(&own).any(|(at, _)| begins(line, at) && ends(line, at + own.len()));
            if by_name || line.match_indices(&capital).any(|(at, _)| begins(line, at)) {
                let is_output = line.starts_with(&format!("  {capital}StockTableName: "));
                assert!(is_output || lists.iter().any(|list| line.ends_with(list.as_str())), "{part}: {line}");
                listed += 1;
            }
        }
        assert_eq!(listed, lists.len() + 1, "{part} is missing in a list");
    }
}

/// What is said beside a merge key counts more than what is merged, however deep that is.
#[test]
fn what_is_merged_is_read_as_yaml_has_it() {
    let text = "{a: &a {x: 1, y: 1}, b: &b {<<: *a, y: 2}, c: {z: {<<: *b, x: 3}}}";
    let expected = "{a: {x: 1, y: 1}, b: {x: 1, y: 2}, c: {z: {x: 3, y: 2}}}";
    assert_eq!(merged(text), serde_yaml_ng::from_str::<Value>(expected).expect("YAML"));
    let template = template();
    for (name, resource) in template["Resources"].as_mapping().expect("resources") {
        assert!(resource["Type"].is_string(), "{name:?} has no type");
    }
}

/// Of a length that can be read; and a seller more is at most 70 lines more, and none in the state machine.
#[test]
fn the_template_and_the_state_machine_stay_short() {
    let (template, machine) = (include_str!("../template.yaml"), include_str!("../statemachines/booking.asl.json"));
    for (text, most) in [(template, 1300 + 70 * (sellers().len() - 3)), (machine, 420)] {
        assert!(text.lines().count() <= most, "{} lines, of {most}", text.lines().count());
        let long: Vec<_> = text.lines().filter(|line| line.chars().count() > 140).collect();
        assert!(long.is_empty(), "{long:#?}");
    }
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
