//! The binary `sluice`: reads its arguments, everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice::cli::main()
}
