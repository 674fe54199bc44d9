//! SEG-1 at the cache: verified, fetched once, shared, bounded, fetched again when damaged.

use futures::future::join_all;
use sluice_core::{ErrorKind, Key, Metadata, Op, Record, Schema, Vector};
use sluice_segment::{BuildOptions, Built, GrowingSet, Segment, seal};

use super::*;
use crate::SegmentCache;
use crate::paths::Object;

/// Seals a small real segment.
fn build(dir: &TempDir, name: &str, rows: u32) -> Built {
    let schema: Schema = serde_json::from_str(r#"{"dimension":4,"metric":"l2","fields":{}}"#).unwrap();
    let schema = Arc::new(schema);
    let mut set = GrowingSet::new(schema.clone());
    for row in 0..rows {
        let vector = vec![row as f32, 1.0, 2.0, 3.0];
        let document = sluice_core::Document {
            vector: Vector::try_new(vector, schema.dimension, schema.metric).unwrap(),
            metadata: Metadata::empty(),
            fields: schema.field_values(&Metadata::empty()).unwrap(),
        };
        let key = Key::new(&format!("{name}-{row}")).unwrap();
        let offset = Offset(row.into());
        set.apply(Record { key, offset, timestamp: Timestamp(0), op: Op::Upsert(document) });
    }
    let options = BuildOptions { seed: 1, ..BuildOptions::default() };
    seal(&set, &options, &dir.path().join(name), &false.into()).unwrap()
}

fn entry(session: &mut Session, built: &Built) -> SegmentEntry {
    let id = session.owner.new_segment_id();
    let (bytes, digest, records) = (built.bytes, built.digest, built.records);
    SegmentEntry { id, bytes, digest, records, deleted: RoaringBitmap::new() }
}

struct Setup {
    store: Store,
    dir: TempDir,
    entries: Vec<SegmentEntry>,
}

/// `count` uploaded segments of about the same size, and a directory for the cache.
async fn setup(count: usize) -> Setup {
    let (store, clock) = (memory(), Arc::new(TestClock::default()));
    let mut session = Session::claim(&store, &partition(), &clock).await;
    let dir = tempfile::tempdir().unwrap();
    let mut entries = Vec::new();
    for number in 0..count {
        let built = build(&dir, &format!("built-{number}"), 50);
        let entry = entry(&mut session, &built);
        session.owner.upload(entry.id, &built.path, built.bytes, built.digest).await.unwrap();
        entries.push(entry);
    }
    Setup { store, dir, entries }
}

impl Setup {
    fn cache(&self, max_bytes: u64) -> SegmentCache {
        SegmentCache::open(&self.dir.path().join("cache"), max_bytes, self.store.clone()).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.dir.path().join("cache")).unwrap();
        files.map(|f| f.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[tokio::test]
async fn a_segment_is_fetched_once_opened_once_and_shared() {
    let setup = setup(1).await;
    let cache = setup.cache(1 << 30);
    let p = partition();
    let got = join_all((0..16).map(|_| cache.get(&p, &setup.entries[0]))).await;
    let got: Vec<Arc<Segment>> = got.into_iter().map(Result::unwrap).collect();
    assert!(got.iter().all(|s| Arc::ptr_eq(s, &got[0])));
    assert_eq!((got[0].len(), got[0].find("built-0-7")), (50, Some(7)));
    assert_eq!(setup.files(), [format!("{}.seg", setup.entries[0].digest.to_hex())]);
    // another process on the same directory needs no store
    let other = SegmentCache::open(&setup.dir.path().join("cache"), 1 << 30, memory()).unwrap();
    assert_eq!(other.get(&partition(), &setup.entries[0]).await.unwrap().len(), 50);
}

#[tokio::test]
async fn seg_1_whole_files_are_read_only_and_are_evicted_and_replaced_all_the_same() {
    let setup = setup(2).await;
    let [first, second] = [0, 1].map(|i| &setup.entries[i]);
    let path = |e: &SegmentEntry| setup.dir.path().join(format!("cache/{}.seg", e.digest.to_hex()));
    let readonly = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().readonly();
    let cache = setup.cache(first.bytes + second.bytes / 2);
    let fetched = cache.get(&partition(), first).await.unwrap();
    assert!(readonly(path(first)), "fetched");
    drop(fetched);
    let before = std::fs::metadata(path(first)).unwrap().modified().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    drop(cache.get(&partition(), first).await.unwrap());
    assert!(std::fs::metadata(path(first)).unwrap().modified().unwrap() > before, "still noted as used");
    drop(cache.get(&partition(), second).await.unwrap());
    assert_eq!(setup.files(), [format!("{}.seg", second.digest.to_hex())], "evicted");
    // moved in, over a file that is there already, and found by another process without protection
    let built = setup.dir.path().join("built.seg");
    std::fs::copy(path(second), &built).unwrap();
    let (bytes, digest, records) = (second.bytes, second.digest, second.records);
    let made = Built { path: built, bytes, digest, records };
    drop(cache.adopt(&made).await.unwrap());
    assert!(readonly(path(second)), "moved in");
    std::fs::copy(path(second), setup.dir.path().join("copy")).unwrap();
    std::fs::remove_file(path(second)).unwrap();
    std::fs::write(path(second), std::fs::read(setup.dir.path().join("copy")).unwrap()).unwrap();
    assert!(!readonly(path(second)));
    drop(setup.cache(1 << 30).get(&partition(), second).await.unwrap());
    assert!(readonly(path(second)), "of a program that did not protect it");
}

#[tokio::test]
async fn seg_1_a_damaged_cache_file_is_fetched_again() {
    let setup = setup(2).await;
    let [first, second] = [0, 1].map(|i| &setup.entries[i]);
    let path = |e: &SegmentEntry| setup.dir.path().join(format!("cache/{}.seg", e.digest.to_hex()));
    drop(setup.cache(1 << 30).get(&partition(), first).await.unwrap());
    let good = std::fs::read(path(first)).unwrap();
    drop(setup.cache(1 << 30).get(&partition(), second).await.unwrap());
    let other = std::fs::read(path(second)).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    // damaged, cut, empty, and a good segment under another's name
    for bad in [&flipped[..], &good[..good.len() - 1], &[], &other[..]] {
        // replaced, not written: the file is read-only
        std::fs::remove_file(path(first)).unwrap();
        std::fs::write(path(first), bad).unwrap();
        let segment = setup.cache(1 << 30).get(&partition(), first).await.unwrap();
        assert_eq!(segment.find("built-0-7"), Some(7));
        assert!(std::fs::read(path(first)).unwrap() == good);
    }
}

#[tokio::test]
async fn seg_1_a_damaged_or_missing_object_never_opens() {
    let setup = setup(2).await;
    let object = |e: &SegmentEntry| Object::Segment(partition(), e.id);
    let [first, second] = [0, 1].map(|i| &setup.entries[i]);
    let read = async |e| {
        let found = setup.store.get(&object(e), 1 << 30, crate::store::Carrier::Small).await;
        found.unwrap().unwrap().to_vec()
    };
    let (good, other) = (read(first).await, read(second).await);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let cache = setup.cache(1 << 30);
    for bad in [flipped, good[..good.len() - 1].to_vec(), other, Vec::new(), [&good[..], b"x"].concat()] {
        setup.store.put(&object(first), bad.into()).await.unwrap();
        let error = cache.get(&partition(), first).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(setup.files(), [""; 0], "nothing is left");
    }
    setup.store.delete(vec![object(first).to_string()]).await.unwrap();
    assert_eq!(cache.get(&partition(), first).await.err().unwrap().kind(), ErrorKind::NotFound);
    setup.store.put(&object(first), good.into()).await.unwrap();
    assert!(cache.get(&partition(), first).await.is_ok(), "and nothing is remembered against it");
    let wrong = SegmentEntry { records: 49, ..second.clone() };
    assert_eq!(cache.get(&partition(), &wrong).await.err().unwrap().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn the_cache_is_bounded_and_what_is_in_use_stays() {
    let setup = setup(6).await;
    let size = setup.entries.iter().map(|e| e.bytes).max().unwrap();
    let cache = setup.cache(size * 3);
    let kept = cache.get(&partition(), &setup.entries[0]).await.unwrap();
    for entry in &setup.entries {
        cache.get(&partition(), entry).await.unwrap();
        assert!(cache.bytes().unwrap() <= size * 3);
    }
    assert!(cache.path(&setup.entries[0].digest).is_some(), "in use");
    assert_eq!(kept.find("built-0-7"), Some(7));
    // more in use than fits: serving goes first
    let p = partition();
    let all = join_all(setup.entries.iter().map(|e| cache.get(&p, e))).await;
    assert!(all.iter().all(Result::is_ok));
    drop((all, kept));
    cache.get(&partition(), &setup.entries[5]).await.unwrap();
    cache.get(&partition(), &setup.entries[0]).await.unwrap();
}

#[tokio::test]
async fn the_directory_is_looked_through_once_per_sixteenth_of_the_limit() {
    let setup = setup(5).await;
    let size = setup.entries.iter().map(|e| e.bytes).max().unwrap();
    // room for two files between two looks
    let (limit, p) = (size * 32 + size / 2 * 16, partition());
    let cache = setup.cache(limit);
    // of another process on the same directory, and as large as the limit
    let flood = setup.dir.path().join(format!("cache/{}.seg", blake3::hash(b"flood").to_hex()));
    let fill = || std::fs::File::create(&flood).unwrap().set_len(limit).unwrap();
    fill();
    drop(cache.get(&p, &setup.entries[0]).await.unwrap());
    assert!(!flood.exists(), "the first look");
    fill();
    for entry in &setup.entries[1..3] {
        drop(cache.get(&p, entry).await.unwrap());
        assert!(flood.exists(), "not looked at");
    }
    drop(cache.get(&p, &setup.entries[3]).await.unwrap());
    assert!(!flood.exists() && cache.bytes().unwrap() <= limit);
}

#[tokio::test]
async fn leftovers_of_a_killed_process_go_and_those_of_a_living_one_stay() {
    let setup = setup(1).await;
    let dir = setup.dir.path().join("cache");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("dead.tmp"), b"half").unwrap();
    let alive = std::fs::File::create(dir.join("alive.tmp")).unwrap();
    alive.lock().unwrap();
    let cache = setup.cache(1 << 30);
    assert_eq!(setup.files(), ["alive.tmp"]);
    cache.get(&partition(), &setup.entries[0]).await.unwrap();
}

#[tokio::test]
async fn a_file_that_was_just_built_is_adopted_and_needs_no_store() {
    let setup = setup(0).await;
    let cache = setup.cache(1 << 30);
    let built = build(&setup.dir, "new", 9);
    let segment = cache.adopt(&built).await.unwrap();
    assert_eq!(segment.len(), 9);
    assert!(!built.path.exists());
    let (store, clock) = (memory(), Arc::new(TestClock::default()));
    let mut session = Session::claim(&store, &partition(), &clock).await;
    let entry = entry(&mut session, &built);
    assert!(Arc::ptr_eq(&segment, &cache.get(&partition(), &entry).await.unwrap()));
    let mut wrong = build(&setup.dir, "wrong", 9);
    wrong.records = 8;
    assert_eq!(cache.adopt(&wrong).await.err().unwrap().kind(), ErrorKind::Internal);
}
