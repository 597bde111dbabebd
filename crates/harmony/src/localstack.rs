//! Deploys to a running LocalStack: checks that it runs, and uses the SAM CLI for the rest, as a user would.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde::Deserialize;

use local_aws::{
    cloud::{Cloud, CloudError},
    stack::complaint,
};
use traveller::{Answer, Client, ClientError};

/// The template to deploy, relative to the project's folder: the output of `sam build`.
pub const TEMPLATE: &str = ".aws-sam/build/template.yaml";

/// The health endpoints of LocalStack, and of its fork localemu.
const HEALTH: [&str; 2] = ["/_localstack/health", "/_localemu/health"];
/// How long a health check may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the SAM CLI may take. It takes a minute on a slow machine.
const DEPLOY: Duration = Duration::from_secs(300);
const SERVICES: [&str; 13] = [
    "apigateway",
    "cloudformation",
    "cloudwatch",
    "dynamodb",
    "events",
    "iam",
    "lambda",
    "logs",
    "s3",
    "sns",
    "sqs",
    "stepfunctions",
    "sts",
];

/// Why nothing is deployed.
#[derive(Debug, thiserror::Error)]
pub enum LocalStackError {
    /// There is no address for LocalStack.
    #[error(
        "AWS_ENDPOINT_URL is not set: start LocalStack (LOCALSTACK_AUTH_TOKEN=… localstack start -d; it needs its \
         own token since March 2026), then export AWS_ENDPOINT_URL=http://localhost:4566"
    )]
    NoEndpoint,
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// Nothing listens at the address.
    #[error(
        "no LocalStack answers at {endpoint} ({cause}): start it (LOCALSTACK_AUTH_TOKEN=… localstack start -d), or \
         correct AWS_ENDPOINT_URL"
    )]
    NoAnswer { endpoint: String, cause: String },
    /// Something other than LocalStack is at the address.
    #[error("{endpoint} is not LocalStack: it answers {answer} to GET {}; correct AWS_ENDPOINT_URL", HEALTH[0])]
    Other { endpoint: String, answer: String },
    /// It lacks services that the template uses.
    #[error("LocalStack at {endpoint} does not offer {services}: start it without SERVICES, or with these in it")]
    Services { endpoint: String, services: String },
    /// The SAM CLI is missing.
    #[error("`sam` cannot be run ({0}): `make localstack` installs it and tries again")]
    NoSam(io::Error),
    /// The log of `sam` cannot be written.
    #[error("{path} cannot be written: {cause}")]
    Log { path: PathBuf, cause: io::Error },
    /// `sam` failed.
    #[error("sam {what} failed: {output}; see {log}, and LocalStack's own log: functions need Docker where it runs")]
    Failed {
        /// The `sam` command.
        what: &'static str,
        output: String,
        log: PathBuf,
    },
    /// `sam` took too long, and was ended.
    #[error("sam {what} has not ended after {} s: see {log}, and LocalStack's own log", DEPLOY.as_secs())]
    Late {
        /// The `sam` command.
        what: &'static str,
        log: PathBuf,
    },
}

/// A running LocalStack.
#[derive(Clone, Debug)]
pub struct LocalStack {
    cloud: Cloud,
    endpoint: String,
    root: PathBuf,
    logs: PathBuf,
}

#[derive(Deserialize)]
struct Health {
    services: BTreeMap<String, String>,
}

impl LocalStack {
    /// The LocalStack at `AWS_ENDPOINT_URL`, if it runs and has the services that are needed. The logs of `sam` go into
    /// `logs`.
    pub async fn find(root: &Path, logs: PathBuf) -> Result<Self, LocalStackError> {
        let cloud = match Cloud::resolve().await {
            Err(CloudError::NoRegion) => return Err(LocalStackError::NoEndpoint),
            resolved => resolved?,
        };
        let Cloud::Emulator { endpoint, .. } = &cloud else { return Err(LocalStackError::NoEndpoint) };
        let endpoint = endpoint.clone();
        let mut first = String::new();
        for path in HEALTH {
            let answer = ask(&endpoint, path).await?;
            if let Ok(Health { services }) = answer.json() {
                let missing = missing(&services);
                return if missing.is_empty() {
                    Ok(Self { cloud, endpoint, root: root.to_owned(), logs })
                } else {
                    Err(LocalStackError::Services { endpoint, services: missing.join(", ") })
                };
            }
            if first.is_empty() {
                first = answer.status.to_string();
            }
        }
        Err(LocalStackError::Other { endpoint, answer: first })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub async fn deploy(&self, stack_name: &str, parameters: &[(String, String)]) -> Result<(), LocalStackError> {
        let mut sam = self.cloud.sam().await;
        sam.args(["deploy", "--template-file", TEMPLATE, "--stack-name", stack_name, "--resolve-s3"]);
        sam.args(["--capabilities", "CAPABILITY_IAM", "--no-confirm-changeset", "--no-fail-on-empty-changeset"]);
        if !parameters.is_empty() {
            sam.arg("--parameter-overrides").args(parameters.iter().map(|(key, value)| format!("{key}={value}")));
        }
        self.run(sam, "deploy")
    }

    /// Deletes the stack and everything that was uploaded for it.
    pub async fn delete(&self, stack_name: &str) -> Result<(), LocalStackError> {
        let mut sam = self.cloud.sam().await;
        sam.args(["delete", "--stack-name", stack_name, "--no-prompts"]);
        self.run(sam, "delete")
    }

    fn run(&self, mut sam: Command, what: &'static str) -> Result<(), LocalStackError> {
        let log = self.logs.join(format!("localstack-{what}.log"));
        let cause = |cause| LocalStackError::Log { path: log.clone(), cause };
        fs::create_dir_all(&self.logs).map_err(cause)?;
        let stdout = File::create(&log).map_err(cause)?;
        let stderr = stdout.try_clone().map_err(cause)?;
        // No standard input: it must fail instead of asking questions.
        sam.current_dir(&self.root).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let sam = sam.spawn().map_err(LocalStackError::NoSam)?;
        match end(sam, DEPLOY).map_err(LocalStackError::NoSam)? {
            None => Err(LocalStackError::Late { what, log }),
            Some(true) => Ok(()),
            Some(false) => {
                let output = complaint(&String::from_utf8_lossy(&fs::read(&log).map_err(cause)?));
                Err(LocalStackError::Failed { what, output, log })
            }
        }
    }
}

async fn ask(endpoint: &str, path: &str) -> Result<Answer, LocalStackError> {
    let no_answer = |cause| LocalStackError::NoAnswer { endpoint: endpoint.to_owned(), cause };
    let client = Client::new(endpoint).map_err(|_| no_answer("it must begin with http:// or https://".into()))?;
    match tokio::time::timeout(ANSWER, client.send("GET", path, &[], "")).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(ClientError::NoAnswer { cause, .. })) => Err(no_answer(cause)),
        Ok(Err(error)) => Err(no_answer(error.to_string())),
        Err(_) => Err(no_answer(format!("there was no answer within {} s", ANSWER.as_secs()))),
    }
}

/// The services that are needed but missing.
fn missing(services: &BTreeMap<String, String>) -> Vec<&'static str> {
    let is_there = |name: &&str| services.get(*name).is_some_and(|state| state != "disabled" && state != "error");
    SERVICES.into_iter().filter(|name| !is_there(name)).collect()
}

/// Whether a program succeeded; none if it did not end in time and was killed.
fn end(mut child: Child, within: Duration) -> io::Result<Option<bool>> {
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(state: &str) -> BTreeMap<String, String> {
        SERVICES.iter().map(|name| ((*name).to_owned(), state.to_owned())).collect()
    }

    #[test]
    fn a_service_is_there_unless_it_is_disabled_or_broken_or_unknown() {
        assert!(missing(&services("available")).is_empty());
        assert!(missing(&services("running")).is_empty());
        assert_eq!(missing(&services("disabled")), SERVICES);
        let mut some = services("running");
        some.insert("lambda".into(), "error".into());
        some.remove("sns");
        assert_eq!(missing(&some), ["lambda", "sns"]);
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let hangs = Command::new("sleep").arg("60").spawn().unwrap();
        let started = Instant::now();
        assert_eq!(end(hangs, Duration::from_millis(200)).unwrap(), None);
        assert!(started.elapsed() < Duration::from_secs(30));
        assert_eq!(end(Command::new("true").spawn().unwrap(), DEPLOY).unwrap(), Some(true));
        assert_eq!(end(Command::new("false").spawn().unwrap(), DEPLOY).unwrap(), Some(false));
    }

    #[test]
    fn no_server_and_another_server_are_distinguished() {
        use std::{io::Write, net::TcpListener};
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            io::Read::read(&mut stream, &mut [0; 1024]).unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").unwrap();
        });
        let answer = runtime.block_on(ask(&endpoint, HEALTH[0])).unwrap();
        assert_eq!((answer.status, answer.json::<Health>().is_err()), (404, true));
        other.join().unwrap();
        let error = runtime.block_on(ask(&endpoint, HEALTH[0])).unwrap_err().to_string();
        assert!(error.starts_with(&format!("no LocalStack answers at {endpoint} (")), "{error}");
        assert!(error.contains("LOCALSTACK_AUTH_TOKEN") && !error.contains('\n'), "{error}");
    }
}
