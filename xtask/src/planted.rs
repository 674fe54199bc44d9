//! `cargo xtask planted`: plants a known bug, demands that the tests named for it fail, and takes it out again.
//!
//! A bug is a patch in `dev/planted` whose head says which invariant it breaks and which tests must see it. Before the
//! first one is planted the same tests must pass; a planted bug must compile, and a test must fail by itself: a
//! program that does not build, hangs or never ran the test has seen nothing.

mod patch;
mod tests_of;
mod traces;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use patch::{Patch, Program};
use tests_of::{Ended, Programs};
use traces::Traces;

use crate::report::Report;
use crate::shell::{command, output, root};

/// Which bugs to plant.
pub(crate) enum Choice {
    All,
    Named(Vec<String>),
    /// So many of the quick ones; another day, the next ones.
    Rotate(usize),
}

/// A bug that is in the sources; dropping it takes it out.
struct Planted<'a>(&'a Patch);

impl<'a> Planted<'a> {
    fn plant(patch: &'a Patch) -> Result<Self> {
        fs::create_dir_all(marker().parent().context("the marker has no folder")?)?;
        fs::copy(&patch.path, marker())?;
        output(patch.git_apply(&[])).with_context(|| format!("{} cannot be applied", patch.name))?;
        Ok(Self(patch))
    }
}

impl Drop for Planted<'_> {
    fn drop(&mut self) {
        match output(self.0.git_apply(&["--reverse"])) {
            Ok(_) => drop(fs::remove_file(marker())),
            Err(error) => eprintln!("    {error:#}\n{}", how_to_restore()),
        }
    }
}

/// The patch that is planted now, for whoever finds the sources after a kill.
fn marker() -> PathBuf {
    root().join("target/planted/applied.patch")
}

fn how_to_restore() -> String {
    format!("    a bug is still planted; take it out with: git apply --reverse {}", marker().display())
}

/// Plants each bug of `choice` in turn.
pub(crate) fn run(choice: &Choice) -> Result<()> {
    refuse_changes()?;
    let all = patch::all()?;
    let chosen = choose(&all, choice)?;
    for patch in &chosen {
        output(patch.git_apply(&["--check"])).with_context(|| format!("{} is out of date", patch.name))?;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let stop = || if interrupted.load(Ordering::Relaxed) { bail!("interrupted") } else { Ok(()) };
    let mut report = Report::default();
    report.step("the tests pass without a bug", || {
        let mut programs: BTreeMap<&Program, Programs> = BTreeMap::new();
        for catcher in chosen.iter().flat_map(|p| &p.caught_by) {
            stop()?;
            let built = match programs.remove(&catcher.program) {
                Some(built) => built,
                None => Programs::build(&catcher.program)?,
            };
            let ended = built.run(&catcher.test, &interrupted)?;
            programs.insert(&catcher.program, built);
            if !matches!(ended, Ended::Passed) {
                bail!("{}: {ended}", catcher.test);
            }
        }
        Ok(())
    });
    let mut missed = 0;
    for patch in &chosen {
        if stop().is_err() {
            break;
        }
        let caught = report.step(&patch.title(), || catch(patch, &interrupted));
        missed += usize::from(!caught);
    }
    stop()?;
    let finished = report.finish();
    println!("planted: {} caught, {missed} missed", chosen.len() - missed);
    finished
}

/// Plants one bug and runs its tests, all of which must see it.
fn catch(patch: &Patch, interrupted: &AtomicBool) -> Result<()> {
    let traces = Traces::now()?;
    let _planted = Planted::plant(patch)?;
    let caught = run_catchers(patch, interrupted);
    traces.clear()?;
    caught
}

fn run_catchers(patch: &Patch, interrupted: &AtomicBool) -> Result<()> {
    for catcher in &patch.caught_by {
        let programs = Programs::build(&catcher.program).context("the planted bug does not compile")?;
        match programs.run(&catcher.test, interrupted)? {
            Ended::Failed => eprintln!("    caught by {}", catcher.test),
            other => bail!("{} does not see it: {other}", catcher.test),
        }
    }
    Ok(())
}

/// Nothing but a planted bug may be lost when it is taken out.
fn refuse_changes() -> Result<()> {
    let changes = output(command("git", &["status", "--porcelain", "--untracked-files=no"]))?;
    if changes.is_empty() {
        return Ok(());
    }
    let restore = if marker().exists() { how_to_restore() } else { String::new() };
    bail!("there are changes that are not committed; commit or stash them first:\n{changes}{restore}")
}

fn choose<'a>(all: &'a [Patch], choice: &Choice) -> Result<Vec<&'a Patch>> {
    match choice {
        Choice::All => Ok(all.iter().collect()),
        Choice::Named(names) => {
            let find = |name: &String| {
                let known = || all.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
                all.iter()
                    .find(|p| p.is_called(name))
                    .with_context(|| format!("there is no planted bug {name}; there are {}", known()))
            };
            names.iter().map(find).collect()
        }
        Choice::Rotate(count) => {
            let quick: Vec<&Patch> = all.iter().filter(|p| !p.slow).collect();
            #[expect(clippy::disallowed_methods, reason = "the day decides whose turn it is")]
            let day = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() / 86_400;
            Ok(turn(&quick, usize::try_from(day)?, *count))
        }
    }
}

/// The `count` of `all` whose turn it is on `day`; as days pass everyone gets it equally often.
fn turn<T: Copy>(all: &[T], day: usize, count: usize) -> Vec<T> {
    let first = day.wrapping_mul(count);
    (0..count.min(all.len())).map(|i| all[(first + i) % all.len()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_gets_a_turn() {
        let all = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        let mut turns = [0; 11];
        for day in 0..11 {
            turn(&all, day, 3).into_iter().for_each(|i| turns[i] += 1);
        }
        assert_eq!(turns, [3; 11]);
        assert_eq!(turn(&all[..2], 5, 3), [1, 0]);
    }
}
