//! Explores both variants, and prints what was found: `model [--whole] [--stories]`. `--whole` explores all worlds, and
//! not only those of the tests; `--stories` tells how each broken twin goes wrong. Ends with an error if anything is not
//! as it must be. If `HARMONY_PROOF` names a file, a summary is added to it.

#![allow(clippy::print_stdout)] // it is what this program is for

use std::{env, fs::OpenOptions, io::Write, process::ExitCode};

use model::{Faults, Run, Variant};

fn main() -> ExitCode {
    let asked = |flag: &str| env::args().any(|argument| argument == flag);
    let (mut states, mut worlds, mut wrong) = (0, 0, 0);
    println!("{:<14} {:<9} {:<28} {:>10}", "variant", "parts", "what goes wrong", "states");
    let whole = if asked("--whole") { Run::whole() } else { Vec::new() };
    for run in Run::bounded().into_iter().chain(whole) {
        let found = run.check();
        let took = found.took.as_secs_f64();
        println!("{:<14} {:<9} {:<28} {:>10} {took:>6.1} s", variant(&run), parts(&run), run.name, found.states);
        for (property, story) in &found.violations {
            println!("  VIOLATED: {property}");
            tell(story);
        }
        // Where everything goes wrong, everything has to be seen.
        let unseen = if run.faults == Faults::Unbounded { found.unseen } else { Vec::new() };
        for situation in &unseen {
            println!("  NEVER SEEN: {situation}");
        }
        states += found.states;
        worlds += 1;
        wrong += found.violations.len() + unseen.len();
    }
    println!("\n{:<14} {:<28} breaks", "variant", "without");
    let (mut rejected, twins) = (0, Run::twins(!asked("--stories")));
    for run in &twins {
        let found = run.check();
        match found.violations.first() {
            Some((property, story)) => {
                rejected += 1;
                println!("{:<14} {:<28} \"{property}\" in {} steps", variant(run), run.name, story.len());
                if asked("--stories") {
                    tell(story);
                }
            }
            None => println!("{:<14} {:<28} NOTHING: the checker does not notice", variant(run), run.name),
        }
    }
    let summary = format!(
        "model: {states} states in {worlds} worlds, {wrong} violations; {rejected} of {} broken twins rejected",
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

fn variant(run: &Run) -> String {
    match run.variant {
        Variant::Choreographed => "choreographed".into(),
        Variant::Orchestrated(executions) => format!("orchestrated/{executions}"),
    }
}

fn parts(run: &Run) -> String {
    let (parts, unsold) = (run.scope.parts(), if run.scope.is_sold() { "" } else { ", 1 unsold" });
    format!("{parts}{unsold}")
}

fn tell(story: &[String]) {
    for (number, step) in story.iter().enumerate() {
        println!("    {:>2}. {step}", number + 1);
    }
}
