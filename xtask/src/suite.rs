//! `cargo xtask test`: first what needs only Rust, then the same suites on real Kafka and a real S3 server.

use std::process::Command;

use anyhow::Result;

use crate::report::Report;
use crate::servers::{KAFKA, Running, S3, exports};
use crate::shell::{cargo, command, root, run};
use crate::tools::{KCAT, PYTHON};

/// Tests of the local set-up have this in their paths: they ran already when the servers' turn comes.
const LOCAL: &str = "local::";

/// Runs every test, or those whose names hold `filter`.
pub(crate) fn run_all(s3: S3, filter: Option<&str>) -> Result<()> {
    let mut report = Report::default();
    // all at once: a narrower selection would compile dependencies again with other features
    if !report.step("build", || run(cargo(&["test", "--workspace", "--no-run"]))) {
        return report.finish();
    }
    report.step("tests that need only Rust", || run(cargo_test(&[], filter)));
    match start_servers(s3) {
        Ok(set_up) => on_servers(&mut report, set_up, filter),
        Err(error) => report.skip("tests on real Kafka and S3", &format!("{error:#}")),
    }
    report.finish()
}

/// What runs, and the environment by which tests find it.
pub(crate) struct SetUp {
    servers: Vec<Running>,
    pub(crate) environment: Vec<(String, String)>,
}

/// Starts Kafka and an S3 server; dropping the set-up stops those that did not run before.
pub(crate) fn start_servers(s3: S3) -> Result<SetUp> {
    eprintln!("==> servers");
    let kafka = KAFKA.start()?;
    let store = s3.server().start()?;
    let mut environment = vec![("SLUICE_TEST_KAFKA".to_owned(), kafka.said.clone())];
    for (name, value) in exports(&store.said) {
        // the store's address is the configuration's business; tests put their own prefix behind it
        let name = if name == "SLUICE__STORE__URL" { "SLUICE_TEST_S3_URL".to_owned() } else { name };
        environment.push((name, value));
    }
    Ok(SetUp { servers: vec![kafka, store], environment })
}

fn on_servers(report: &mut Report, set_up: SetUp, filter: Option<&str>) {
    let SetUp { servers, mut environment } = set_up;
    match KCAT.ensure() {
        Ok(()) => environment.push(("SLUICE_TEST_KCAT".to_owned(), "kcat".to_owned())),
        Err(error) => report.skip("publishing by kcat", &format!("{error:#}")),
    }
    match python() {
        Ok(path) => environment.push(("SLUICE_TEST_PYTHON".to_owned(), path)),
        Err(error) => report.skip("publishing by confluent-kafka", &format!("{error:#}")),
    }
    report.step("tests on real Kafka and S3", || {
        let mut tests = cargo_test(&["--skip", LOCAL], filter);
        tests.envs(environment);
        run(tests)
    });
    // dropping stops those that were started here
    drop(servers);
}

/// Makes the environment with confluent-kafka; gives the path of its interpreter.
fn python() -> Result<String> {
    PYTHON.ensure()?;
    run(command(root().join("dev/python/venv.sh"), &[]))?;
    Ok(root().join("dev/python/venv/bin/python").display().to_string())
}

/// All test programs, every one whatever the others do, with options and a filter for their harness.
fn cargo_test(options: &[&str], filter: Option<&str>) -> Command {
    let mut arguments = vec!["test", "--workspace", "--no-fail-fast", "--"];
    arguments.extend(options);
    arguments.extend(filter);
    cargo(&arguments)
}
