//! A deployed stack: the address of its API, the names of its tables, and how to reach the AWS that it is on.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use aws_types::SdkConfig;
use jiff::SignedDuration;
use saga::PartName;
use serde::{Deserialize, Serialize};

use crate::cloud::{self, Cloud, CloudError};

pub(crate) type Outputs = BTreeMap<String, String>;

/// What is known about a deployed stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// The address of all services of a local AWS; none for AWS itself.
    pub endpoint: Option<String>,
    /// The region; none if the environment or the profile selects it.
    pub region: Option<String>,
    /// The address of the HTTP API, without a trailing slash.
    pub api_url: String,
    pub outputs: Outputs,
    /// The process id of a local AWS.
    pub pid: Option<u32>,
}

/// Why a stack cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// Another, or an older, template was deployed.
    #[error("the stack has no output {0}: deploy this project's template.yaml again")]
    NoOutput(String),
    /// The file that `harmony local` keeps cannot be used.
    #[error("{path} cannot be used: {cause}; run `harmony down`, then remove it")]
    File { path: PathBuf, cause: io::Error },
    /// The named file cannot be used.
    #[error("{path} does not describe a stack: {cause}; it has to be a file as `harmony local` writes it")]
    NoStack { path: PathBuf, cause: io::Error },
    /// The outputs of a stack are read with the SAM CLI.
    #[error("`sam` cannot be run ({0}): install the AWS SAM CLI, or give --api-url if only the API is needed")]
    NoSam(io::Error),
    /// There is no such stack, or no permission to read it.
    #[error("the outputs of the stack {stack} cannot be read: {output}; check its name, {and}")]
    NotFound {
        stack: String,
        output: String,
        /// What else to check.
        and: &'static str,
    },
    #[error(transparent)]
    Cloud(#[from] CloudError),
}

/// The suffix of the outputs with the names of the stock tables.
const STOCK: &str = "StockTableName";

/// The prefix of the logical names of this part's resources: `Flight`.
pub fn logical(part: PartName) -> String {
    let (first, rest) = part.as_str().split_at(1); // an ASCII letter
    first.to_uppercase() + rest
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    output_key: String,
    output_value: String,
}

impl Stack {
    /// The stack with this name, as the SAM CLI sees it, on the AWS or emulator that environment and profile select.
    pub async fn deployed(name: &str) -> Result<Self, StackError> {
        let cloud = Cloud::resolve().await?;
        let mut sam = cloud.sam().await;
        sam.args(["list", "stack-outputs", "--output", "json", "--stack-name", name]);
        let answer = sam.output().map_err(StackError::NoSam)?;
        let (output, complaints) = (String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
        let not_found = |output: &str| StackError::NotFound {
            stack: name.to_owned(),
            output: complaint(output),
            and: match cloud {
                Cloud::Aws(_) => "AWS_REGION and AWS_PROFILE",
                Cloud::Emulator { .. } => "AWS_REGION and AWS_ENDPOINT_URL",
            },
        };
        if !answer.status.success() {
            return Err(not_found(&complaints));
        }
        Self::from_outputs(&output, &cloud).map_err(|error| match error {
            FromOutputs::Unreadable(cause) => not_found(&format!("sam does not list outputs ({cause})")),
            FromOutputs::NoApi(error) => error,
        })
    }

    fn from_outputs(json: &str, cloud: &Cloud) -> Result<Self, FromOutputs> {
        let outputs: Vec<Output> = serde_json::from_str(json).map_err(FromOutputs::Unreadable)?;
        let outputs = outputs.into_iter().map(|output| (output.output_key, output.output_value)).collect();
        let mut stack = Self { endpoint: None, region: None, api_url: String::new(), outputs, pid: None };
        stack.api_url = stack.output("ApiUrl").map_err(FromOutputs::NoApi)?.trim_end_matches('/').to_owned();
        if let Cloud::Emulator { endpoint, region } = cloud {
            // The output has AWS's host, or one that only resolves inside LocalStack's own container.
            let api = stack.output("ApiId").map_err(FromOutputs::NoApi)?;
            stack.api_url = format!("{endpoint}/_aws/execute-api/{api}/live");
            (stack.endpoint, stack.region) = (Some(endpoint.clone()), Some(region.clone()));
        }
        Ok(stack)
    }

    /// The stack that a file describes, in the form that [`Running`] writes.
    pub fn from_file(path: &Path) -> Result<Self, StackError> {
        let cause = |cause| StackError::NoStack { path: path.to_owned(), cause };
        let text = fs::read_to_string(path).map_err(cause)?;
        serde_json::from_str(&text).map_err(|error| cause(error.into()))
    }

    /// Whether it is on a local AWS of `harmony local`: others run functions in containers, which takes longer.
    pub fn is_on_local_aws(&self) -> bool {
        self.pid.is_some()
    }

    /// Whether it is on a local AWS or another emulator, where no data is worth keeping.
    pub fn is_local(&self) -> bool {
        self.endpoint.is_some()
    }

    pub fn output(&self, name: &str) -> Result<&str, StackError> {
        self.outputs.get(name).map(String::as_str).ok_or_else(|| StackError::NoOutput(name.to_owned()))
    }

    /// The age from which the reconciler drives a booking again.
    pub fn pending_max_age(&self) -> Result<SignedDuration, StackError> {
        Ok(SignedDuration::from_secs(self.number("PendingMaxAgeSeconds")?.into()))
    }

    /// How long journal items are kept.
    pub fn journal_retention(&self) -> Result<SignedDuration, StackError> {
        Ok(SignedDuration::from_hours(24 * i64::from(self.number("JournalRetentionDays")?)))
    }

    fn number(&self, output: &str) -> Result<u32, StackError> {
        self.output(output)?.parse().map_err(|_| StackError::NoOutput(format!("{output} that is a number")))
    }

    /// The parts that are sold, in alphabetical order.
    pub fn parts(&self) -> Vec<PartName> {
        let sold = |name: &str| PartName::try_from(name.strip_suffix(STOCK)?.to_lowercase()).ok();
        let mut parts: Vec<_> = self.outputs.keys().filter_map(|name| sold(name)).collect();
        parts.sort_unstable();
        parts
    }

    pub fn stock_table(&self, part: PartName) -> Result<&str, StackError> {
        self.output(&format!("{}{STOCK}", logical(part)))
    }

    pub fn payments_table(&self) -> Result<&str, StackError> {
        self.output("PaymentsTableName")
    }

    pub fn provider_ledger_table(&self) -> Result<&str, StackError> {
        self.output("ProviderLedgerTableName")
    }

    pub fn bookings_table(&self) -> Result<&str, StackError> {
        self.output("BookingsTableName")
    }

    pub fn customers_table(&self) -> Result<&str, StackError> {
        self.output("TravellersTableName")
    }

    pub fn journal_table(&self) -> Result<&str, StackError> {
        self.output("JournalTableName")
    }

    pub fn state_machine_arn(&self) -> Result<&str, StackError> {
        self.output("StateMachineArn")
    }

    /// The queue of parked steps, which need an operator.
    pub fn parked_queue_url(&self) -> Result<&str, StackError> {
        self.output("ParkedQueueUrl")
    }

    /// The dead-letter queues, one per queue that feeds functions.
    pub fn dead_letter_queue_urls(&self) -> Result<impl Iterator<Item = &str>, StackError> {
        let urls = self.output("DeadLetterQueueUrls")?;
        Ok(urls.split(',').map(str::trim).filter(|url| !url.is_empty()))
    }

    pub fn reconciler_function_name(&self) -> Result<&str, StackError> {
        self.output("ReconcilerFunctionName")
    }

    /// The configuration for the SDK's clients: of the stack's emulator, whatever the environment has, or of AWS.
    pub async fn sdk(&self) -> Result<SdkConfig, StackError> {
        if let Some(endpoint) = &self.endpoint {
            return Ok(cloud::emulator(endpoint, self.region.clone().unwrap_or_else(|| cloud::REGION.to_owned())));
        }
        match Cloud::resolve().await? {
            Cloud::Aws(sdk) => Ok(*sdk),
            Cloud::Emulator { endpoint, .. } => Err(CloudError::Elsewhere(endpoint).into()),
        }
    }
}

/// A program's error output in one line: the last line, or everything from the last `Error:` on.
pub fn complaint(output: &str) -> String {
    let last = output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no answer");
    let complaint = output.rfind("Error: ").map_or(last, |at| &output[at + "Error: ".len()..]);
    complaint.split_whitespace().collect::<Vec<_>>().join(" ")
}

enum FromOutputs {
    Unreadable(serde_json::Error),
    NoApi(StackError),
}

/// A claim to run this project's `harmony local`, held by a lock on a file, which the system releases when the process
/// ends, however it ends. So the file beside it is valid exactly while the lock is held. Cleaning the checkout removes
/// both files, so [`Running::keep`] restores them.
#[derive(Debug)]
pub struct Running {
    folder: PathBuf,
    lock: File,
}

/// The announcement of `harmony local` for other commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningStack {
    /// The process id of `harmony local`.
    pub harmony_pid: u32,
    #[serde(flatten)]
    pub stack: Stack,
}

const STACK: &str = "stack.json";

fn lock_file(folder: &Path) -> PathBuf {
    folder.join("lock")
}

/// The lock, unless another process holds it for longer than a short look.
fn lock_soon(folder: &Path) -> Result<Option<File>, StackError> {
    for _ in 0..5 {
        if let Some(lock) = lock(folder)? {
            return Ok(Some(lock));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(None)
}

fn lock(folder: &Path) -> Result<Option<File>, StackError> {
    let path = lock_file(folder);
    let cause = |cause| StackError::File { path: path.clone(), cause };
    // Not its parents: a deleted checkout must not be created again.
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(cause(error)),
        Ok(()) | Err(_) => {}
    }
    let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(cause)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(cause(error)),
    }
}

impl Running {
    /// The folder for this checkout's own files: `.harmony` in the project's folder.
    pub fn folder(root: &Path) -> PathBuf {
        root.join(".harmony")
    }

    /// Claims the project; none if another process has claimed it.
    pub fn claim(folder: &Path) -> Result<Option<Self>, StackError> {
        let Some(lock) = lock_soon(folder)? else { return Ok(None) };
        let running = Self { folder: folder.to_owned(), lock };
        running.forget(); // left by a process that was killed
        Ok(Some(running))
    }

    /// Claims and announces again if the files are gone, as after `git clean -fdx`. Returns whether the claim still
    /// holds: it does not if another process was faster.
    pub fn keep(&mut self, stack: &Stack) -> Result<bool, StackError> {
        let held = self.lock.metadata().map_err(|cause| StackError::File { path: lock_file(&self.folder), cause })?;
        let is_there = fs::metadata(lock_file(&self.folder))
            .is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino()));
        if !is_there {
            let Some(lock) = lock_soon(&self.folder)? else { return Ok(false) };
            self.lock = lock;
        }
        if !is_there || !self.folder.join(STACK).exists() {
            self.announce(stack)?;
        }
        Ok(true)
    }

    /// Lets other commands find the stack.
    pub fn announce(&self, stack: &Stack) -> Result<(), StackError> {
        let path = self.folder.join(STACK);
        let cause = |cause| StackError::File { path: path.clone(), cause };
        let found = RunningStack { harmony_pid: process::id(), stack: stack.clone() };
        let json = serde_json::to_vec_pretty(&found).map_err(|error| cause(error.into()))?;
        // Written aside and renamed, so that no reader sees half of it.
        let aside = self.folder.join("stack.json.new");
        fs::write(&aside, json).and_then(|()| fs::rename(&aside, &path)).map_err(cause)
    }

    /// The announcement of this project's `harmony local`; none if none runs or it is not ready yet.
    pub fn find(folder: &Path) -> Result<Option<RunningStack>, StackError> {
        if !Self::is_claimed(folder)? {
            return Ok(None);
        }
        let path = folder.join(STACK);
        let cause = |cause| StackError::File { path: path.clone(), cause };
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| cause(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cause(error)),
        }
    }

    /// Whether this project's `harmony local` runs, ready or not.
    pub fn is_claimed(folder: &Path) -> Result<bool, StackError> {
        Ok(folder.is_dir() && lock(folder)?.is_none())
    }

    fn forget(&self) {
        let _ = fs::remove_file(self.folder.join(STACK)); // usually there is none
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUTS: &str = r#"[
        {"OutputKey": "ApiUrl", "OutputValue": "https://x.execute-api.eu-central-1.amazonaws.com/live/", "Description": "…"},
        {"OutputKey": "ApiId", "OutputValue": "x"},
        {"OutputKey": "CarStockTableName", "OutputValue": "cars"},
        {"OutputKey": "DeadLetterQueueUrls", "OutputValue": "https://sqs/1/flight-dead, https://sqs/1/car-dead,"}
    ]"#;

    fn aws() -> Cloud {
        Cloud::Aws(Box::new(SdkConfig::builder().build()))
    }

    #[test]
    fn a_stack_is_what_its_outputs_say() {
        let Ok(stack) = Stack::from_outputs(OUTPUTS, &aws()) else { panic!("not read") };
        assert_eq!(stack.api_url, "https://x.execute-api.eu-central-1.amazonaws.com/live");
        assert_eq!(stack.stock_table(PartName::new("car")).unwrap(), "cars");
        let urls: Vec<_> = stack.dead_letter_queue_urls().unwrap().collect();
        assert_eq!(urls, ["https://sqs/1/flight-dead", "https://sqs/1/car-dead"]);
        assert!(!stack.is_local());
        let error = stack.stock_table(PartName::new("hotel")).unwrap_err().to_string();
        assert_eq!(error, "the stack has no output HotelStockTableName: deploy this project's template.yaml again");
        assert!(matches!(Stack::from_outputs("[]", &aws()), Err(FromOutputs::NoApi(_))));
        assert!(matches!(Stack::from_outputs("Error", &aws()), Err(FromOutputs::Unreadable(_))));
    }

    #[test]
    fn on_an_emulator_the_api_is_there_too() {
        let there = Cloud::Emulator { endpoint: "http://localhost:4566".into(), region: "eu-west-1".into() };
        let Ok(stack) = Stack::from_outputs(OUTPUTS, &there) else { panic!("not read") };
        assert_eq!(stack.api_url, "http://localhost:4566/_aws/execute-api/x/live");
        assert_eq!(stack.endpoint.as_deref(), Some("http://localhost:4566"));
        assert_eq!(stack.region.as_deref(), Some("eu-west-1"));
        assert!(stack.is_local() && !stack.is_on_local_aws());
    }

    #[test]
    fn what_went_wrong_is_one_line() {
        assert_eq!(complaint("Deploying\n\nError: no such\n  stack\n"), "no such stack");
        assert_eq!(complaint("first\n last \n\n"), "last");
        assert_eq!(complaint(""), "no answer");
    }

    #[test]
    fn a_stack_is_found_while_its_process_has_the_project_and_no_longer() {
        let folder = std::env::temp_dir().join(format!("harmony-test-{}", process::id()));
        let Ok(stack) = Stack::from_outputs(OUTPUTS, &aws()) else { panic!("not read") };
        assert_eq!(Running::find(&folder).unwrap(), None);
        let running = Running::claim(&folder).unwrap().unwrap();
        assert!(Running::claim(&folder).unwrap().is_none(), "claimed twice");
        assert_eq!(Running::find(&folder).unwrap(), None, "not ready yet");
        running.announce(&stack).unwrap();
        let found = Running::find(&folder).unwrap().unwrap();
        assert_eq!((found.harmony_pid, &found.stack), (process::id(), &stack));
        assert_eq!(Stack::from_file(&folder.join(STACK)).unwrap(), stack);
        drop(running);
        assert_eq!(Running::find(&folder).unwrap(), None);
        assert!(!folder.join(STACK).exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_claim_survives_its_files() {
        let folder = std::env::temp_dir().join(format!("harmony-test-kept-{}", process::id()));
        let Ok(stack) = Stack::from_outputs(OUTPUTS, &aws()) else { panic!("not read") };
        let mut running = Running::claim(&folder).unwrap().unwrap();
        running.announce(&stack).unwrap();
        assert!(running.keep(&stack).unwrap());
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(Running::find(&folder).unwrap(), None, "cleaned away");
        assert!(running.keep(&stack).unwrap());
        assert_eq!(Running::find(&folder).unwrap().unwrap().stack, stack);
        assert!(Running::claim(&folder).unwrap().is_none(), "claimed twice");

        fs::remove_dir_all(&folder).unwrap();
        let other = Running::claim(&folder).unwrap().unwrap();
        assert!(!running.keep(&stack).unwrap(), "another process was faster");
        drop((running, other));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_that_describes_no_stack_is_reported_by_name() {
        let error = Stack::from_file(Path::new("/there/is/none")).unwrap_err().to_string();
        assert!(error.starts_with("/there/is/none does not describe a stack: "), "{error}");
    }
}
