//! Segments up and down: in bounded parts, hashed on the way, never whole in memory when they are large.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutPayload,
};
use tokio::sync::OwnedSemaphorePermit;

use super::{Store, TRANSFER_MIB, failure};
use crate::error::StoreError;
use crate::metrics;
use crate::paths::Object;

/// Up to this size a segment goes up in one request.
pub(super) const SINGLE_PUT: u64 = 64 << 20;
const PART: u64 = 8 << 20;
/// S3's limit.
const MAX_PARTS: u64 = 10_000;
/// Parts of one segment that move at the same time.
const PARALLEL: usize = 4;
const MIB: u64 = 1 << 20;

impl Store {
    /// Uploads a file whose size and digest are known; a file that changed meanwhile is refused before it is whole
    /// in the store.
    pub(crate) async fn upload(
        &self,
        object: &Object,
        path: &FilePath,
        bytes: u64,
        digest: blake3::Hash,
    ) -> Result<(), StoreError> {
        self.upload_by(object, path, (bytes, digest), SINGLE_PUT).await
    }

    pub(crate) async fn upload_by(
        &self,
        object: &Object,
        path: &FilePath,
        (bytes, digest): (u64, blake3::Hash),
        single_put: u64,
    ) -> Result<(), StoreError> {
        let mut reader = PartReader::open(path).await?;
        if reader.bytes != bytes {
            return Err(changed(path, format!("{} bytes instead of {bytes}", reader.bytes)));
        }
        if bytes <= single_put {
            let _permit = self.transfer(bytes).await?;
            let body = reader.next(bytes).await?;
            reader.finish(path, digest)?;
            let sent = self.0.bulk.put(&self.path(object), PutPayload::from(body)).await;
            self.counted("upload", object, sent)?;
        } else {
            let _permit = self.transfer(part_size(bytes) * (PARALLEL as u64 + 1)).await?;
            let begun =
                self.0.bulk.put_multipart_opts(&self.path(object), PutMultipartOptions::default()).await;
            let mut upload = self.counted("upload", object, begun)?;
            if let Err(error) = send_parts(upload.as_mut(), &mut reader, path, bytes, digest).await {
                if let Err(e) = upload.abort().await {
                    tracing::debug!(key = %object, error = %e, "unfinished upload not aborted");
                }
                return Err(error);
            }
            self.counted("upload", object, upload.complete().await)?;
        }
        metrics::bytes("up", bytes);
        Ok(())
    }

    /// Downloads an object into an empty file by parallel ranges, and checks its size and digest.
    pub(crate) async fn download(
        &self,
        object: &Object,
        bytes: u64,
        digest: blake3::Hash,
        to: (File, &FilePath),
    ) -> Result<(), StoreError> {
        self.read_through(object, bytes, digest, Some(to.0), to.1).await
    }

    /// Reads an object once and checks its size and digest.
    pub(crate) async fn verify(
        &self,
        object: &Object,
        bytes: u64,
        digest: blake3::Hash,
    ) -> Result<(), StoreError> {
        self.read_through(object, bytes, digest, None, FilePath::new("")).await
    }

    async fn read_through(
        &self,
        object: &Object,
        bytes: u64,
        digest: blake3::Hash,
        mut file: Option<File>,
        path: &FilePath,
    ) -> Result<(), StoreError> {
        let damaged = |message: String| StoreError::Damaged { key: object.to_string(), message };
        match self.size(object).await? {
            None => return Err(StoreError::NotFound { key: object.to_string() }),
            Some(found) if found != bytes => {
                return Err(damaged(format!("{found} bytes instead of {bytes}")));
            }
            Some(_) => {}
        }
        let _permit = self.transfer(PART * (PARALLEL as u64 + 1)).await?;
        let ranges = (0..bytes.div_ceil(PART)).map(|i| i * PART..((i + 1) * PART).min(bytes));
        let mut parts = futures::stream::iter(ranges)
            .map(|range| async move {
                let expected = range.end - range.start;
                let options = GetOptions { range: Some(GetRange::Bounded(range)), ..Default::default() };
                let found = self.0.bulk.get_opts(&self.path(object), options).await;
                let body = self.counted("fetch", object, found)?.bytes().await;
                let body = body.map_err(|e| failure("fetch", &object.to_string(), e))?;
                if body.len() as u64 != expected {
                    let message = format!("{} bytes of a range of {expected}", body.len());
                    let key = object.to_string();
                    return Err(StoreError::Unavailable { operation: "fetch", key, message });
                }
                metrics::bytes("down", expected);
                Ok(body)
            })
            .buffered(PARALLEL);
        let mut hasher = blake3::Hasher::new();
        while let Some(part) = parts.try_next().await? {
            let path = path.to_owned();
            (file, hasher) = blocking(move || {
                hasher.update(&part);
                if let Some(file) = &mut file {
                    file.write_all(&part).map_err(|e| local(&path, e))?;
                }
                Ok((file, hasher))
            })
            .await?;
        }
        match hasher.finalize() {
            found if found == digest => Ok(()),
            found => Err(damaged(format!("digest {found} instead of {digest}"))),
        }
    }

    /// Waits for room in the memory that all transfers share.
    async fn transfer(&self, bytes: u64) -> Result<OwnedSemaphorePermit, StoreError> {
        let mib = bytes.div_ceil(MIB).clamp(1, u64::from(TRANSFER_MIB)) as u32;
        let permit = Arc::clone(&self.0.transfer).acquire_many_owned(mib).await;
        permit.map_err(|e| StoreError::Task(e.to_string()))
    }
}

fn part_size(bytes: u64) -> u64 {
    PART.max(bytes.div_ceil(MAX_PARTS))
}

async fn send_parts(
    upload: &mut dyn MultipartUpload,
    reader: &mut PartReader,
    path: &FilePath,
    bytes: u64,
    digest: blake3::Hash,
) -> Result<(), StoreError> {
    let key = path.display().to_string();
    let failed = |e| failure("upload", &key, e);
    let part = part_size(bytes);
    let mut moving = FuturesUnordered::new();
    let mut left = bytes;
    while left > 0 {
        let body = reader.next(part.min(left)).await?;
        left -= body.len() as u64;
        moving.push(upload.put_part(PutPayload::from(body)));
        if moving.len() >= PARALLEL {
            moving.try_next().await.map_err(failed)?;
        }
    }
    reader.finish(path, digest)?;
    while moving.try_next().await.map_err(failed)?.is_some() {}
    Ok(())
}

/// Reads a file front to back off the runtime's threads, hashing as it goes.
struct PartReader {
    bytes: u64,
    state: Option<(File, blake3::Hasher)>,
}

impl PartReader {
    async fn open(path: &FilePath) -> Result<Self, StoreError> {
        let path = path.to_owned();
        blocking(move || {
            let file = File::open(&path).map_err(|e| local(&path, e))?;
            let bytes = file.metadata().map_err(|e| local(&path, e))?.len();
            Ok(Self { bytes, state: Some((file, blake3::Hasher::new())) })
        })
        .await
    }

    async fn next(&mut self, bytes: u64) -> Result<Bytes, StoreError> {
        let Some((mut file, mut hasher)) = self.state.take() else {
            return Err(StoreError::Task("the file was read to an error before".into()));
        };
        let (state, body) = blocking(move || {
            let length = usize::try_from(bytes).map_err(|e| StoreError::Task(e.to_string()))?;
            let mut body = vec![0; length];
            file.read_exact(&mut body).map_err(|e| local(FilePath::new("segment file"), e))?;
            hasher.update(&body);
            Ok(((file, hasher), body))
        })
        .await?;
        self.state = Some(state);
        Ok(body.into())
    }

    fn finish(&self, path: &FilePath, digest: blake3::Hash) -> Result<(), StoreError> {
        let found = self.state.as_ref().map(|(_, hasher)| hasher.finalize());
        if found == Some(digest) { Ok(()) } else { Err(changed(path, "another digest".into())) }
    }
}

fn changed(path: &FilePath, message: String) -> StoreError {
    StoreError::Damaged { key: path.display().to_string(), message }
}

pub(crate) fn local(path: &FilePath, source: std::io::Error) -> StoreError {
    StoreError::Local { path: path.display().to_string(), source }
}

/// Runs file work off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(StoreError::Task(e.to_string()).into()),
    }
}
