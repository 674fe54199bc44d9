//! A Kafka broker of one test's own, which can be paused, killed and stopped without harm to the others.

use std::process::Command;

use tempfile::TempDir;

use super::ports;

/// One node or three; runs until it is dropped.
pub(crate) struct Broker {
    port: u16,
    nodes: u16,
    dir: TempDir,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::with_nodes(1)
    }

    /// Three nodes that each hold everything, but for topics that are placed by hand.
    pub(crate) fn of_three() -> Self {
        Self::with_nodes(3)
    }

    fn with_nodes(nodes: u16) -> Self {
        // of each node the broker's, the controller's, and that of a second listener
        let port = ports::free(3 + 10 * (nodes - 1));
        let broker = Self { port, nodes, dir: tempfile::tempdir().unwrap() };
        broker.call("start");
        broker
    }

    pub(crate) fn bootstrap(&self) -> String {
        let node = |i: u16| format!("127.0.0.1:{}", self.port + 10 * i);
        (0..self.nodes).map(node).collect::<Vec<_>>().join(",")
    }

    /// `start`, `stop`, `kill`, `pause` or `resume`.
    pub(crate) fn call(&self, verb: &str) {
        Self::run(self.script(verb), verb);
    }

    /// The same for one node, counted from 1.
    pub(crate) fn call_node(&self, verb: &str, node: u16) {
        let mut script = self.script(verb);
        script.arg(node.to_string());
        Self::run(script, verb);
    }

    fn run(mut script: Command, verb: &str) {
        let output = script.output().unwrap();
        assert!(output.status.success(), "kafka.sh {verb}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn script(&self, verb: &str) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/kafka/kafka.sh"));
        command.arg(verb).env("KAFKA_PORT", self.port.to_string());
        command.env("KAFKA_NODES", self.nodes.to_string());
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
