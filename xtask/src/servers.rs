//! The real servers under `dev/`: started for the tests, or by hand.

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::shell::{command, output, root, run, succeeds};
use crate::tools::{CURL, JAVA, MAVEN};

/// An S3 server that `dev/s3` can start.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum S3 {
    /// S3 over a directory: quick.
    S3proxy,
    /// The Ceph RADOS gateway: a distributed store.
    Rgw,
}

/// One script under `dev/`.
#[derive(Clone, Copy)]
pub(crate) struct Server(&'static str);

pub(crate) const KAFKA: Server = Server("dev/kafka/kafka.sh");

impl S3 {
    pub(crate) fn server(self) -> Server {
        match self {
            Self::S3proxy => Server("dev/s3/s3proxy.sh"),
            Self::Rgw => Server("dev/s3/rgw.sh"),
        }
    }
}

/// A server that runs; one that was running before stays when this is dropped.
pub(crate) struct Running {
    server: Server,
    ours: bool,
    /// What the start printed on its last line.
    pub(crate) said: String,
}

impl Server {
    fn is_running(self) -> bool {
        succeeds(command(root().join(self.0), &["status"]))
    }

    fn call(self, verb: &str) -> Result<String> {
        output(command(root().join(self.0), &[verb])).with_context(|| format!("{} {verb}", self.0))
    }

    /// Starts the server unless it runs; installs what it needs.
    pub(crate) fn start(self) -> Result<Running> {
        if self.0 != S3::Rgw.server().0 {
            JAVA.ensure()?;
            MAVEN.ensure()?;
        } else {
            CURL.ensure()?;
        }
        let ours = !self.is_running();
        eprintln!("    {} {}", self.0, if ours { "start" } else { "runs already" });
        let printed = self.call("start")?;
        let said = printed.lines().last().unwrap_or_default().to_owned();
        Ok(Running { server: self, ours, said })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = self.server.call("wipe")
        {
            eprintln!("    {error:#}");
        }
    }
}

impl Running {
    /// Leaves the server running.
    fn keep(mut self) -> String {
        self.ours = false;
        std::mem::take(&mut self.said)
    }
}

/// The variables in a line `export A=B C=D`.
pub(crate) fn exports(line: &str) -> Vec<(String, String)> {
    let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

pub(crate) fn start_and_print(s3: S3) -> Result<()> {
    let kafka = KAFKA.start()?.keep();
    let store = s3.server().start()?.keep();
    let url = exports(&store).into_iter().find(|(name, _)| name == "SLUICE__STORE__URL");
    println!("# source <(cargo xtask servers start)");
    println!("{store}");
    println!("export SLUICE_TEST_KAFKA={kafka} SLUICE_TEST_S3_URL={}", url.unwrap_or_default().1);
    Ok(())
}

pub(crate) fn stop_all() -> Result<()> {
    for server in [KAFKA, S3::S3proxy.server(), S3::Rgw.server()] {
        if server.is_running() {
            run(command(root().join(server.0), &["stop"]))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_read() {
        let read = exports("export A=b AWS_ENDPOINT=http://127.0.0.1:1");
        assert_eq!(read[0], ("A".into(), "b".into()));
        assert_eq!(read[1].1, "http://127.0.0.1:1");
    }
}
