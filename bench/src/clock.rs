//! How long something took: by the wall, or by the processor where others use the machine too.

use std::time::Instant;

use clap::ValueEnum;
use cpu_time::ProcessTime;
use serde::{Deserialize, Serialize};

/// What time is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Clock {
    Wall,
    /// What the process used of the processor: the same as the wall for one thread that computes and is let alone.
    Cpu,
}

/// Runs from its making.
pub(crate) enum Stopwatch {
    Wall(Instant),
    Cpu(ProcessTime),
}

impl Clock {
    /// The clock for work by so many threads: the processor's tells nothing of several.
    pub(crate) fn of_threads(self, threads: usize) -> Self {
        if threads == 1 { self } else { Self::Wall }
    }

    pub(crate) fn start(self) -> Stopwatch {
        match self {
            Self::Wall => Stopwatch::Wall(Instant::now()),
            Self::Cpu => Stopwatch::Cpu(ProcessTime::now()),
        }
    }
}

impl Stopwatch {
    pub(crate) fn seconds(&self) -> f64 {
        match self {
            Self::Wall(since) => since.elapsed().as_secs_f64(),
            Self::Cpu(since) => since.elapsed().as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_is_no_work_of_the_processor_and_several_threads_are_told_by_the_wall() {
        let (wall, cpu) = (Clock::Wall.start(), Clock::Cpu.start());
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(wall.seconds() >= 0.3);
        assert!(cpu.seconds() < wall.seconds());
        assert_eq!((Clock::Cpu.of_threads(1), Clock::Cpu.of_threads(2)), (Clock::Cpu, Clock::Wall));
    }
}
