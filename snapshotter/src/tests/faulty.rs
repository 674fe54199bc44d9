//! A store that fails as scripted: before or after the effect, with the wrong answer, late, or without conditions.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What happens to one create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// An error, and nothing happened.
    Before,
    /// It happened, but the answer was lost.
    After,
    /// It happened, but a retry on the way saw its own success.
    ExistsThoughMine,
    /// 409 for an operation in flight: "exists already", but nothing is there.
    Conflict,
    /// An error; it happens later, after the name has been read once more.
    Late,
    /// The store refuses.
    Denied,
}

pub(super) const FAULTS: [Fault; 6] =
    [Fault::None, Fault::Before, Fault::After, Fault::ExistsThoughMine, Fault::Conflict, Fault::Late];

/// A store in memory with faults.
#[derive(Debug, Default)]
pub(super) struct Faulty {
    inner: Arc<InMemory>,
    /// One per create to come; when there is none left, all is well.
    pub(super) script: Mutex<VecDeque<Fault>>,
    late: Mutex<Vec<(Path, PutPayload, u32)>>,
    /// Every put, in order, and whether its name was free.
    pub(super) puts: Arc<Mutex<Vec<(String, bool)>>>,
    /// Every delete, in order, and how many puts came before it.
    pub(super) deletes: Arc<Mutex<Vec<(String, usize)>>>,
    /// When it is set, so many deletes succeed, and then no more.
    pub(super) deletes_left: Arc<Mutex<Option<usize>>>,
    ignores_conditions: bool,
    /// Reads of names that end so fail.
    pub(super) unreadable: Mutex<Option<String>>,
}

impl Faulty {
    pub(super) fn ignoring_conditions() -> Self {
        Self { ignores_conditions: true, ..Self::default() }
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

fn broken(what: &str) -> Error {
    Error::Generic { store: "faulty", source: what.to_owned().into() }
}

fn exists(at: &Path) -> Error {
    Error::AlreadyExists { path: at.to_string(), source: "scripted".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, body: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let create = options.mode == PutMode::Create;
        let free = self.inner.get_opts(at, GetOptions::default()).await.is_err();
        self.puts.lock().unwrap().push((at.to_string(), free));
        if self.ignores_conditions {
            options.mode = PutMode::Overwrite;
        }
        let fault = match create {
            true => self.script.lock().unwrap().pop_front().unwrap_or(Fault::None),
            false => Fault::None,
        };
        match fault {
            Fault::None => self.inner.put_opts(at, body, options).await,
            Fault::Before => Err(broken("503")),
            Fault::After => {
                drop(self.inner.put_opts(at, body, options).await);
                Err(broken("reset"))
            }
            Fault::ExistsThoughMine => {
                drop(self.inner.put_opts(at, body, options).await);
                Err(exists(at))
            }
            Fault::Conflict => Err(exists(at)),
            Fault::Denied => Err(Error::PermissionDenied { path: at.to_string(), source: "scripted".into() }),
            Fault::Late => {
                self.late.lock().unwrap().push((at.clone(), body, 1));
                Err(broken("time-out"))
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        o: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, o).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let unreadable = self.unreadable.lock().unwrap().clone();
        if unreadable.is_some_and(|end| at.as_ref().ends_with(&end)) {
            return Err(broken("503"));
        }
        let found = self.inner.get_opts(at, options).await;
        let due: Vec<_> = {
            let mut late = self.late.lock().unwrap();
            late.iter_mut().filter(|l| l.0 == *at).for_each(|l| l.2 = l.2.saturating_sub(1));
            late.extract_if(.., |l| l.0 == *at && l.2 == 0).collect()
        };
        for (at, body, _) in due {
            drop(self.inner.put_opts(&at, body, PutOptions::from(PutMode::Create)).await);
        }
        found
    }

    fn delete_stream(&self, at: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, puts) = (Arc::clone(&self.inner), Arc::clone(&self.puts));
        let (deletes, left) = (Arc::clone(&self.deletes), Arc::clone(&self.deletes_left));
        let allowed = at.map(move |at| -> Result<Path> {
            let at = at?;
            if let Some(left) = left.lock().unwrap().as_mut() {
                *left = left.checked_sub(1).ok_or_else(|| broken("503"))?;
            }
            deletes.lock().unwrap().push((at.to_string(), puts.lock().unwrap().len()));
            Ok(at)
        });
        inner.delete_stream(allowed.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
