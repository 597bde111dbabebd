//! The same idempotent step written with Powertools for AWS Lambda, in Python and in TypeScript (`peers/`), on the same
//! local AWS, alternating with ours.

use std::{fs, path::Path, process::Command, time::Duration};

use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use base64::{Engine, engine::general_purpose::STANDARD};
use local_aws::LocalAwsOptions;
use serde_json::json;
use travel::FLIGHT;

use crate::{
    Outcome,
    process::{Process, fresh, program},
    report::{Report, median, percentile},
    step::Steps,
};

const ROUNDS: usize = 20;
const STEPS: usize = 20; // in a round
const WARM_UP: usize = 50;
const COUNTED: usize = 20;

/// Another implementation of the step.
struct Peer {
    name: &'static str,
    runtime: &'static str,
    /// A file in `target/peers` that exists once the peer is installed.
    file: &'static str,
    /// What is deployed, relative to `target/peers`.
    package: &'static str,
    needs: Option<&'static str>,
}

const PEERS: [Peer; 2] = [
    Peer {
        name: "Powertools, Python",
        runtime: "python3.12",
        file: "python/handler.py",
        package: "python",
        needs: None,
    },
    Peer {
        name: "Powertools, TypeScript",
        runtime: "nodejs20.x",
        file: "typescript/package/handler.js",
        package: "typescript/package",
        needs: Some("node"),
    },
];

const IDEMPOTENCY_TABLE: &str = "peers-idempotency";

/// One implementation of the step, deployed.
struct Way {
    name: &'static str,
    function: String,
    processor: Vec<f64>,
    latency: Vec<f64>,
    resident: f64,
    calls: f64,
}

pub(crate) async fn measure(report: &mut Report, steps: &mut Steps) -> Outcome<()> {
    report.part(
        "Peers",
        "The same step (take a seat if there is one, once per booking and step), written with Powertools' idempotency, on \
         the same local AWS, alternating with ours. Latency is the caller's: most of it is the emulator's, which talks to \
         Python and Node through a pipe, and to ours through the runtime API, as Lambda does.",
    );
    let installed = installed(report)?;
    let mut ways = deploy(steps, &installed).await?;
    for way in &ways {
        for _ in 0..WARM_UP {
            steps.reserve(&way.function).await?;
        }
    }
    for _ in 0..ROUNDS {
        for way in &mut ways {
            let process = Process::of_function(steps.stack(), &way.function)?;
            let before = process.processor_time()?;
            for _ in 0..STEPS {
                way.latency.push(milliseconds(steps.reserve(&way.function).await?));
            }
            way.processor.push(milliseconds(process.processor_time()? - before) / STEPS as f64);
            way.resident = process.resident()?;
        }
    }
    count(&mut ways, &installed).await?;
    let Some(ours) = ways.first() else { return Ok(()) };
    let (own_processor, own_latency) = (median(&ours.processor), median(&ours.latency));
    let rows = ways.iter().map(|way| {
        let (processor, latency) = (median(&way.processor), median(&way.latency));
        vec![
            way.name.to_owned(),
            format!("{:.1}", way.calls),
            format!("{processor:.2} ms"),
            format!("{:.1}", processor / own_processor),
            format!("{latency:.1} ms"),
            format!("{:.2}", latency / own_latency),
            format!("{:.1} ms", percentile(&way.latency, 99)),
            format!("{:.0} MB", way.resident),
        ]
    });
    report.table(
        &["", "DynamoDB calls", "processor", "× ours", "latency p50", "× ours", "p99", "resident"],
        rows.collect::<Vec<_>>(),
    );
    report.says(format_args!(
        "Calls are counted in the emulator's log over {COUNTED} steps. Processor time is that of the function's process, median of \
         {ROUNDS} × {STEPS}; the runtime around the peers' handlers is the emulator's, not Lambda's."
    ));
    let figures = ways.iter().map(|way| {
        json!({
            "name": way.name, "calls": way.calls, "processor_ms": median(&way.processor), "resident_mb": way.resident,
            "processor_of_ours": median(&way.processor) / own_processor, "latency_of_ours": median(&way.latency) / own_latency,
            "p50_ms": median(&way.latency), "p99_ms": percentile(&way.latency, 99),
        })
    });
    report.keep("peers", figures.collect());
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn installed(report: &mut Report) -> Outcome<Vec<&'static Peer>> {
    let folder = local_aws::checkout::root()?.join("target/peers");
    let mut installed = Vec::new();
    for peer in &PEERS {
        if let Some(needs) = peer.needs.filter(|needs| program(needs).is_none()) {
            report.skips(
                &format!("{} is not compared: there is no `{needs}`", peer.name),
                "Install Node.js 20 or later with npm",
            );
        } else if !folder.join(peer.file).exists() {
            report.skips(
                &format!("{} is not compared: it is not installed", peer.name),
                "Run `make bench` where its packages can be downloaded",
            );
        } else {
            installed.push(peer);
        }
    }
    Ok(installed)
}

/// Deploys the peers beside ours, with the same stock.
async fn deploy(steps: &Steps, peers: &[&Peer]) -> Outcome<Vec<Way>> {
    let stack = steps.stack();
    let dynamodb = store::client(&stack.sdk().await?);
    let id = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S).build()?;
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build()?;
    let table = dynamodb.create_table().table_name(IDEMPOTENCY_TABLE).billing_mode(BillingMode::PayPerRequest);
    table.attribute_definitions(id).key_schema(key).send().await?;
    let mut ways = vec![way("ours", &steps.flight)];
    let root = local_aws::checkout::root()?;
    for peer in peers {
        let name = format!("peer-{}", peer.package.split('/').next().unwrap_or_default());
        let environment = json!({
            "STOCK_TABLE": stack.stock_table(FLIGHT.name)?, "IDEMPOTENCY_TABLE": IDEMPOTENCY_TABLE,
            "POWERTOOLS_SERVICE_NAME": "peer",
        });
        let zip = zipped(&root, &root.join("target/peers").join(peer.package), &name)?;
        let function = json!({
            "FunctionName": name, "Runtime": peer.runtime, "Handler": "handler.handler", "Timeout": 10, "MemorySize": 256,
            "Role": "arn:aws:iam::000000000000:role/peer", "Code": {"ZipFile": STANDARD.encode(zip)},
            "Environment": {"Variables": environment},
        });
        let answer = steps.lambda.send("POST", "/2015-03-31/functions", &[], function.to_string()).await?;
        if answer.status != 201 {
            return Err(format!("{name} was not deployed: {}", answer.body).into());
        }
        ways.push(way(peer.name, &name));
    }
    Ok(ways)
}

fn way(name: &'static str, function: &str) -> Way {
    Way { name, function: function.to_owned(), processor: vec![], latency: vec![], resident: 0.0, calls: 0.0 }
}

/// A deployment package, built by the local AWS's own Python.
fn zipped(root: &Path, package: &Path, name: &str) -> Outcome<Vec<u8>> {
    let zip = crate::folder()?.join(name).with_extension("zip");
    let mut python = Command::new(root.join(".venv/bin/python"));
    python.args(["-m", "zipfile", "--create"]).arg(&zip);
    for entry in fs::read_dir(package)? {
        python.arg(entry?.path());
    }
    let made = python.output()?;
    if !made.status.success() {
        return Err(format!("{}: {}", zip.display(), String::from_utf8_lossy(&made.stderr)).into());
    }
    Ok(fs::read(zip)?)
}

/// Counts the calls of a step in the log of a local AWS that records every request.
async fn count(ways: &mut [Way], peers: &[&Peer]) -> Outcome<()> {
    let folder = crate::folder()?.join("calls");
    fresh(&folder)?;
    let log = folder.join("log");
    let env = vec![("LOG_LEVEL".to_owned(), "DEBUG".to_owned())];
    let mut steps = Steps::on(LocalAwsOptions { log: Some(log.clone()), env, ..LocalAwsOptions::default() }).await?;
    let calls = || -> Outcome<usize> {
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        Ok(text.lines().filter(|line| line.contains("-> service=dynamodb")).count())
    };
    let deployed = deploy(&steps, peers).await?;
    for (way, deployed) in ways.iter_mut().zip(deployed) {
        steps.reserve(&deployed.function).await?; // the first one may make extra calls
        let before = calls()?;
        for _ in 0..COUNTED {
            steps.reserve(&deployed.function).await?;
        }
        way.calls = (calls()? - before) as f64 / COUNTED as f64;
    }
    Ok(())
}
