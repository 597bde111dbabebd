//! Instructions of a warm step, which do not depend on the machine's other work: the deployed program under callgrind.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use local_aws::LocalAwsOptions;
use serde_json::json;

use crate::{
    Outcome,
    process::{Process, fresh, program},
    report::Report,
    step::Steps,
};

const STEPS: usize = 100;

pub(crate) async fn measure(report: &mut Report) -> Outcome<()> {
    report.part("Instructions of a warm step", "Of the function's own process, without what the kernel does for it.");
    let (Some(valgrind), Some(control)) = (program("valgrind"), program("callgrind_control")) else {
        report.skips("instructions are not counted without Valgrind", "Install it: `apt-get install valgrind`");
        return Ok(());
    };
    let root = local_aws::checkout::root()?;
    let folder = crate::folder()?.join("callgrind");
    let (functions, counted, prefix) = (folder.join("functions"), folder.join("counted"), folder.join("vgdb"));
    fresh(&folder)?;
    for entry in fs::read_dir(root.join("target/lambda"))? {
        let (real, own) = (entry?.path(), &functions);
        let bootstrap = own.join(real.file_name().unwrap_or_default()).join("bootstrap");
        fs::create_dir_all(bootstrap.parent().unwrap_or(own))?;
        let real = real.join("bootstrap");
        if bootstrap.parent().is_some_and(|function| function.ends_with("flight")) {
            let command = [
                format!("exec '{}' --tool=callgrind --quiet", valgrind.display()),
                format!("--vgdb-prefix='{}' --callgrind-out-file='{}'", prefix.display(), counted.display()),
                format!("'{}'", real.display()),
            ];
            fs::write(&bootstrap, format!("#!/bin/sh\n{}\n", command.join(" ")))?;
            fs::set_permissions(&bootstrap, fs::Permissions::from_mode(0o755))?;
        } else {
            symlink(real, bootstrap)?;
        }
    }
    let mut steps = Steps::on(LocalAwsOptions { functions: Some(functions), ..LocalAwsOptions::default() }).await?;
    let flight = steps.flight.clone();
    for _ in 0..20 {
        steps.reserve(&flight).await?;
        steps.refused(&flight).await?;
    }
    let process = Process::of_function(steps.stack(), &flight)?;
    let send = |what: &str| -> Outcome<()> {
        let prefix = format!("--vgdb-prefix={}", prefix.display());
        let output = Command::new(&control).args([&prefix, what, process.id()]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        if output.status.success() && !text.contains("Error") {
            Ok(())
        } else {
            Err(format!("{control:?}: {text}").into())
        }
    };
    let mut counts = Vec::new();
    for is_refused in [false, true] {
        send("--zero")?;
        for _ in 0..STEPS {
            match is_refused {
                true => steps.refused(&flight).await?,
                false => steps.reserve(&flight).await.map(|_| ())?,
            }
        }
        send("--dump")?;
        let dump = counted.with_extension((counts.len() + 1).to_string());
        counts.push(total(&dump)? / STEPS as f64);
    }
    let (step, refused) = (counts[0], counts[1]);
    report.table(
        &["", &format!("mean of {STEPS}"), "× a step"],
        [
            vec!["a step".into(), format!("{:.0} k", step / 1e3), "1".into()],
            vec!["a refused payload".into(), format!("{:.0} k", refused / 1e3), format!("{:.2}", refused / step)],
        ],
    );
    report.says(
        "Callgrind has no SHA instructions, so signing a request takes several times as many instructions here as on a \
         processor that has them.",
    );
    report.keep(
        "instructions",
        json!({"step": step, "refused": refused, "refused_of_step": refused / step, "steps": STEPS}),
    );
    Ok(())
}

/// The total instructions in a dump: <https://valgrind.org/docs/manual/cl-format.html>.
fn total(dump: &Path) -> Outcome<f64> {
    let text = fs::read_to_string(dump).map_err(|error| format!("{}: {error}", dump.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("summary:")).ok_or("a dump without a summary")?;
    Ok(line.trim().parse()?)
}
