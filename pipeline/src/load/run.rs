//! The loop of a load: a thread reads and encodes, chunks of rows are written and acknowledged one after another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use sluice_connectors::{LogError, Placed, Producer};
use sluice_core::{ErrorKind, TopicName};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::rows::{Position, Row, Rows, Total};
use super::{LoadError, StateFile};

/// A chunk is closed at so many rows or bytes; three of them exist at most.
const CHUNK_ROWS: usize = 2000;
const CHUNK_BYTES: usize = 4 << 20;
/// How long an unreachable log is tried before the load gives up; it can go on later.
const GIVE_UP: Duration = Duration::from_secs(120);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// A row that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowError {
    /// The line of a text file, the row of a table; from 1.
    pub line: u64,
    pub message: String,
}

/// What a load did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LoadReport {
    /// Rows that the log acknowledged in this run.
    pub loaded: u64,
    pub refused: u64,
    /// Rows of an earlier run that were not read again.
    pub resumed_after: u64,
    pub seconds: f64,
    pub rows_per_second: f64,
    /// Stopped before the end; a later run goes on.
    pub interrupted: bool,
    /// Loaded to its end by an earlier run, so nothing was done.
    pub already_loaded: bool,
    /// The first refused rows.
    pub errors: Vec<RowError>,
}

/// How far a load is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    pub position: Position,
    pub total: Total,
    pub loaded: u64,
    pub refused: u64,
}

/// What to load, and where to.
pub struct LoadRequest {
    pub rows: Box<dyn Rows>,
    pub producer: Arc<dyn Producer>,
    pub topic: TopicName,
    pub state: Option<StateFile>,
    /// Where `rows` begins.
    pub from: Position,
    /// One refused row more than this ends the load; rows after it are not written.
    pub max_errors: u64,
    /// Refused rows that the report lists.
    pub list_errors: usize,
}

struct Chunk {
    rows: Vec<Row>,
    end: Position,
}

/// Loads until the end of the rows, until `stop`, or until an error. The report is complete in each case.
pub async fn run(
    request: LoadRequest,
    stop: CancellationToken,
    progress: impl FnMut(Progress) + Send,
) -> (LoadReport, Result<(), LoadError>) {
    let LoadRequest { rows, producer, topic, state, from, max_errors, list_errors } = request;
    let total = rows.total();
    let (sender, receiver) = mpsc::channel(1);
    let reader = tokio::task::spawn_blocking(move || read_chunks(rows, &sender));
    let report = LoadReport { resumed_after: from.rows, ..LoadReport::default() };
    let started = Instant::now();
    let mut load = Load {
        producer,
        topic,
        state,
        saved: started,
        position: from,
        total,
        max_errors,
        list_errors,
        report,
        progress,
    };
    let outcome = load.consume(receiver, &stop).await;
    let read = reader.await.unwrap_or_else(|e| Err(LoadError::Reader(e.to_string())));
    let result = outcome.and(read);
    let done = result.is_ok() && !load.report.interrupted;
    let saved = load.save(done);
    let mut report = load.report;
    report.seconds = started.elapsed().as_secs_f64();
    report.rows_per_second = report.loaded as f64 / report.seconds.max(1e-9);
    (report, result.and(saved))
}

/// Reads until the end, an error, or until nobody takes the chunks any more.
fn read_chunks(mut rows: Box<dyn Rows>, sender: &mpsc::Sender<Chunk>) -> Result<(), LoadError> {
    loop {
        let mut chunk = Chunk { rows: Vec::new(), end: Position::default() };
        let mut bytes = 0;
        let mut failed = None;
        let mut ended = false;
        while chunk.rows.len() < CHUNK_ROWS && bytes < CHUNK_BYTES {
            match rows.next() {
                Ok(Some(row)) => {
                    bytes += row.bytes();
                    chunk.end = row.end;
                    chunk.rows.push(row);
                }
                Ok(None) => {
                    ended = true;
                    break;
                }
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        // rows before an error are good
        if !chunk.rows.is_empty() && sender.blocking_send(chunk).is_err() {
            return Ok(());
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if ended {
            return Ok(());
        }
    }
}

/// How far the writing of a chunk came.
enum Written {
    All,
    /// Told to stop before the log had all of it.
    Stopped,
    /// Everything up to `position`; the row after it, `line`, is refused and was one too many.
    Before {
        position: Position,
        line: u64,
    },
}

struct Load<P> {
    producer: Arc<dyn Producer>,
    topic: TopicName,
    state: Option<StateFile>,
    saved: Instant,
    position: Position,
    total: Total,
    max_errors: u64,
    list_errors: usize,
    report: LoadReport,
    progress: P,
}

impl<P: FnMut(Progress) + Send> Load<P> {
    async fn consume(
        &mut self,
        mut receiver: mpsc::Receiver<Chunk>,
        stop: &CancellationToken,
    ) -> Result<(), LoadError> {
        loop {
            let chunk = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                chunk = receiver.recv() => match chunk {
                    Some(chunk) => Some(chunk),
                    None => return Ok(()),
                },
            };
            let Some(chunk) = chunk else {
                self.report.interrupted = true;
                return Ok(());
            };
            match self.write(chunk.rows, stop).await? {
                Written::All => self.position = chunk.end,
                Written::Stopped => {
                    self.report.interrupted = true;
                    return Ok(());
                }
                Written::Before { position, line } => {
                    self.position = position;
                    return Err(self.too_many(line));
                }
            }
            let (position, total) = (self.position, self.total);
            let (loaded, refused) = (self.report.loaded, self.report.refused);
            (self.progress)(Progress { position, total, loaded, refused });
            if self.saved.elapsed() >= SAVE_EVERY {
                self.save(false)?;
            }
        }
    }

    /// Writes the rows of a chunk, as far as the row that is one refusal too many.
    async fn write(&mut self, rows: Vec<Row>, stop: &CancellationToken) -> Result<Written, LoadError> {
        let mut numbers = Vec::with_capacity(rows.len());
        let mut messages = Vec::with_capacity(rows.len());
        let mut written = Written::All;
        let mut position = self.position;
        for row in rows {
            let line = row.end.rows;
            match row.message {
                Ok(message) => {
                    numbers.push(line);
                    messages.push(message);
                }
                Err(text) => self.refuse(line, text),
            }
            if self.report.refused > self.max_errors {
                written = Written::Before { position, line };
                break;
            }
            position = row.end;
        }
        let since = Instant::now();
        let mut pause = FIRST_PAUSE;
        while !messages.is_empty() {
            let results = self.producer.produce(&self.topic, messages.clone()).await;
            let Some((done, error)) = self.settle(&numbers, &results)? else { break };
            numbers.drain(..done);
            messages.drain(..done);
            if since.elapsed() > GIVE_UP {
                return Err(error.into());
            }
            tracing::warn!(topic = %self.topic, %error, "rows not written, will retry");
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Written::Stopped),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
        Ok(written)
    }

    /// Counts results in order, up to the first that has to be tried again. Everything after that one is written
    /// again too, so that rows of one key stay in order.
    fn settle(
        &mut self,
        numbers: &[u64],
        results: &[Result<Placed, LogError>],
    ) -> Result<Option<(usize, LogError)>, LoadError> {
        for (i, (number, result)) in numbers.iter().zip(results).enumerate() {
            match result {
                Ok(_) => self.report.loaded += 1,
                Err(e @ LogError::TooLarge { .. }) => {
                    self.refuse(*number, e.to_string());
                    if self.report.refused > self.max_errors {
                        // only the log knows how much it takes: what was sent along with the row is written
                        return Err(self.too_many(*number));
                    }
                }
                Err(e) if e.kind() == ErrorKind::Unavailable => return Ok(Some((i, e.clone()))),
                Err(e) => return Err(e.clone().into()),
            }
        }
        Ok(None)
    }

    fn refuse(&mut self, line: u64, message: String) {
        self.report.refused += 1;
        if self.report.errors.len() < self.list_errors {
            self.report.errors.push(RowError { line, message });
        }
    }

    fn too_many(&self, line: u64) -> LoadError {
        LoadError::TooManyErrors { line, refused: self.report.refused, allowed: self.max_errors }
    }

    fn save(&mut self, done: bool) -> Result<(), LoadError> {
        self.saved = Instant::now();
        match &self.state {
            Some(state) => state.save(self.position, done),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use sluice_connectors::Outgoing;
    use sluice_core::{IndexName, Offset, PartitionId};

    use super::super::rows::tests::encoder;
    use super::*;

    struct Lines(std::vec::IntoIter<String>, u64);

    impl Rows for Lines {
        fn next(&mut self) -> Result<Option<Row>, LoadError> {
            self.1 += 1;
            let end = Position { rows: self.1, bytes: 0 };
            Ok(self.0.next().map(|line| Row { end, message: encoder(2).json(line.as_bytes()) }))
        }

        fn total(&self) -> Total {
            Total::Unknown
        }
    }

    /// Keeps keys; fails the messages whose place is in `failures`, once each.
    #[derive(Default)]
    struct Memory {
        keys: Mutex<Vec<String>>,
        failures: Mutex<Vec<usize>>,
    }

    #[async_trait]
    impl Producer for Memory {
        async fn produce(&self, _: &TopicName, messages: Vec<Outgoing>) -> Vec<Result<Placed, LogError>> {
            let failures = std::mem::take(&mut *self.failures.lock().unwrap());
            let mut keys = self.keys.lock().unwrap();
            let write = |(i, m): (usize, Outgoing)| {
                if failures.contains(&i) {
                    return Err(LogError::Unavailable("away".into()));
                }
                keys.push(String::from_utf8(m.key.unwrap()).unwrap());
                Ok(Placed { partition: PartitionId(0), offset: Offset(0) })
            };
            messages.into_iter().enumerate().map(write).collect()
        }

        async fn ensure_topic(&self, _: &TopicName, partitions: u32) -> Result<u32, LogError> {
            Ok(partitions)
        }
    }

    fn request(lines: Vec<String>, producer: &Arc<Memory>, max_errors: u64) -> LoadRequest {
        LoadRequest {
            rows: Box::new(Lines(lines.into_iter(), 0)),
            producer: Arc::clone(producer) as Arc<dyn Producer>,
            topic: TopicName::new("t").unwrap(),
            state: None,
            from: Position::default(),
            max_errors,
            list_errors: 2,
        }
    }

    fn good(id: &str) -> String {
        format!(r#"{{"id":"{id}","vector":[1,2]}}"#)
    }

    #[tokio::test]
    async fn refused_rows_are_told_by_number_and_the_rest_is_loaded() {
        let producer = Arc::new(Memory::default());
        let lines = vec![good("a"), "x".into(), good("b"), "y".into(), "z".into()];
        let (report, result) = run(request(lines, &producer, 10), CancellationToken::new(), |_| ()).await;
        result.unwrap();
        assert_eq!((report.loaded, report.refused), (2, 3));
        assert_eq!(report.errors.iter().map(|e| e.line).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(*producer.keys.lock().unwrap(), ["a", "b"]);
    }

    #[tokio::test]
    async fn too_many_refused_rows_end_the_load() {
        let producer = Arc::new(Memory::default());
        let (_, result) =
            run(request(vec!["x".into(); 3], &producer, 2), CancellationToken::new(), |_| ()).await;
        assert!(matches!(result, Err(LoadError::TooManyErrors { line: 3, refused: 3, allowed: 2 })));
    }

    #[tokio::test]
    async fn no_row_after_one_refusal_too_many_is_written_and_the_next_load_meets_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rows.jsonl");
        std::fs::write(&file, "the file").unwrap();
        let producer = Arc::new(Memory::default());
        for _ in 0..2 {
            let lines = vec![good("a"), "x".into(), good("b"), "y".into(), good("c")];
            let state = StateFile::open(dir.path(), &file, &IndexName::new("docs").unwrap()).unwrap();
            let request = LoadRequest { state: Some(state), ..request(lines, &producer, 1) };
            let (report, result) = run(request, CancellationToken::new(), |_| ()).await;
            let told = result.unwrap_err().to_string();
            assert_eq!(told, "stopped at line 4: it is refused row number 2, --max-errors allows 1");
            assert_eq!((report.loaded, report.refused), (2, 2));
            assert_eq!(*producer.keys.lock().unwrap(), ["a", "b"]);
            producer.keys.lock().unwrap().clear();
        }
        let state = StateFile::open(dir.path(), &file, &IndexName::new("docs").unwrap()).unwrap();
        let resume = state.resume();
        assert_eq!((resume.position.rows, resume.done), (3, false));
    }

    #[tokio::test]
    async fn after_an_outage_everything_from_the_failed_row_on_is_written_again_in_order() {
        let producer = Arc::new(Memory { failures: Mutex::new(vec![1]), ..Memory::default() });
        let lines = ["a", "k", "k2", "b"].map(good).to_vec();
        let (report, result) = run(request(lines, &producer, 0), CancellationToken::new(), |_| ()).await;
        result.unwrap();
        assert_eq!(report.loaded, 4);
        assert_eq!(*producer.keys.lock().unwrap(), ["a", "k2", "b", "k", "k2", "b"]);
    }

    #[tokio::test]
    async fn a_stopped_load_says_so() {
        let stop = CancellationToken::new();
        stop.cancel();
        let producer = Arc::new(Memory::default());
        let (report, result) = run(request(vec![good("a")], &producer, 0), stop, |_| ()).await;
        result.unwrap();
        assert!(report.interrupted);
    }
}
