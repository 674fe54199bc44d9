//! Programs that the real servers and producers need: looked for, and installed where that is possible.

use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::shell::{command, output, run, succeeds};

/// A program, how to see that it is there, and the Debian packages that bring it.
pub(crate) struct Tool {
    name: &'static str,
    probe: &'static [&'static str],
    packages: &'static [&'static str],
}

pub(crate) const JAVA: Tool =
    Tool { name: "java", probe: &["java", "-version"], packages: &["openjdk-17-jdk-headless"] };
pub(crate) const MAVEN: Tool = Tool { name: "maven", probe: &["mvn", "--version"], packages: &["maven"] };
pub(crate) const CURL: Tool = Tool { name: "curl", probe: &["curl", "--version"], packages: &["curl"] };
pub(crate) const KCAT: Tool = Tool { name: "kcat", probe: &["kcat", "-V"], packages: &["kcat"] };
pub(crate) const PYTHON: Tool = Tool {
    name: "python3 with venv",
    probe: &["python3", "-c", "import venv, ensurepip"],
    packages: &["python3", "python3-venv"],
};

impl Tool {
    fn is_there(&self) -> bool {
        succeeds(command(self.probe[0], &self.probe[1..]))
    }

    /// Makes sure that the tool is there.
    ///
    /// # Errors
    /// When it is missing and cannot be installed, with what to do.
    pub(crate) fn ensure(&self) -> Result<()> {
        if self.is_there() {
            return Ok(());
        }
        let wanted = self.packages.join(" ");
        install(self.packages)
            .with_context(|| format!("{} is missing; on Debian: apt-get install {wanted}", self.name))?;
        if self.is_there() { Ok(()) } else { bail!("{} is missing still after its installation", self.name) }
    }
}

/// Installs Debian packages, as root only: this program never asks for more rights than it has.
fn install(packages: &[&str]) -> Result<()> {
    static UPDATED: OnceLock<bool> = OnceLock::new();
    if !succeeds(command("apt-get", &["--version"])) {
        bail!("there is no apt-get here");
    }
    if output(command("id", &["-u"]))?.trim() != "0" {
        bail!("not root");
    }
    UPDATED.get_or_init(|| run(command("apt-get", &["-qq", "update"])).is_ok());
    let mut arguments = vec!["-qq", "install", "-y", "--no-install-recommends", "-o=Dpkg::Use-Pty=0"];
    arguments.extend(packages);
    let mut apt = command("apt-get", &arguments);
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    run(apt)
}
