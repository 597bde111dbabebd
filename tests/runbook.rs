//! Tries out docs/runbook.md: a service is broken, every command on the page is run as it stands there, in that order, and
//! at the end the booking has ended. Once for each variant.

#![allow(clippy::unwrap_used)]

use std::{ffi::OsString, path::Path, process::Command, time::Duration};

use end_to_end::{DEADLINE, House, date, start_with, trip_of};
use jiff::Timestamp;
use saga::{BookingId, Status, Variant};
use serde_json::json;
use traveller::{Client, TripRequest, client::fresh_key, scenarios::contradictions};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The commands of the page, each with the heading that it stands under.
fn commands() -> Vec<(String, String)> {
    let (mut commands, mut heading, mut inside) = (Vec::new(), String::new(), false);
    for line in include_str!("../docs/runbook.md").lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => commands.push((heading.clone(), line.to_owned())),
            _ => {
                if let Some(text) = line.strip_prefix("## ") {
                    heading = text.to_owned();
                }
            }
        }
    }
    commands
}

/// Runs a line of the page in the project's folder, against a stack of the test's own.
fn run(line: &str, stack: &Path, booking: &BookingId) -> String {
    let mut command = Command::new("sh");
    command.args(["-ec", line]).current_dir(ROOT).env_clear();
    // As a user's shell has it: of what Cargo sets for tests, build scripts would think that everything has changed.
    let kept =
        |(name, _): &(OsString, OsString)| ["PATH", "HOME", "RUSTUP_HOME", "CARGO_HOME"].iter().any(|k| name == k);
    command.envs(std::env::vars_os().filter(kept));
    let done = command.env("HARMONY_STACK_FILE", stack).env("BOOKING", booking.as_str()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{line}: {}\n{said}\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    said
}

#[tokio::test]
async fn every_command_of_the_runbook_does_what_it_says() {
    let mut trying = tokio::task::JoinSet::new();
    for variant in Variant::ALL {
        trying.spawn(try_out(variant));
    }
    trying.join_all().await;
}

async fn try_out(variant: Variant) {
    let name = format!("runbook-{}", variant.name());
    let parameters = [("MaxReceiveCount", "2"), ("PendingMaxAgeSeconds", "86400"), ("PatienceSeconds", "2")];
    let local = start_with(&name, &parameters, &[("SFN_WAIT_SCALE", "0.02")]);
    let house = House::of(local.stack()).await;
    let api = Client::new(&house.stack.api_url).unwrap();
    let file = std::env::temp_dir().join(format!("{name}-{}.json", std::process::id()));
    std::fs::write(&file, serde_json::to_vec(local.stack()).unwrap()).unwrap();

    let request = TripRequest { variant, ..TripRequest::on(date()) };
    house.seed(&trip_of(&request), 5).await;
    let right = house.reconfigure("car", "JOURNAL_TABLE", "no-such-table").await;
    let id = api.book_accepted(&request, &fresh_key("runbook")).await.unwrap().booking_id;
    let deadline = Timestamp::now() + 3 * DEADLINE;
    // Locally the schedule is not waited for.
    while api.show(&id).await.unwrap().status != Status::NeedsOperator {
        assert!(Timestamp::now() < deadline, "{:#?}", api.show(&id).await.unwrap());
        house.invoke("reconciler", &json!({"source": "aws.events"})).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    let mut is_mended = false;
    for (heading, line) in commands() {
        if heading.starts_with("3.") && !is_mended {
            house.reconfigure("car", "JOURNAL_TABLE", &right).await; // step 2 of the page: put the cause right
            is_mended = true;
        }
        let (to_run, stack, booking) = (line.clone(), file.clone(), id.clone());
        let said = tokio::task::spawn_blocking(move || run(&to_run, &stack, &booking)).await.unwrap();
        match (heading.as_str(), line.split(' ').nth(1)) {
            (h, Some("parked")) if h.starts_with("1.") => assert!(said.contains(id.as_str()), "{line}: {said}"),
            (h, Some("show")) if h.starts_with("1.") => {
                assert!(said.contains("needs_operator") && said.contains("car.cancel"), "{line}: {said}");
            }
            (h, Some("redrive")) if h.starts_with("3.") => assert!(said.contains("failed"), "{line}: {said}"),
            (h, Some("parked")) if h.starts_with("4.") => assert!(!said.contains(id.as_str()), "{line}: {said}"),
            (h, Some("redrive")) if h.starts_with("4.") => assert!(said.contains("failed"), "{line}: {said}"),
            (h, Some("show")) if h.starts_with("4.") => assert!(said.contains("failed"), "{line}: {said}"),
            _ => panic!("the page has a command under {heading:?} that this test knows nothing of: {line}"),
        }
    }
    assert!(is_mended);
    let booking = api.show(&id).await.unwrap();
    assert_eq!(booking.status, Status::Failed);
    assert_eq!(booking.reason.as_ref().unwrap().step.as_deref(), Some("car.reserve"));
    assert_eq!(contradictions(&booking), Vec::<String>::new());
    assert_eq!(house.left(&request).await, [vec![5], vec![5; 3], vec![5; 3]]);
    std::fs::remove_file(&file).unwrap();
}
