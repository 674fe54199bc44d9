//! The arguments as a whole.

use std::io::ErrorKind as Io;

use clap::CommandFactory;
use sluice_core::{ErrorKind, Generation, IndexName, PartitionId, PartitionRef};
use sluice_snapshotter::{ProtocolError, RegistryError, StoreError};

use super::*;
use crate::load::LoadError;
use crate::topology::RunError;

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
fn the_help_of_every_command_has_an_example() {
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let example = format!("  sluice {}", command.get_name());
        assert!(help.contains("Example") && help.contains(&example), "{}: {help}", command.get_name());
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
fn an_error_keeps_the_kind_of_its_cause() {
    let name = IndexName::new("docs").unwrap();
    let denied = || StoreError::Denied { operation: "get", key: "k".into(), message: "403".into() };
    let partition =
        PartitionRef { index: name.clone(), generation: Generation(1), partition: PartitionId(0) };
    let listen = |error: Io| {
        let address = "127.0.0.1:80".parse().unwrap();
        RunError::Listen { address, source: error.into() }
    };
    let file = |error: Io| LoadError::Io { path: "x".into(), source: error.into() };
    let cases: [(CliError, ErrorKind); 11] = [
        (RegistryError::Unknown(name.clone()).into(), ErrorKind::NotFound),
        (RegistryError::Damaged { key: "k".into(), message: "x".into() }.into(), ErrorKind::Corrupt),
        (RegistryError::Restless(name).into(), ErrorKind::Unavailable),
        (RegistryError::Store(denied()).into(), ErrorKind::Invalid),
        (ProtocolError::Store(denied()).into(), ErrorKind::Invalid),
        (ProtocolError::Retired { partition }.into(), ErrorKind::Closed),
        (listen(Io::AddrInUse).into(), ErrorKind::Unavailable),
        (listen(Io::PermissionDenied).into(), ErrorKind::Invalid),
        (file(Io::NotFound).into(), ErrorKind::NotFound),
        (file(Io::UnexpectedEof).into(), ErrorKind::Invalid),
        (LoadError::TooManyErrors { line: 1, refused: 1, allowed: 0 }.into(), ErrorKind::Invalid),
    ];
    for (error, kind) in cases {
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn refused_configuration_exits_with_2_and_failures_with_1() {
    let code = |error: CliError| format!("{:?}", error.exit_code());
    assert_eq!(code(CliError::Usage("x".into())), format!("{:?}", ExitCode::from(2)));
    assert_eq!(code(CliError::internal("x")), format!("{:?}", ExitCode::FAILURE));
}
