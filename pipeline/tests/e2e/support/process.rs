//! The real binary as child processes: started, found by their log, killed, asked to stop.

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

impl Process {
    /// Starts `sluice ARGUMENTS` and waits until it listens.
    pub(crate) async fn start(name: &str, arguments: &[&str], dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let child = sluice()
            .args(arguments)
            .args(["--listen", "127.0.0.1:0", "--json", "--log-format", "json"])
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let mut process = Self { name: name.to_owned(), child, log, url: String::new() };
        process.url = process.address().await;
        process
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

    /// The lines of its log that are JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// SIGKILL: no instruction of it runs after this.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, then waits for the end.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().unwrap().success());
        let name = self.name.clone();
        eventually(&format!("{name} ends after SIGTERM"), || {
            let ended = self.child.try_wait().unwrap();
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
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let from = lines.len().saturating_sub(60);
            println!("---- last lines of {} ----\n{}", self.name, lines[from..].join("\n"));
        }
    }
}
