//! Servers of one test's own, on ports of their own, which it may pause, kill and start again without harm to others.

use std::process::Command;

use tempfile::TempDir;

use super::ports;
use super::set_up::SetUp;
use super::world::World;

/// A real broker and a real S3 server; dropping it stops them and removes what they hold.
pub(crate) struct Servers {
    dir: TempDir,
    kafka_port: u16,
    s3_port: u16,
}

/// What can be done to a server.
#[derive(Clone, Copy)]
pub(crate) enum Verb {
    Start,
    /// SIGKILL.
    Kill,
    /// SIGSTOP: connections stay open, nothing answers.
    Pause,
    /// SIGCONT.
    Resume,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

impl Servers {
    /// Starts both. `None`, and a line that says so, where the tests run without servers.
    pub(crate) fn start() -> Option<Self> {
        SetUp::servers()?;
        let dir = tempfile::Builder::new().prefix("sluice-servers-").tempdir().unwrap();
        // the broker takes three, the last one is the S3 server's
        let kafka_port = ports::free(4);
        let servers = Self { dir, kafka_port, s3_port: kafka_port + 3 };
        servers.kafka(Verb::Start);
        servers.s3(Verb::Start);
        Some(servers)
    }

    pub(crate) fn set_up(&self) -> SetUp {
        SetUp::Servers { kafka: format!("127.0.0.1:{}", self.kafka_port), store: "s3://sluice".into() }
    }

    /// The world finds this S3 server, not the one that other tests share.
    pub(crate) fn serve(&self, world: World) -> World {
        world
            .variable("AWS_ENDPOINT", &format!("http://127.0.0.1:{}", self.s3_port))
            .variable("AWS_ALLOW_HTTP", "true")
            .variable("AWS_REGION", "us-east-1")
            .variable("AWS_ACCESS_KEY_ID", "testkey")
            .variable("AWS_SECRET_ACCESS_KEY", "testsecret")
    }

    pub(crate) fn kafka(&self, verb: Verb) {
        self.call("kafka/kafka.sh", verb.as_str());
    }

    pub(crate) fn s3(&self, verb: Verb) {
        self.call("s3/s3proxy.sh", verb.as_str());
    }

    fn call(&self, script: &str, verb: &str) {
        let path = format!("{}/../dev/{script}", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(path);
        command.arg(verb);
        command
            .env("KAFKA_PORT", self.kafka_port.to_string())
            .env("KAFKA_RUN", self.dir.path().join("kafka"));
        command.env("S3_PORT", self.s3_port.to_string()).env("S3_RUN", self.dir.path().join("s3"));
        let output = command.output().unwrap();
        assert!(output.status.success() || verb == "wipe", "{script} {verb}: {output:?}");
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.call("kafka/kafka.sh", "wipe");
        self.call("s3/s3proxy.sh", "wipe");
    }
}
