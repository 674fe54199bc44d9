//! A Kafka broker of one test's own, which can be paused, killed and stopped without harm to the others.

use std::process::Command;

use tempfile::TempDir;

use super::ports;

/// Runs until it is dropped.
pub(crate) struct Broker {
    port: u16,
    dir: TempDir,
}

impl Broker {
    pub(crate) fn start() -> Self {
        // the broker's, the controller's, and that of a second listener
        let broker = Self { port: ports::free(3), dir: tempfile::tempdir().unwrap() };
        broker.call("start");
        broker
    }

    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `start`, `stop`, `kill`, `pause` or `resume`.
    pub(crate) fn call(&self, verb: &str) {
        let output = self.script(verb).output().unwrap();
        assert!(output.status.success(), "kafka.sh {verb}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn script(&self, verb: &str) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/kafka/kafka.sh"));
        command.arg(verb).env("KAFKA_PORT", self.port.to_string());
        command.env("KAFKA_RUN", self.dir.path().join("kafka")).env("KAFKA_HEAP", "256m");
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // a test that fails has its own message; what could not be wiped is in a temporary directory
        drop(self.script("wipe").output());
    }
}
