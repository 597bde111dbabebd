//! The program `harmony` as a shell runs it: what it says, and how it exits, whatever answers, breaks or interrupts.

#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const ID: &str = "0123456789abcdef0123456789abcdef";
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, with nothing of this machine's AWS configuration.
fn harmony(arguments: &[&str]) -> Command {
    let program = env::current_exe().unwrap().ancestors().nth(2).unwrap().join("harmony");
    assert!(program.exists(), "{} is missing: run `make build`", program.display());
    let mut harmony = Command::new(program);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if ["AWS_", "HARMONY_"].iter().any(|prefix| name.starts_with(prefix)) {
            harmony.env_remove(&*name);
        }
    }
    harmony.args(arguments).env("AWS_EC2_METADATA_DISABLED", "true").stdin(Stdio::null());
    harmony.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    harmony
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn signal(name: &str, pid: u32) {
    // The shell has `kill` built in; the program is not on every machine.
    let kill = ["-c", "kill \"$1\" \"$2\"", "sh", name, &pid.to_string()];
    assert!(Command::new("sh").args(kill).status().unwrap().success());
}

/// A folder that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let unique = format!("harmony {name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(unique);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a server does with a request.
#[derive(Clone)]
enum Reply {
    Answer(u16, &'static str, String),
    HangUp,
    Nothing,
}

/// Stands for the API, a proxy or a broken network: it answers one request after the other, and the last reply for ever.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let nth = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(request(&stream));
                    seen.len() - 1
                };
                match replies.get(nth).or(replies.last()).unwrap() {
                    Reply::Answer(status, content_type, body) => {
                        let length = body.len();
                        let head = format!("HTTP/1.1 {status} x\r\ncontent-type: {content_type}\r\n");
                        let _ = write!(stream, "{head}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
                    }
                    Reply::HangUp => drop(stream),
                    Reply::Nothing => held.push(stream),
                }
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// One request, with its body.
fn request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {
        let line = head.lines().last().unwrap_or_default().to_lowercase();
        length = line.strip_prefix("content-length:").map_or(length, |length| length.trim().parse().unwrap());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn html(status: u16) -> Reply {
    Reply::Answer(status, "text/html", "<html>\u{1b}[2Jproxy</html>".into())
}

fn accepted() -> Reply {
    let body = json!({"booking_id": ID, "variant": "orchestrated", "status": "pending", "new": {"field": true}});
    Reply::Answer(202, "application/json", body.to_string())
}

fn booking(status: &str) -> Reply {
    let page = fs::read_to_string(format!("{ROOT}/docs/command-line.md")).unwrap();
    let json = page.split("### show").nth(1).unwrap().split("```json").nth(1).unwrap().split("```").next().unwrap();
    let mut booking: Value = serde_json::from_str(json).unwrap();
    booking["status"] = json!(status);
    booking["booking_id"] = json!(ID);
    booking["new"] = json!([1]);
    Reply::Answer(200, "application/json", booking.to_string())
}

fn problem(status: u16) -> Reply {
    let body = json!({"type": "t", "title": "No", "status": status, "detail": "not\u{7} this way"});
    Reply::Answer(status, "application/problem+json", body.to_string())
}

#[test]
fn whatever_answers_a_booking_the_key_is_told() {
    let cases = [
        (html(200), 7),
        (html(502), 7),
        (Reply::HangUp, 7),
        (Reply::Answer(202, "application/json", "{}".into()), 7),
        (html(302), 7),
        (html(407), 6),
        (problem(429), 6),
    ];
    for (nth, (reply, code)) in cases.into_iter().enumerate() {
        let server = Server::start(vec![reply]);
        let key = format!("my-key-{nth}");
        let output = harmony(&["book", "--key", &key, "--date", "2099-01-01", "--api-url", &server.url]).output();
        let (exit, out, err) = said(&output.unwrap());
        assert_eq!(exit, code, "{err}");
        assert!(out.starts_with(&format!("key       {key}\n")), "{out}");
        assert!(err.contains(&format!("--key {key} --date 2099-01-01")) && err.lines().count() == 1, "{err}");
        assert!(!err.contains('\u{1b}') && !err.trim_end().contains(char::is_control), "{err:?}");
        assert!(server.requests()[0].contains(&format!("idempotency-key: {key}")), "{:?}", server.requests());
    }
    let (exit, _, err) = book(&Server::start(vec![problem(422)]), &[]);
    assert_eq!(exit, 6, "{err}");
    assert!(!err.contains("--key"), "the same again would be refused again: {err}");
}

fn book(server: &Server, more: &[&str]) -> (i32, String, String) {
    said(&harmony(&[&["book", "--api-url", &server.url], more].concat()).output().unwrap())
}

#[test]
fn it_waits_through_everything_that_can_pass() {
    let replies = [accepted(), Reply::HangUp, html(502), html(407), html(200), problem(429), booking("pending")];
    for (status, code) in [("confirmed", 0), ("failed", 3), ("needs_operator", 4)] {
        let server = Server::start([&replies[..], &[booking(status)]].concat());
        let (exit, out, err) = book(&server, &["--json"]);
        assert_eq!(exit, code, "{out}{err}");
        let printed: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&printed["booking"]["status"], &printed["error"]), (&json!(status), &Value::Null));
        let key = printed["idempotency_key"].as_str().unwrap();
        assert_eq!(err, format!("Idempotency-Key: {key}\n"));
        let show = harmony(&["show", ID, "--api-url", &server.url]).output().unwrap();
        assert_eq!(said(&show).0, 0, "it is shown");
        let show = harmony(&["show", ID, "--wait", "--api-url", &server.url]).output().unwrap();
        assert_eq!(said(&show).0, code, "it has ended so");
    }
    let (exit, _, err) = book(&Server::start(vec![accepted(), problem(401)]), &[]);
    assert_eq!(exit, 5, "{err}");
    assert!(err.contains(&format!("booking {ID} is accepted")) && err.contains("harmony show"), "{err}");
}

#[test]
fn whoever_interrupts_it_knows_how_to_go_on() {
    for (replies, name, code, hint) in [
        (vec![Reply::Nothing], "-INT", 130, "--key k1 --date"),
        (vec![accepted(), booking("pending")], "-INT", 130, "harmony show 0123456789abcdef0123456789abcdef --wait"),
        (vec![accepted(), Reply::Nothing], "-TERM", 143, "harmony show 0123456789abcdef0123456789abcdef --wait"),
    ] {
        let server = Server::start(replies.clone());
        let mut book = harmony(&["book", "--json", "--key", "k1", "--api-url", &server.url]);
        let book = book.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while server.requests().len() < replies.len() {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(5));
        }
        signal(name, book.id());
        let (exit, out, err) = said(&book.wait_with_output().unwrap());
        assert_eq!(exit, code, "{err}");
        assert!(err.starts_with("Idempotency-Key: k1\n") && err.contains(hint), "{err}");
        let printed: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(printed["idempotency_key"], "k1");
        assert_eq!(printed["booking_id"], if replies.len() > 1 { json!(ID) } else { Value::Null });
    }
}

#[test]
fn what_never_left_is_named() {
    let server = Server::start(vec![accepted()]);
    for (arguments, code, named) in [
        (vec!["--key", "a\nb", "--api-url", &server.url], 2, "--key"),
        (vec!["--id-token", "secret\r", "--api-url", &server.url], 6, "was not sent: the token of --id-token"),
        (vec!["--api-url", ""], 2, "--api-url is empty"),
        (vec!["--stack-name", ""], 2, "--stack-name is empty"),
        (vec!["--api-url", "http://"], 1, "is not the address of an API"),
    ] {
        let (exit, _, err) = said(&harmony(&[&["book"], &arguments[..]].concat()).output().unwrap());
        assert_eq!(exit, code, "{arguments:?}: {err}");
        assert!(err.contains(named) && !err.contains("no answer") && !err.contains("secret"), "{err}");
    }
    let mut signed = harmony(&["book", "--sign", "--api-url", &server.url]);
    signed.env("AWS_REGION", "eu-west-1").env("AWS_ACCESS_KEY_ID", "AKIA").env("AWS_SECRET_ACCESS_KEY", "s");
    let (exit, _, err) = said(&signed.env("AWS_SESSION_TOKEN", "token\n2").output().unwrap());
    assert_eq!(exit, 6, "{err}");
    assert!(err.contains("the AWS session token has a character"), "{err}");
    assert_eq!(server.requests(), Vec::<String>::new());
    // Set to nothing in the environment is not set.
    let (_, _, err) = said(&harmony(&["book"]).env("HARMONY_API_URL", "").env("HARMONY_ROOT", "/").output().unwrap());
    assert!(!err.contains("is empty"), "{err}");
}

/// A folder that is a project as far as the program looks: what is not made there belongs to the real one.
fn checkout(name: &str) -> Folder {
    let folder = Folder::new(name);
    for part in ["Makefile", "template.yaml", "samconfig.toml", "crates", "statemachines", "target", ".venv"] {
        symlink(format!("{ROOT}/{part}"), folder.0.join(part)).unwrap();
    }
    folder
}

fn script(path: &Path, lines: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Stands for the SAM CLI of a checkout, whatever it is asked.
fn sam(checkout: &Path, lines: &str) {
    for program in ["python", "sam"] {
        script(&checkout.join(".venv-dev/bin").join(program), lines);
    }
}

#[test]
fn an_endpoint_in_the_profile_is_where_everything_goes() {
    let server = Server::start(vec![accepted(), booking("confirmed")]);
    let checkout = checkout("profile");
    let outputs = json!([
        {"OutputKey": "ApiUrl", "OutputValue": "https://x.execute-api.eu-west-1.amazonaws.com/live"},
        {"OutputKey": "ApiId", "OutputValue": "x"},
    ]);
    // It says where it was sent, and with whose credentials.
    let asked = checkout.0.join("asked");
    let said = "$AWS_ENDPOINT_URL $AWS_ACCESS_KEY_ID $AWS_DEFAULT_REGION $AWS_PROFILE";
    sam(&checkout.0, &format!("echo \"{said}\" > '{}'\necho '{outputs}'", asked.display()));
    let config = checkout.0.join("config");
    let profile = "[profile work]\nregion = eu-west-1\naws_access_key_id = AKIAREAL\naws_secret_access_key = s\n";
    fs::write(&config, format!("{profile}endpoint_url = {}/\n", server.url)).unwrap();
    let mut book = harmony(&["book", "--stack-name", "trips"]);
    book.env("HARMONY_ROOT", &checkout.0).env("AWS_CONFIG_FILE", &config).env("AWS_PROFILE", "work");
    let output = book.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_to_string(&asked).unwrap(), format!("{} test eu-west-1 \n", server.url));
    assert!(server.requests()[0].starts_with("POST /_aws/execute-api/x/live/bookings "), "{:?}", server.requests());
}

/// `harmony local`, which is told to end if a test fails.
struct Local(Child);

impl Drop for Local {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            signal("-TERM", self.0.id());
            let _ = self.0.wait();
        }
    }
}

/// Starts `harmony local` with SIGHUP ignored, as `nohup` does, and waits until it is ready.
fn local_without_hang_up(checkout: &Path) -> Local {
    let local = harmony(&["local", "--days", "40"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(local.get_program()).args(local.get_args());
    shell.env("HARMONY_ROOT", checkout).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut local = Local(shell.spawn().unwrap());
    let mut said = BufReader::new(local.0.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("Nothing is kept.") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended");
    }
    local
}

#[test]
fn a_local_aws_outlives_its_terminal_and_its_files_and_is_found() {
    let checkout = checkout("local");
    let mut local = local_without_hang_up(&checkout.0);
    let run = |arguments: &[&str]| said(&harmony(arguments).env("HARMONY_ROOT", &checkout.0).output().unwrap());
    let files = checkout.0.join(".harmony");
    let stack: Value = serde_json::from_slice(&fs::read(files.join("stack.json")).unwrap()).unwrap();
    for pid in [u64::from(local.0.id()), stack["pid"].as_u64().unwrap()] {
        signal("-HUP", u32::try_from(pid).unwrap());
    }
    let (exit, out, err) = run(&["book", "--json"]);
    assert_eq!(exit, 0, "{out}{err}");
    let booked: Value = serde_json::from_str(&out).unwrap();
    let id = booked["booking_id"].as_str().unwrap();

    // What `git clean -fdx` does.
    fs::remove_dir_all(&files).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let shown = loop {
        let (exit, out, _) = run(&["show", id, "--json"]);
        if exit == 0 {
            break serde_json::from_str::<Value>(&out).unwrap();
        }
        assert!(Instant::now() < deadline, "it is not found again");
    };
    assert_eq!(shown["booking_id"], booked["booking_id"]);
    assert_eq!(shown["timeline"], booked["booking"]["timeline"]);

    let (exit, _, err) = run(&["book", "--token", "tok_declined"]);
    assert_eq!(exit, 3, "{err}");
    // A booking that does not exist: nothing is sent that only the console could remove.
    let (exit, _, err) = run(&["redrive", "--booking", ID]);
    assert_eq!(exit, 1);
    assert!(err.contains(&format!("there is no booking {ID} in this stack, and nothing was sent")), "{err}");
    let (exit, out, err) = run(&["redrive", "--booking", id, "--json"]);
    assert_eq!(exit, 0, "{err}");
    let redriven: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(redriven["bookings"], json!([{"booking_id": id, "status": "confirmed", "error": null}]));
    let (exit, out, _) = run(&["parked", "--json"]);
    assert_eq!((exit, serde_json::from_str(&out).unwrap()), (0, json!({"messages": [], "held": 0, "failed": []})));
    let (exit, out, _) = run(&["audit", "--all-ended", "--json"]);
    let audited: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((exit, &audited["violations"], &audited["bookings"]["confirmed"]), (0, &json!([]), &json!(1)));

    // `make clean` ends it, rather than to leave it running without its files.
    let program = harmony(&[]).get_program().to_owned().into_string().unwrap();
    let mut clean = Command::new("make");
    clean.args(["clean", &format!("HARMONY={program}")]).current_dir(&checkout.0).env("HARMONY_ROOT", &checkout.0);
    let clean = clean.output().unwrap();
    assert!(clean.status.success(), "{clean:?}");
    assert!(local.0.wait().unwrap().success());
    assert!(!files.exists() && Path::new(ROOT).join("target").exists());
}

#[test]
fn every_kind_of_profile_is_understood() {
    let folder = Folder::new("profiles");
    let here = |name: &str| folder.0.join(name);
    let credentials = json!({"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "s", "SessionToken": "t"});
    script(&here("log-in"), &format!("echo '{credentials}'"));
    let process = format!("credential_process = \"{}\"", here("log-in").display());
    let sso = "sso_session = s\nsso_account_id = 1\nsso_role_name = r\n[sso-session s]\nsso_region = eu-west-1\n\
               sso_start_url = https://example.awsapps.com/start";
    let login = "login_session = arn:aws:iam::123456789012:user/me";
    // With the other two nobody has logged in, so nothing is sent. Without their features that would be the reason.
    for (settings, code) in [(process.as_str(), 0), (sso, 6), (login, 6)] {
        let server = Server::start(vec![accepted(), booking("confirmed")]);
        fs::write(here("config"), format!("[default]\nregion = eu-west-1\n{settings}\n")).unwrap();
        let mut book = harmony(&["book", "--sign", "--api-url", &server.url]);
        book.env("HOME", &folder.0).env("AWS_CONFIG_FILE", here("config"));
        let (exit, _, err) = said(&book.output().unwrap());
        assert_eq!(exit, code, "{settings}: {err}");
        assert!(!err.contains("feature"), "{settings}: {err}");
        assert!(code != 0 || server.requests()[0].contains("Credential=AKIAPROCESS/"), "{:?}", server.requests());
    }
}
