//! The edge: typed operations on an object store, counted, with errors that tell refused from unclear.
//!
//! Three clients: creates go out once and are never repeated inside the client; small reads, listings and deletes
//! are repeated a little; segments are repeated more. Nothing here decides anything about the protocol.

mod config;
pub(crate) mod transfer;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::sync::Semaphore;

pub use self::config::StoreConfig;
use self::config::{BULK, Place, SINGLE, SMALL};
use crate::error::StoreError;
use crate::paths::{Folder, Object};
use crate::{metrics, probe};

/// Bytes of segments in memory on their way up or down, in MiB, for all of a process.
const TRANSFER_MIB: u32 = 256;

/// The object store; clones share its connections.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    single: Arc<dyn ObjectStore>,
    small: Arc<dyn ObjectStore>,
    bulk: Arc<dyn ObjectStore>,
    root: Path,
    label: String,
    transfer: Arc<Semaphore>,
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Relative to the store's root; [`Object::parse`] reads it.
    pub key: String,
    pub bytes: u64,
}

/// Which client carries a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    Single,
    Small,
}

impl Store {
    /// Checks the configuration and makes the clients; makes the directory of a `file://` store, does no other I/O.
    ///
    /// # Errors
    /// What is refused, by the name of its key.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        match config.place()? {
            Place::File(dir) => {
                if let Some(name) = config.options.keys().next() {
                    let key = format!("store.options.{name:.60}");
                    return Err(StoreError::Config { key, message: "a file store has no options".into() });
                }
                let local = |source| StoreError::Local { path: dir.display().to_string(), source };
                std::fs::create_dir_all(&dir).map_err(local)?;
                let files =
                    LocalFileSystem::new_with_prefix(&dir).map_err(|e| local(std::io::Error::from(e)))?;
                let files: Arc<dyn ObjectStore> = Arc::new(files.with_fsync(true));
                Ok(Self::of([files.clone(), files.clone(), files], Path::default(), config.url.clone()))
            }
            Place::S3 { bucket, prefix } => {
                let builder = config.s3(&bucket, AmazonS3Builder::from_env())?;
                let clients: [Arc<dyn ObjectStore>; 3] = [
                    Arc::new(config::client(&builder, SINGLE)?),
                    Arc::new(config::client(&builder, SMALL)?),
                    Arc::new(config::client(&builder, BULK)?),
                ];
                Ok(Self::of(clients, prefix, config.url.clone()))
            }
        }
    }

    /// A store in memory, for tests.
    pub fn in_memory() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }

    /// A store over any implementation, for simulations and fault injection.
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        let label = store.to_string();
        Self::of([store.clone(), store.clone(), store], Path::default(), label)
    }

    fn of(clients: [Arc<dyn ObjectStore>; 3], root: Path, label: String) -> Self {
        let [single, small, bulk] = clients;
        let transfer = Arc::new(Semaphore::new(TRANSFER_MIB as usize));
        Self(Arc::new(Inner { single, small, bulk, root, label, transfer }))
    }

    /// Refuses a store that cannot carry the protocol (FENCE-5).
    ///
    /// # Errors
    /// `Unfit` with what it does wrong, or why it could not be tried.
    pub async fn probe(&self) -> Result<(), StoreError> {
        probe::run(self).await
    }

    /// Creates an object unless its name is taken. Any error but `Denied` leaves open whether it happened.
    pub(crate) async fn create(&self, object: &Object, body: Bytes) -> Result<(), StoreError> {
        let bytes = body.len() as u64;
        let options = PutOptions::from(PutMode::Create);
        let sent = self.0.single.put_opts(&self.path(object), PutPayload::from(body), options).await;
        self.counted("create", object, sent)?;
        metrics::bytes("up", bytes);
        Ok(())
    }

    /// Writes an object, whatever stood there.
    pub(crate) async fn put(&self, object: &Object, body: Bytes) -> Result<(), StoreError> {
        let bytes = body.len() as u64;
        let sent = self.0.small.put(&self.path(object), PutPayload::from(body)).await;
        self.counted("put", object, sent)?;
        metrics::bytes("up", bytes);
        Ok(())
    }

    /// Reads an object of at most `limit` bytes; `None` when there is none.
    pub(crate) async fn get(
        &self,
        object: &Object,
        limit: u64,
        carrier: Carrier,
    ) -> Result<Option<Bytes>, StoreError> {
        let client = match carrier {
            Carrier::Single => &self.0.single,
            Carrier::Small => &self.0.small,
        };
        let found = match self.counted("get", object, client.get(&self.path(object)).await) {
            Err(StoreError::NotFound { .. }) => return Ok(None),
            found => found?,
        };
        if found.meta.size > limit {
            return Err(StoreError::TooLarge { key: object.to_string(), bytes: found.meta.size, limit });
        }
        let body = found.bytes().await.map_err(|e| failure("get", &object.to_string(), e))?;
        metrics::bytes("down", body.len() as u64);
        Ok(Some(body))
    }

    /// The size of an object; `None` when there is none.
    pub(crate) async fn size(&self, object: &Object) -> Result<Option<u64>, StoreError> {
        match self.counted("head", object, self.0.small.head(&self.path(object)).await) {
            Err(StoreError::NotFound { .. }) => Ok(None),
            found => Ok(Some(found?.size)),
        }
    }

    /// Deletes objects by their keys; those that are gone already count as deleted.
    pub(crate) async fn delete(&self, keys: Vec<String>) -> Result<(), StoreError> {
        let root = self.0.root.clone();
        let paths = futures::stream::iter(keys).map(move |key| Ok(join(&root, &key))).boxed();
        let mut deleted = self.0.small.delete_stream(paths);
        while let Some(result) = deleted.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => metrics::request("delete", "ok"),
                Err(error) => {
                    metrics::request("delete", outcome(&error));
                    return Err(failure("delete", "an object", error));
                }
            }
        }
        Ok(())
    }

    /// Every object below a folder; the listing may be stale.
    pub(crate) async fn list(&self, folder: &Folder) -> Result<Vec<Listed>, StoreError> {
        let prefix = join(&self.0.root, &folder.to_string());
        let key = |path: &Path| self.relative(path);
        let listed: Vec<_> = self
            .0
            .small
            .list(Some(&prefix))
            .map_ok(|meta| Listed { key: key(&meta.location), bytes: meta.size })
            .try_collect()
            .await
            .map_err(|e| {
                metrics::request("list", outcome(&e));
                failure("list", &folder.to_string(), e)
            })?;
        metrics::request("list", "ok");
        Ok(listed)
    }

    /// The names of the folders right below a folder.
    pub(crate) async fn folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        let prefix = join(&self.0.root, &folder.to_string());
        let listed = self.0.small.list_with_delimiter(Some(&prefix)).await.map_err(|e| {
            metrics::request("list", outcome(&e));
            failure("list", &folder.to_string(), e)
        })?;
        metrics::request("list", "ok");
        let names = listed.common_prefixes.iter().filter_map(|p| p.parts().next_back());
        Ok(names.map(|part| part.as_ref().to_owned()).collect())
    }

    fn path(&self, object: &Object) -> Path {
        join(&self.0.root, &object.to_string())
    }

    fn relative(&self, path: &Path) -> String {
        match path.prefix_match(&self.0.root) {
            Some(parts) => Path::from_iter(parts).to_string(),
            None => path.to_string(),
        }
    }

    fn counted<T>(
        &self,
        operation: &'static str,
        object: &Object,
        result: object_store::Result<T>,
    ) -> Result<T, StoreError> {
        match result {
            Ok(value) => {
                metrics::request(operation, "ok");
                Ok(value)
            }
            Err(error) => {
                metrics::request(operation, outcome(&error));
                Err(failure(operation, &object.to_string(), error))
            }
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.0.label)
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.label)
    }
}

fn join(root: &Path, key: &str) -> Path {
    // keys are made by `paths` of characters that need no escape
    Path::from_iter(root.parts().chain(Path::from(key).parts()))
}

fn outcome(error: &object_store::Error) -> &'static str {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => "absent",
        Error::AlreadyExists { .. } | Error::Precondition { .. } => "exists",
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => "denied",
        _ => "failed",
    }
}

fn failure(operation: &'static str, key: &str, error: object_store::Error) -> StoreError {
    use object_store::Error;
    let key = key.to_owned();
    let message: String = error.to_string().chars().take(400).collect();
    match error {
        // a create answers so when there is no bucket
        Error::NotFound { .. } if matches!(operation, "create" | "put" | "upload") => {
            StoreError::Unavailable { operation, key, message }
        }
        Error::NotFound { .. } => StoreError::NotFound { key },
        Error::AlreadyExists { .. } | Error::Precondition { .. } => StoreError::AlreadyExists { key },
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            StoreError::Denied { operation, key, message }
        }
        Error::NotImplemented { .. } | Error::NotSupported { .. } => StoreError::Unfit(message),
        _ => StoreError::Unavailable { operation, key, message },
    }
}
