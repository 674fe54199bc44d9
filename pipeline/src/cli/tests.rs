//! The arguments as a whole.

use clap::CommandFactory;

use super::*;

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn common_flags_stand_before_or_after_the_command() {
    for line in ["sluice --json --data-dir x up", "sluice up --json --data-dir x"] {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert!(cli.common.json && cli.common.data_dir.is_some(), "{line}");
    }
}

#[test]
fn a_search_has_exactly_one_query() {
    let parse = |line: &str| Cli::try_parse_from(line.split(' '));
    assert!(parse("sluice search a --id x").is_ok());
    assert!(parse("sluice search a").is_err());
    assert!(parse("sluice search a --id x --vector [1]").is_err());
}

#[test]
fn refused_configuration_exits_with_2_and_failures_with_1() {
    let code = |error: CliError| format!("{:?}", error.exit_code());
    assert_eq!(code(CliError::Usage("x".into())), format!("{:?}", ExitCode::from(2)));
    assert_eq!(code(CliError::Failed("x".into())), format!("{:?}", ExitCode::FAILURE));
}
