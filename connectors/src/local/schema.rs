//! The file: its tables, how a connection is set up, and how errors read.
//!
//! ```text
//! topic     id, name, partitions
//! partition slot, topic, number, start, next      slot numbers the partitions of all topics
//! message   place = slot << 40 | offset, timestamp, key?, headers?, value?
//! ```
//!
//! One integer key keeps each partition's messages together in offset order, and a row's bytes in a plain table
//! rather than in an index.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};
use sluice_core::{Offset, TopicName, TopicPartition};

use crate::error::LogError;
use crate::source::LogBounds;

/// "SLUI": marks the file as ours.
const APPLICATION_ID: i64 = 0x534c_5549;
const VERSION: i64 = 1;
/// How long a statement waits for another process's lock.
const BUSY: Duration = Duration::from_secs(10);
/// Offsets take the low 40 bits of a place.
const OFFSET_BITS: u32 = 40;
/// The first offset that a partition cannot hold.
pub(super) const MAX_OFFSET: u64 = 1 << OFFSET_BITS;
/// Slots take the bits above, without the sign.
pub(super) const MAX_SLOT: i64 = 1 << (62 - OFFSET_BITS);

const TABLES: &str = "
    CREATE TABLE topic (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL) STRICT;
    CREATE TABLE partition (slot INTEGER PRIMARY KEY, topic INTEGER NOT NULL REFERENCES topic, number INTEGER NOT NULL,
        start INTEGER NOT NULL, next INTEGER NOT NULL, UNIQUE (topic, number)) STRICT;
    CREATE TABLE message (place INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, key BLOB, headers BLOB, value BLOB)
        STRICT;";

/// The number of a partition within the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Slot(pub(super) i64);

impl Slot {
    /// Where the message at `offset` stands; one past the last place where the offset is out of range.
    pub(super) fn place(self, offset: Offset) -> i64 {
        (self.0 << OFFSET_BITS) + offset.get().min(MAX_OFFSET) as i64
    }

    pub(super) fn offset(self, place: i64) -> Offset {
        Offset(place.saturating_sub(self.0 << OFFSET_BITS).max(0) as u64)
    }
}

/// Opens the file for its writer, creating it where it is absent.
pub(super) fn create(file: &Path) -> Result<Connection, LogError> {
    let mut connection = connect(file, OpenFlags::SQLITE_OPEN_CREATE)?;
    // 8 KiB: a message of a few hundred dimensions fits a page with its neighbours
    connection.pragma_update(None, "page_size", 8192).map_err(sql)?;
    to_wal(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(sql)?;
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
    let pragma = |name| change.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sql);
    let tables = change.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
    match (pragma("application_id")?, pragma("user_version")?, tables.map_err(sql)?) {
        (APPLICATION_ID, VERSION, _) => {}
        (0, 0, 0) => {
            change.execute_batch(TABLES).map_err(sql)?;
            change.pragma_update(None, "application_id", APPLICATION_ID).map_err(sql)?;
            change.pragma_update(None, "user_version", VERSION).map_err(sql)?;
        }
        (APPLICATION_ID, version, _) => {
            let message =
                format!("the local log has version {version}, this program reads version {VERSION}");
            return Err(LogError::Corrupt(message));
        }
        _ => return Err(LogError::Corrupt(format!("{} is not a local log", file.display()))),
    }
    change.commit().map_err(sql)?;
    Ok(connection)
}

/// Opens the existing file for reading.
pub(super) fn open(file: &Path) -> Result<Connection, LogError> {
    let connection = connect(file, OpenFlags::empty())?;
    connection.pragma_update(None, "query_only", true).map_err(sql)?;
    // one connection per partition: 512 KiB of pages are plenty for reading onwards
    connection.pragma_update(None, "cache_size", -512).map_err(sql)?;
    Ok(connection)
}

fn connect(file: &Path, extra: OpenFlags) -> Result<Connection, LogError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | extra;
    let connection = Connection::open_with_flags(file, flags).map_err(sql)?;
    connection.busy_timeout(BUSY).map_err(sql)?;
    Ok(connection)
}

/// Changes to WAL mode. SQLite's busy timeout does not cover this when two processes create the file at once.
fn to_wal(connection: &Connection) -> Result<(), LogError> {
    let mut tries = 0;
    loop {
        let mode = connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))
            .map_err(sql);
        match mode {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(LogError::Unavailable(format!("the file system allows only {mode} mode")));
            }
            Err(LogError::Unavailable(_)) if tries < 100 => tries += 1,
            Err(error) => return Err(error),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the file knows about topics and partitions.
pub(super) struct Catalogue;

impl Catalogue {
    pub(super) fn partitions(connection: &Connection, topic: &TopicName) -> Result<Option<u32>, LogError> {
        let mut statement =
            connection.prepare_cached("SELECT partitions FROM topic WHERE name = ?1").map_err(sql)?;
        statement.query_row([topic.as_str()], |row| row.get(0)).optional().map_err(sql)
    }

    pub(super) fn slot(connection: &Connection, at: &TopicPartition) -> Result<Slot, LogError> {
        let mut statement = connection
            .prepare_cached(
                "SELECT slot FROM partition JOIN topic ON topic.id = topic WHERE name = ?1 AND number = ?2",
            )
            .map_err(sql)?;
        let slot = statement
            .query_row(params![at.topic.as_str(), at.partition.get()], |row| row.get(0))
            .optional()
            .map_err(sql)?;
        match slot {
            Some(slot) => Ok(Slot(slot)),
            None if Self::partitions(connection, &at.topic)?.is_none() => {
                Err(LogError::UnknownTopic(at.topic.clone()))
            }
            None => Err(LogError::UnknownPartition(at.clone())),
        }
    }

    pub(super) fn bounds(connection: &Connection, slot: Slot) -> Result<LogBounds, LogError> {
        let mut statement =
            connection.prepare_cached("SELECT start, next FROM partition WHERE slot = ?1").map_err(sql)?;
        let (start, end) = statement
            .query_row([slot.0], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
            .map_err(sql)?;
        match (u64::try_from(start), u64::try_from(end)) {
            (Ok(start), Ok(end)) => Ok(LogBounds { start: Offset(start), end: Offset(end) }),
            _ => Err(LogError::Corrupt("a partition of the local log has a negative offset".into())),
        }
    }
}

/// What an error of SQLite makes the caller do.
pub(super) fn sql(error: rusqlite::Error) -> LogError {
    let text = format!("local log: {error}");
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => LogError::Corrupt(text),
        Some(ErrorCode::TooBig) => LogError::Refused(text),
        None => LogError::Corrupt(text),
        Some(_) => LogError::Unavailable(text),
    }
}
