//! The HTTP fault proxy of `dev/proxy/s3fault.py` between the processes of a world and the S3 server.

use std::collections::BTreeMap;
use std::env::var;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::ports;

/// Runs until it is dropped.
pub(crate) struct S3Proxy {
    child: Child,
    listen: u16,
    control: u16,
}

impl S3Proxy {
    /// Stands in front of the server that AWS_ENDPOINT names.
    pub(crate) fn start(stall_s: u32) -> Self {
        let endpoint = var("AWS_ENDPOINT").expect("AWS_ENDPOINT names the S3 server");
        let target = endpoint.rsplit(':').next().and_then(|p| p.trim_end_matches('/').parse::<u16>().ok());
        let target = target.expect("AWS_ENDPOINT ends with a port");
        let listen = ports::free(2);
        let control = listen + 1;
        let mut child = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/proxy/s3fault.py"))
            .args([listen, target, control].map(|port| port.to_string()))
            .env("STALL_S", stall_s.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "the proxy listens");
        Self { child, listen, control }
    }

    /// TOML that sends a world's processes through the proxy.
    pub(crate) fn options(&self) -> String {
        format!("\n[store.options]\nendpoint = 'http://127.0.0.1:{}'\nallow_http = 'true'\n", self.listen)
    }

    /// From now on, requests of `method` whose path holds `text` suffer `kind`; see the head of the script.
    pub(crate) fn fault(&self, kind: &str, method: &str, text: &str, when: &str) {
        assert_eq!(self.ask(&format!("fault {kind} {method} {text} {when}")), "ok");
    }

    /// No faults any more.
    pub(crate) fn clear(&self) {
        assert_eq!(self.ask("clear"), "ok");
    }

    /// How often `kind` struck since the start.
    pub(crate) fn struck(&self, kind: &str) -> u64 {
        let counts: BTreeMap<String, u64> = serde_json::from_str(&self.ask("counts")).unwrap();
        counts.get(kind).copied().unwrap_or(0)
    }

    fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.control)).unwrap();
        stream.write_all(format!("{command}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }
}

impl Drop for S3Proxy {
    fn drop(&mut self) {
        // both fail on a process that has ended, which is what is wanted
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
