//! A stack whose functions have fault points, and what is seen of them.

use super::*;

pub(super) struct Lab {
    pub(super) stack: &'static str,
    pub(super) _local: LocalAws, // runs as long as this value lives
    pub(super) house: House,
    pub(super) api: Client,
    pub(super) date: Date,
    pub(super) folder: PathBuf,
    pub(super) trace: Vec<Passed>,
    pub(super) read: u64,
    pub(super) armed: usize,
}

impl Lab {
    pub(super) async fn called(stack: &'static str) -> Self {
        let functions = root().join("target/faults");
        assert!(functions.is_dir(), "there are no functions with fault points: run `make faults`");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(fresh_key("faults"));
        fs::create_dir_all(&folder).unwrap();
        let local = start_of(
            stack,
            &[("PendingMaxAgeSeconds", "86400"), ("MaxReceiveCount", "30"), ("MaxDrives", "1000")],
            &[("LAMBDA_ASYNC_RETRY_BASE_SECONDS", RETRY_SECONDS), ("HARMONY_FAULTS", folder.to_str().unwrap())],
            Some(functions),
        );
        let house = House::of(local.stack()).await;
        let api = Client::new(&house.stack.api_url).unwrap();
        for inbox in inboxes() {
            let request = house.sqs().await.set_queue_attributes().queue_url(house.queue(&inbox).await);
            let request = request.attributes(QueueAttributeName::VisibilityTimeout, VISIBILITY_SECONDS);
            request.send().await.unwrap();
        }
        let date = date();
        let trip = TripRequest::on(date);
        house.seed(&trip_of(&trip), UNITS).await;
        let sold_out = scenario("hotel sold out").request(trip, Variant::Orchestrated);
        house.seed_part(&part_of(&sold_out, HOTEL.name), 0).await;
        Self { stack, _local: local, house, api, date, folder, trace: Vec::new(), read: 0, armed: 0 }
    }

    /// Reads what was added to the trace.
    pub(super) fn look(&mut self) {
        let Ok(mut file) = fs::File::open(self.folder.join("trace")) else { return };
        file.seek(SeekFrom::Start(self.read)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        self.trace.extend(text[..whole].lines().map(Passed::read));
    }

    /// Puts a fault where the functions look for it.
    pub(super) fn arm(&mut self, word: &str, fault: &Fault) -> PathBuf {
        self.armed += 1;
        let file = self.folder.join(format!("{word}.{}.json", self.armed));
        let aside = file.with_extension("new");
        fs::write(&aside, fault.to_json(self.stack).to_string()).unwrap();
        fs::rename(&aside, &file).unwrap();
        file.with_extension("fired")
    }

    /// The bookings that have not ended.
    pub(super) async fn open(&self) -> BTreeSet<String> {
        let (open, errors) = self.house.headers().open_before(Timestamp::now()).await;
        assert!(errors.is_empty(), "{errors:?}");
        open.iter().map(ToString::to_string).collect()
    }

    /// Waits until all of these have ended.
    pub(super) async fn all_end(&self, cases: impl IntoIterator<Item = &Case>) {
        let cases: Vec<_> = cases.into_iter().collect();
        let deadline = Timestamp::now() + PATIENCE;
        loop {
            let open = self.open().await;
            let left: Vec<_> = cases.iter().filter(|case| open.contains(case.id.as_str())).collect();
            if left.is_empty() {
                return;
            }
            let names: Vec<_> = left.iter().map(ToString::to_string).collect();
            assert!(Timestamp::now() < deadline, "{} have not ended:\n{}", left.len(), names.join("\n"));
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Waits until there is nothing left in the queues that functions are fed from.
    pub(super) async fn all_received(&self) {
        let deadline = Timestamp::now() + PATIENCE;
        for queue in inboxes() {
            while self.house.depth(&queue).await > 0 {
                assert!(Timestamp::now() < deadline, "{queue} is not emptied");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Books one to which nothing happens, or nothing but what its scenario is about, and returns the points that it
    /// passed, each with the result that is known after it.
    pub(super) async fn watch(&mut self, what: What) -> Points {
        for _ in 0..10 {
            let case = Case::new(what, self.date, None);
            self.arm_for(&case);
            assert_eq!(post(&self.api, &case).await, 1);
            self.all_end([&case]).await;
            let booking = self.api.show(&case.id).await.unwrap();
            self.check(&case, &booking);
            if !is_overtaken(&case, &booking) {
                return self.passed_by(&case, expected(what)).await;
            }
        }
        panic!("{}: a cancel always comes first", Case::new(what, self.date, None));
    }

    /// The points that a booking has passed, once there are so many tasks and requests.
    pub(super) async fn passed_by(&mut self, case: &Case, expected: (usize, usize)) -> Points {
        let deadline = Timestamp::now() + DEADLINE;
        loop {
            self.look();
            let about = self.trace.iter().filter(|passed| passed.after && case.is_about(passed));
            let is_of_show =
                |point: &Point| point.function == "api" && ["GetItem", "Query"].contains(&&*point.operation);
            let about = about.filter(|passed| !is_of_show(&passed.point));
            let points: Points = about.map(|passed| (passed.point.clone(), passed.result.clone())).collect();
            let tasks = points.keys().filter(|point| point.is_task()).count();
            if (tasks, points.len() - tasks) == expected {
                return points;
            }
            let names: Vec<_> = points.keys().map(ToString::to_string).collect();
            assert!(
                Timestamp::now() < deadline && points.len() < expected.0 + expected.1,
                "{case} passed {tasks} tasks and {} requests:\n{}",
                points.len() - tasks,
                names.join("\n")
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Puts a booking's faults where the functions look for them. Returns the file that tells where its own struck.
    pub(super) fn arm_for(&mut self, case: &Case) -> Option<PathBuf> {
        if case.scenario.name == GIVES_UP.name {
            // As often as the hotel is asked.
            let attempts = if case.variant == Variant::Orchestrated { 5 } else { 3 };
            let at = Point {
                function: HOTEL.name.to_string(),
                operation: "TransactWriteItems".into(),
                words: [Step::Reserve(HOTEL.name).to_string(), "COMPLETED".into()].into(),
            };
            for _ in 0..attempts {
                self.arm(case.id.as_str(), &Fault::Crash { at: at.clone(), after: false, status: Value::Null });
            }
        }
        let fault = case.fault.as_ref()?;
        let word = match fault {
            Fault::Crash { at, .. } | Fault::LoseReply { at } | Fault::LoseEvent { at } => case.word_at(at),
        };
        Some(self.arm(word, fault))
    }

    /// Sends these bookings, each with its fault, and waits for the end of those that end by themselves. Returns them
    /// with the files that tell where each fault struck.
    ///
    /// A booking that does not come to its fault is booked again. Two things keep it from that, neither of them often:
    /// another one's fault in the same batch of messages is quicker; or, as events race, a cancel comes before its
    /// reserve, and then that part's price is never noted.
    pub(super) async fn send(&mut self, cases: Vec<Case>) -> Vec<(Case, PathBuf)> {
        let (mut sent, mut left) = (Vec::new(), cases);
        for _ in 0..5 {
            let armed: Vec<_> = left.into_iter().map(|case| (self.arm_for(&case).unwrap(), case)).collect();
            let (mut clients, turn) = (JoinSet::new(), Arc::new(Semaphore::new(CLIENTS)));
            for (_, case) in armed.clone() {
                let (api, turn) = (self.api.clone(), turn.clone());
                clients.spawn(async move {
                    let _turn = turn.acquire().await.unwrap();
                    let meets_its_fault = case.fault.as_ref().is_some_and(Fault::hits_the_client);
                    assert_eq!(post(&api, &case).await, if meets_its_fault { 2 } else { 1 }, "{case}");
                });
            }
            clients.join_all().await;
            self.all_end(armed.iter().map(|(_, case)| case).filter(|case| !case.needs_the_reconciler())).await;
            let deadline = Timestamp::now() + DEADLINE;
            let is_waiting = |(fired, _): &&(PathBuf, Case)| !fired.exists();
            while armed.iter().any(|each| is_waiting(&each)) && Timestamp::now() < deadline {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            left = Vec::new();
            for (fired, case) in armed {
                if fs::remove_file(fired.with_extension("json")).is_ok() {
                    left.push(Case::new(case.what(), self.date, case.fault.clone()));
                } else {
                    sent.push((case, fired));
                }
            }
            if left.is_empty() {
                return sent;
            }
        }
        panic!("{} never come to their faults, such as {}", left.len(), left[0]);
    }

    /// Waits until each fault has struck, where it was meant to, and what it interrupted was begun again and done.
    pub(super) async fn all_struck(&mut self, sent: &[(Case, PathBuf)]) {
        let deadline = Timestamp::now() + PATIENCE;
        let mut left: Vec<_> = sent.iter().collect();
        loop {
            self.look();
            let mut waiting = Vec::new();
            for pair @ (case, fired) in left {
                let fault = case.fault.as_ref().unwrap();
                let Ok(struck) = fs::read_to_string(fired) else {
                    waiting.push((pair, "did not strike"));
                    continue;
                };
                let struck = Passed::read(&struck);
                fault.check(&struck, case.variant).unwrap_or_else(|wrong| panic!("{case}: {wrong}"));
                if !fault.loses_an_event() && !self.was_repeated(case, &struck) {
                    waiting.push((pair, "struck, and was not mended"));
                }
            }
            if waiting.is_empty() {
                return;
            }
            let names: Vec<_> = waiting.iter().map(|((case, _), why)| format!("{case} {why}")).collect();
            assert!(Timestamp::now() < deadline, "{}", names.join("\n"));
            left = waiting.into_iter().map(|(pair, _)| pair).collect();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Holds all tables against what must always be true, with the command that users have: see `make audit`.
    pub(super) async fn audit(&self) -> Vec<String> {
        let file = std::env::temp_dir().join(format!("harmony-crashes-{}.json", std::process::id()));
        fs::write(&file, serde_json::to_vec(&self.house.stack).unwrap()).unwrap();
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/harmony"));
        command.args(["audit", "--all-ended", "--brief"]).env("HARMONY_STACK_FILE", &file);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        fs::remove_file(&file).unwrap();
        let [said, complaints] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        let violations: Vec<_> =
            said.lines().filter(|line| line.starts_with("violation ")).map(str::to_owned).collect();
        assert_eq!(output.status.success(), violations.is_empty(), "{said}\n{complaints}");
        assert!(said.contains(&format!(": {} violation", violations.len())), "{said}\n{complaints}");
        violations
    }

    pub(super) async fn nothing_was_given_up(&self) {
        for queue in dead_letters() {
            assert_eq!(self.house.depth(&queue).await, 0, "{queue}");
        }
    }

    /// How a booking has to have ended, whatever happened to it meanwhile.
    pub(super) fn check(&self, case: &Case, booking: &Booking) {
        let reason = booking.reason.as_ref().map(|reason| (reason.step.clone(), reason.code.as_str()));
        let expected = case.scenario.expected;
        assert_eq!(
            (booking.status, reason),
            (expected.status, expected.reason.map(|(step, code)| (Some(step.to_string()), code))),
            "{case}: {booking:#?}"
        );
        assert_eq!(contradictions(booking), Vec::<String>::new(), "{case}");
        let parts: BTreeSet<_> = booking.parts().into_iter().map(|(part, _)| part).collect();
        assert_eq!(parts, case.plan.iter().map(|part_type| part_type.name).collect(), "{case}");
    }

    /// Whether what a booking's fault interrupted was begun again, and done: by whom it is for to do so.
    pub(super) fn was_repeated(&self, case: &Case, struck: &Passed) -> bool {
        let mut about = self.trace.iter().filter(|passed| case.is_about(passed));
        // Of the tasks of a batch it is the one that the process began last: all of them come again.
        let mut task = None;
        for passed in about.by_ref() {
            if passed.point.is_task() && passed.pid == struck.pid && !passed.after {
                task = Some(&passed.point);
            }
            if passed == struck {
                break;
            }
        }
        let task = if struck.point.is_task() { Some(&struck.point) } else { task };
        let mut later = about.filter(|passed| Some(&passed.point) == task);
        later.any(|passed| !passed.after) && later.any(Passed::is_done)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder); // a function that is still at work may be writing there
        }
    }
}
