//! What an error of the operating system makes its handler do.

use std::io::{Error, ErrorKind as Io};

use sluice_core::ErrorKind;

/// The kind of `error`: what asking again in the same way cannot cure is not unavailable.
pub(crate) fn io_kind(error: &Error) -> ErrorKind {
    match error.kind() {
        Io::NotFound => ErrorKind::NotFound,
        Io::AddrNotAvailable
        | Io::AlreadyExists
        | Io::InvalidData
        | Io::InvalidFilename
        | Io::InvalidInput
        | Io::IsADirectory
        | Io::NotADirectory
        | Io::PermissionDenied
        | Io::ReadOnlyFilesystem
        | Io::UnexpectedEof => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    }
}
