//! The real binary as child processes: started, found by their log, killed, paused, asked to stop.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

use super::wait::eventually;

/// The binary under test.
pub(crate) fn sluice() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sluice"))
}

/// One role that runs. Dropping it kills the process; when the test fails its log is shown.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// `http://127.0.0.1:port`
    pub(crate) url: String,
}

/// Variables of the environment that a process gets besides those of the test.
pub(crate) type Environment = [(String, String)];

impl Process {
    /// Starts `sluice ARGUMENTS`; it may end before it listens. The log of a process of this name before it is kept.
    pub(crate) fn spawn(name: &str, arguments: &[&str], environment: &Environment, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        // there is none the first time
        fs::rename(&log, dir.join(format!("{name}.before.log"))).ok();
        let file = File::create(&log).unwrap();
        let child = sluice()
            .args(arguments)
            .envs(environment.iter().cloned())
            .args(["--listen", "127.0.0.1:0", "--json", "--log-format", "json"])
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { name: name.to_owned(), child, log, url: String::new() }
    }

    /// Waits until it listens.
    pub(crate) async fn listens(&mut self) {
        if self.url.is_empty() {
            self.url = self.address().await;
        }
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn address(&mut self) -> String {
        let name = self.name.clone();
        eventually(&format!("{name} listens"), || {
            let found = self.lines().iter().find_map(|line| line["listening"].as_str().map(str::to_owned));
            let ended = self.child.try_wait().unwrap();
            async move {
                assert!(ended.is_none(), "{ended:?} before it listened");
                found.map(|address| format!("http://{address}")).ok_or_else(|| "no such line".into())
            }
        })
        .await
    }

    /// What it has printed and logged.
    pub(crate) fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The lines of its log that are JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// SIGKILL: no instruction of it runs after this.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal, such as `STOP` or `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// SIGTERM, then waits for the end.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.until_ended().await
    }

    /// Waits for the end.
    pub(crate) async fn until_ended(&mut self) -> ExitStatus {
        let name = self.name.clone();
        eventually(&format!("{name} ends after SIGTERM"), || {
            let ended = self.ended();
            async move { ended.ok_or_else(|| "it runs".to_owned()) }
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // both fail on a process that has ended, which is what is wanted
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let text = self.text();
            let lines: Vec<_> = text.lines().collect();
            let from = lines.len().saturating_sub(60);
            println!("---- last lines of {} ----\n{}", self.name, lines[from..].join("\n"));
        }
    }
}
