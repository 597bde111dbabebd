//! Explores both variants, and prints what was found: `model [--whole] [--stories]`. `--whole` explores all worlds, and
//! not only those of the tests; `--stories` tells how each broken twin goes wrong. Ends with an error if anything is not
//! as it must be. If `HARMONY_PROOF` names a file, a summary is added to it.

#![allow(clippy::print_stdout)] // it is what this program is for

use std::{env, fs::OpenOptions, io::Write, process::ExitCode};

use model::{Faults, Run};

fn main() -> ExitCode {
    let asked = |flag: &str| env::args().any(|argument| argument == flag);
    let mut runs = Run::bounded();
    if asked("--whole") {
        runs.extend(Run::whole());
    }
    let guarded = Run::guarded();
    println!("states in each world");
    let (mut states, mut wrong) = (0, 0);
    for run in runs.iter().chain(&guarded) {
        let (found, mistakes) = explore(run);
        states += found;
        wrong += mistakes;
    }
    println!("\nwhat breaks without a safeguard");
    let (mut rejected, twins) = (0, Run::twins(!asked("--stories")));
    for run in &twins {
        let found = run.check();
        match found.violations.first() {
            Some((property, story)) => {
                rejected += 1;
                println!("{:<14} {:<28} \"{property}\" in {} steps", run.variant, run.name, story.len());
                if asked("--stories") {
                    tell(story);
                }
            }
            None => println!("{:<14} {:<28} NOTHING: the checker does not notice", run.variant, run.name),
        }
    }
    let summary = format!(
        "model: {states} states in {} worlds, {wrong} violations; {rejected} of {} broken twins rejected",
        runs.len() + guarded.len(),
        twins.len()
    );
    println!("\n{summary}");
    if let Some(path) = env::var_os("HARMONY_PROOF") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = file.and_then(|mut file| writeln!(file, "{summary}")) {
            println!("the summary could not be written: {error}");
            return ExitCode::FAILURE;
        }
    }
    if wrong == 0 && rejected == twins.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Explores a world. Returns how many states it has, and how much is not as it must be.
fn explore(run: &Run) -> (usize, usize) {
    let found = run.check();
    println!("{run}: {} ({:.1} s)", found.states, found.took.as_secs_f64());
    for (property, story) in &found.violations {
        println!("  VIOLATED: {property}");
        tell(story);
    }
    // Where everything goes wrong, everything has to be seen.
    let unseen = if run.faults == Faults::Unbounded { found.unseen } else { Vec::new() };
    for situation in &unseen {
        println!("  NEVER SEEN: {situation}");
    }
    let is_expected = run.expected() == Some(found.states);
    if !is_expected {
        println!("  EXPECTED: {:?}, in counts.txt", run.expected());
    }
    (found.states, found.violations.len() + unseen.len() + usize::from(!is_expected))
}

fn tell(story: &[String]) {
    for (number, step) in story.iter().enumerate() {
        println!("    {:>2}. {step}", number + 1);
    }
}
