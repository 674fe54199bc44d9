//! Steps in processes of their own, so that each one's peak memory is its own.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// Prints one result.
pub(crate) fn print<T: Serialize>(result: &T) -> Result<()> {
    println!("{}", serde_json::to_string(result)?);
    Ok(())
}

/// Runs `bench role ..` and reads its answer.
pub(crate) async fn role<T: DeserializeOwned>(arguments: &[String]) -> Result<T> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut child = Command::new(program)
        .arg("role")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting a step")?;
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut text).await?;
    }
    let status = child.wait().await?;
    ensure!(status.success(), "step {} failed: {status}", arguments.first().map_or("", String::as_str));
    serde_json::from_str(text.trim()).context("reading the answer of a step")
}

/// Most memory that this process ever held, or held since [`forget_peak_memory`], in bytes; `None` where the system does
/// not say.
pub(crate) fn peak_memory() -> Option<u64> {
    memory("VmHWM")
}

/// Lets [`peak_memory`] begin again, where the system can.
pub(crate) fn forget_peak_memory() {
    std::fs::write("/proc/self/clear_refs", "5").ok();
}

/// A figure of this process's memory by its name in /proc/self/status, in bytes.
pub(crate) fn memory(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.split(':').next() == Some(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
