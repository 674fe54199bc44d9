//! The cases, each named after what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sluice_connectors::partitioner::partition_of;
use sluice_connectors::{LogBounds, LogError, MembershipEvent, Outgoing, TopicDeadLetters, encode};
use sluice_core::{
    ByteBudget, Format, Key, Metadata, Offset, Op, PartitionId, Record, TopicName, TopicPartition,
};
use tokio::sync::{mpsc, watch};

use crate::bed::{Bed, Letters, at, keys, next, read_to, request, upsert, write};

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("key-{i}")).collect()
}

fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

pub(crate) async fn records_come_in_order_and_exactly_once(bed: Bed) {
    let topic = bed.topic(1).await;
    let names = names(0..5000);
    let (first, rest) = names.split_at(2000);
    write(&bed.log, &topic, 0, &borrowed(first)).await;
    let mut request = request(&topic, 0, 0);
    request.limits.max_records = 700;
    let mut stream = bed.log.source.open(request).unwrap();
    let mut records = read_to(&mut stream, 0, 2000).await;
    write(&bed.log, &topic, 0, &borrowed(rest)).await;
    records.extend(read_to(&mut stream, 2000, 5000).await);
    assert_eq!(keys(&records), borrowed(&names));
    assert!(records.iter().zip(0..).all(|(r, i)| r.offset == Offset(i)));
    let bounds = bed.log.source.bounds(&at(&topic, 0)).await;
    assert_eq!(bounds, Ok(LogBounds { start: Offset(0), end: Offset(5000) }));
}

pub(crate) async fn key_1_equal_keys_share_the_partition_that_the_java_client_picks(bed: Bed) {
    let topic = bed.topic(4).await;
    let names = names(0..200);
    let placed = bed.log.producer.produce(&topic, names.iter().map(|n| upsert(n)).collect()).await;
    let mut next = BTreeMap::<PartitionId, u64>::new();
    for (name, placed) in names.iter().zip(placed) {
        let placed = placed.unwrap();
        assert_eq!(placed.partition, partition_of(name.as_bytes(), 4), "{name}");
        let expected = next.entry(placed.partition).or_default();
        assert_eq!(placed.offset, Offset(*expected));
        *expected += 1;
    }
    assert_eq!(next.len(), 4);
}

pub(crate) async fn headers_keys_and_null_values_arrive_as_they_were_written(bed: Bed) {
    let topic = bed.topic(1).await;
    let metadata = Metadata::parse(r#"{"a":[1,{"b":null}]}"#, 100).unwrap();
    let key = Key::new("schlüssel").unwrap();
    let messages = vec![
        encode::upsert(&key, &[0.5, -1.0], &metadata),
        encode::upsert_json(&key, &[0.25, 3.0], &metadata),
        encode::delete(&key),
        // the header says JSON, though the bytes begin like protobuf: only the header can have refused it
        Outgoing {
            value: Some(b"\x08\x01".to_vec()),
            headers: vec![("Content-Type".into(), b"application/json".to_vec())],
            ..upsert("bad")
        },
        Outgoing { value: Some(Vec::new()), ..upsert("empty") },
        Outgoing { key: None, ..upsert("none") },
    ];
    for result in bed.log.producer.produce(&topic, messages).await {
        result.unwrap();
    }
    let letters = Arc::new(Letters::default());
    let mut request = request(&topic, 0, 0);
    request.dead_letters = letters.clone();
    let records = read_to(&mut bed.log.source.open(request).unwrap(), 0, 6).await;
    assert!(records.iter().all(|r| r.key == key && r.timestamp.0 > 1_600_000_000_000));
    let vectors: Vec<_> = records
        .iter()
        .map(|r| match &r.op {
            Op::Upsert(d) => Some((d.vector.as_slice().to_vec(), d.metadata.as_str().to_owned())),
            Op::Delete => None,
        })
        .collect();
    let text = metadata.as_str().to_owned();
    assert_eq!(vectors, [Some((vec![0.5, -1.0], text.clone())), Some((vec![0.25, 3.0], text)), None]);
    let letters = letters.0.lock().unwrap();
    let codes: Vec<_> = letters.iter().map(|l| (l.offset.get(), l.reject.code.as_str())).collect();
    assert_eq!(codes, [(3, "not_json"), (4, "empty_value"), (5, "key_missing")]);
    assert_eq!(letters[0].headers, [("Content-Type".to_owned(), b"application/json".to_vec())]);
    assert_eq!(letters[1].value.as_deref(), Some(b"".as_slice()));
    assert_eq!(letters[2].key, None);
}

pub(crate) async fn fold_3_reading_again_from_any_offset_gives_the_same_records(bed: Bed) {
    let topic = bed.topic(1).await;
    let names = names(0..600);
    write(&bed.log, &topic, 0, &borrowed(&names)).await;
    for start in [0, 1, 17, 299, 599] {
        let mut stream = bed.log.source.open(request(&topic, 0, start)).unwrap();
        let records = read_to(&mut stream, start, 600).await;
        assert_eq!(keys(&records), borrowed(&names[start as usize..]), "from {start}");
    }
    // at the very end there is nothing to say until something is written
    let mut stream = bed.log.source.open(request(&topic, 0, 600)).unwrap();
    write(&bed.log, &topic, 0, &["last"]).await;
    assert_eq!(keys(&read_to(&mut stream, 600, 601).await), ["last"]);
}

pub(crate) async fn a_gap_moves_the_next_offset(bed: Bed) {
    let topic = bed.topic(1).await;
    write(&bed.log, &topic, 0, &["a", "b"]).await;
    let gap = bed.gap(&topic).await;
    let mut stream = bed.log.source.open(request(&topic, 0, 0)).unwrap();
    assert_eq!(keys(&read_to(&mut stream, 0, 2 + gap).await), ["a", "b"]);
    // a gap and nothing else, right from the start of a stream
    let mut inside = bed.second().await.source.open(request(&topic, 0, 2)).unwrap();
    assert!(read_to(&mut inside, 2, 2 + gap).await.is_empty());
    write(&bed.log, &topic, 0, &["c"]).await;
    let records = read_to(&mut stream, 2 + gap, 3 + gap).await;
    assert_eq!((keys(&records), records[0].offset), (vec!["c"], Offset(2 + gap)));
}

pub(crate) async fn a_stream_waits_for_what_is_written_later(bed: Bed) {
    let topic = bed.topic(1).await;
    let mut stream = bed.log.source.open(request(&topic, 0, 0)).unwrap();
    let reader = tokio::spawn(async move { read_to(&mut stream, 0, 2).await });
    write(&bed.log, &topic, 0, &["here"]).await;
    // as another process would
    write(&bed.second().await, &topic, 0, &["elsewhere"]).await;
    assert_eq!(keys(&reader.await.unwrap()), ["here", "elsewhere"]);
}

pub(crate) async fn mem_1_a_reader_stops_at_its_budget_and_goes_on_when_bytes_are_freed(bed: Bed) {
    let topic = bed.topic(1).await;
    let names = names(0..2000);
    write(&bed.log, &topic, 0, &borrowed(&names)).await;
    let budget = ByteBudget::new(16 << 10);
    let mut request = request(&topic, 0, 0);
    request.budget = budget.unreserved();
    request.limits.max_bytes = 4 << 10;
    let mut stream = bed.log.source.open(request).unwrap();
    let (mut held, mut reached) = (Vec::new(), 0);
    // take until the reader waits for bytes, and then what is still on its way
    loop {
        let item = tokio::select! {
            biased;
            batch = next(&mut stream) => Some(batch),
            () = budget.pressed() => futures::FutureExt::now_or_never(next(&mut stream)),
        };
        let Some(batch) = item else { break };
        let batch = batch.unwrap();
        let bytes: usize = batch.records.iter().map(Record::bytes).sum();
        assert!(batch.permit.bytes() >= bytes, "{} for {bytes}", batch.permit.bytes());
        reached = batch.next_offset.get();
        held.push(batch);
    }
    assert!((3..=16).contains(&held.len()) && reached < 2000, "{} batches, {reached} records", held.len());
    held.clear();
    assert_eq!(read_to(&mut stream, reached, 2000).await.len() as u64, 2000 - reached);
    assert_eq!(budget.used_bytes(), 0);
}

pub(crate) async fn mem_2_a_partition_that_is_not_read_does_not_stop_the_others(bed: Bed) {
    let topic = bed.topic(2).await;
    let metadata = Metadata::parse(&format!(r#"{{"text":"{}"}}"#, "x".repeat(8000)), 10_000).unwrap();
    for partition in [0, 1] {
        let one = |i: u32| Outgoing {
            partition: Some(PartitionId(partition)),
            ..encode::upsert(&Key::new(&format!("k{i}")).unwrap(), &[1.0, 2.0], &metadata)
        };
        for result in bed.log.producer.produce(&topic, (0..1000).map(one).collect()).await {
            result.unwrap();
        }
    }
    let budget = ByteBudget::new(4 << 20);
    let open = |partition| {
        let mut request = request(&topic, partition, 0);
        request.budget = budget.reserve(1 << 20).unwrap();
        request.limits.max_bytes = 256 << 10;
        bed.log.source.open(request).unwrap()
    };
    // polled once, so that it has begun, and never again
    let mut stalled = open(0);
    let first = next(&mut stalled).await.unwrap();
    let mut other = open(1);
    assert_eq!(read_to(&mut other, 0, 1000).await.len(), 1000);
    assert!(budget.used_bytes() <= budget.total_bytes());
    let reached = first.next_offset.get();
    let already = first.records.len();
    drop(first);
    assert_eq!(already + read_to(&mut stalled, reached, 1000).await.len(), 1000);
}

pub(crate) async fn liv_1_bad_messages_become_dead_letters_and_the_partition_goes_on(bed: Bed) {
    let topic = bed.topic(1).await;
    let mut messages = Vec::new();
    for i in 0..300 {
        let mut message = upsert(&format!("key-{i}"));
        if i % 10 == 7 {
            message.value = Some(format!("bad {i}").into_bytes());
            message.headers = vec![("trace".into(), b"t".to_vec())];
        }
        messages.push(message);
    }
    for result in bed.log.producer.produce(&topic, messages).await {
        result.unwrap();
    }
    let mut good = request(&topic, 0, 0);
    good.limits.max_records = 64;
    good.dead_letters = Arc::new(TopicDeadLetters::new(bed.log.producer.clone()));
    let mut stream = bed.log.source.open(good).unwrap();
    let (mut count, mut letters, mut reached) = (0, 0, 0);
    while reached < 300 {
        let batch = next(&mut stream).await.unwrap();
        count += batch.records.len();
        letters += batch.dead_letters;
        reached = batch.next_offset.get();
        // the letters of a batch are in the log before the batch is out
        let dead = at(&TopicDeadLetters::topic_of(&topic).unwrap(), 0);
        if letters > 0 {
            assert!(bed.log.source.bounds(&dead).await.unwrap().end >= Offset(letters));
        }
    }
    assert_eq!((count, letters), (270, 30));

    // read back what the dead letters hold, as bad messages once more
    let seen = Arc::new(Letters::default());
    let dead = TopicDeadLetters::topic_of(&topic).unwrap();
    let mut again = request(&dead, 0, 0);
    again.dead_letters = seen.clone();
    again.decoder.format = Format::Json;
    read_to(&mut bed.log.source.open(again).unwrap(), 0, 30).await;
    let seen = seen.0.lock().unwrap();
    for (letter, i) in seen.iter().zip((7..300).step_by(10)) {
        let header = |name: &str| {
            let value = &letter.headers.iter().find(|(n, _)| n == name).unwrap().1;
            String::from_utf8(value.clone()).unwrap()
        };
        assert_eq!(letter.key, Some(format!("key-{i}").into_bytes()));
        assert_eq!(letter.value, Some(format!("bad {i}").into_bytes()));
        assert_eq!(header("sluice.offset"), i.to_string());
        assert_eq!(header("sluice.topic"), topic.as_str());
        assert_eq!(header("sluice.partition"), "0");
        assert_eq!(header("sluice.reason"), "format");
        assert_eq!(header("trace"), "t");
    }
    assert_eq!(seen.len(), 30);
}

pub(crate) async fn log_1_a_truncated_log_is_an_error_that_says_what_is_lost(bed: Bed) {
    let topic = bed.topic(1).await;
    write(&bed.log, &topic, 0, &borrowed(&names(0..100))).await;
    bed.truncate(&at(&topic, 0), 40).await;
    let bounds = bed.log.source.bounds(&at(&topic, 0)).await;
    assert_eq!(bounds, Ok(LogBounds { start: Offset(40), end: Offset(100) }));
    for start in [0, 39] {
        let mut stream = bed.log.source.open(request(&topic, 0, start)).unwrap();
        let error = next(&mut stream).await.unwrap_err();
        let (lost_from, lost_to) = (Offset(start), Offset(40));
        assert_eq!(error, LogError::Truncated { at: at(&topic, 0), lost_from, lost_to });
        assert!(futures::StreamExt::next(&mut stream).await.is_none());
    }
    let mut stream = bed.log.source.open(request(&topic, 0, 40)).unwrap();
    assert_eq!(read_to(&mut stream, 40, 100).await.len(), 60);
}

pub(crate) async fn log_1_truncation_under_a_slow_reader_is_noticed_at_the_first_lost_record(bed: Bed) {
    let topic = bed.topic(1).await;
    // more than any reader has fetched ahead
    let metadata = Metadata::parse(&format!(r#"{{"text":"{}"}}"#, "x".repeat(8000)), 10_000).unwrap();
    let one = |i: u32| encode::upsert(&Key::new(&format!("k{i}")).unwrap(), &[1.0, 2.0], &metadata);
    for result in bed.log.producer.produce(&topic, (0..1500).map(one).collect()).await {
        result.unwrap();
    }
    let mut request = request(&topic, 0, 0);
    request.budget = ByteBudget::new(256 << 10).unreserved();
    request.limits.max_bytes = 64 << 10;
    let mut stream = bed.log.source.open(request).unwrap();
    let mut held = next(&mut stream).await.unwrap();
    bed.truncate(&at(&topic, 0), 1400).await;
    let mut reached = Offset(0);
    let error = loop {
        assert!(held.records.iter().zip(reached.get()..).all(|(r, offset)| r.offset == Offset(offset)));
        reached = held.next_offset;
        drop(held);
        match next(&mut stream).await {
            Ok(batch) => held = batch,
            Err(error) => break error,
        }
    };
    assert!(reached < Offset(1400), "{reached}");
    assert_eq!(error, LogError::Truncated { at: at(&topic, 0), lost_from: reached, lost_to: Offset(1400) });
}

pub(crate) async fn a_position_beyond_the_end_is_an_error_of_its_own(bed: Bed) {
    let topic = bed.topic(1).await;
    write(&bed.log, &topic, 0, &["a", "b"]).await;
    let mut stream = bed.log.source.open(request(&topic, 0, 5)).unwrap();
    let error = next(&mut stream).await.unwrap_err();
    assert_eq!(error, LogError::BeyondEnd { at: at(&topic, 0), start: Offset(5), end: Offset(2) });
}

pub(crate) async fn one_partition_is_opened_anew_while_the_others_go_on(bed: Bed) {
    let topic = bed.topic(2).await;
    let names = names(0..300);
    for partition in [0, 1] {
        write(&bed.log, &topic, partition, &borrowed(&names)).await;
    }
    let open = |partition, start| {
        let mut request = request(&topic, partition, start);
        request.limits.max_records = 10;
        bed.log.source.open(request).unwrap()
    };
    let mut other = open(1, 0);
    let mut reached = 0;
    for start in [0, 100, 20, 0, 299] {
        // dropped in the middle of its batches, or replaced while it is open
        let mut stream = open(0, start);
        let first = next(&mut stream).await.unwrap();
        assert_eq!(first.records[0].offset, Offset(start));
        let batch = next(&mut other).await.unwrap();
        assert_eq!(batch.records[0].offset, Offset(reached));
        reached = batch.next_offset.get();
    }
    let mut left = open(0, 7);
    let mut taken = open(0, 3);
    assert_eq!(read_to(&mut taken, 3, 300).await.len(), 297);
    let ended = async { while next(&mut left).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the first stream has ended");
    assert_eq!(read_to(&mut other, reached, 300).await.len() as u64, 300 - reached);
}

pub(crate) async fn a_topic_is_created_once_and_keeps_its_partitions(bed: Bed) {
    let topic = bed.topic(3).await;
    assert_eq!(bed.log.producer.ensure_topic(&topic, 7).await, Ok(3));
    assert_eq!(bed.second().await.producer.ensure_topic(&topic, 1).await, Ok(3));
    assert_eq!(bed.log.source.partitions(&topic).await, Ok(Some(3)));
    let racing = TopicName::new(&format!("{topic}-race")).unwrap();
    let second = bed.second().await;
    let (a, b) =
        tokio::join!(bed.log.producer.ensure_topic(&racing, 2), second.producer.ensure_topic(&racing, 5));
    assert_eq!(a, b);
}

pub(crate) async fn a_message_beyond_the_limit_is_refused_and_the_others_are_written(bed: Bed) {
    let topic = bed.topic(1).await;
    let huge = Outgoing { value: Some(vec![b'x'; 11 << 20]), ..upsert("huge") };
    let results = bed.log.producer.produce(&topic, vec![upsert("a"), huge, upsert("b")]).await;
    assert!(matches!(results[1], Err(LogError::TooLarge { .. })), "{:?}", results[1]);
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    let mut stream = bed.log.source.open(request(&topic, 0, 0)).unwrap();
    assert_eq!(keys(&read_to(&mut stream, 0, 2).await), ["a", "b"]);
}

pub(crate) async fn an_unknown_topic_is_named(bed: Bed) {
    let unknown = TopicName::new("conformance-unknown").unwrap();
    assert_eq!(bed.log.source.partitions(&unknown).await, Ok(None));
    let expected = LogError::UnknownTopic(unknown.clone());
    assert_eq!(bed.log.source.bounds(&at(&unknown, 0)).await, Err(expected.clone()));
    assert_eq!(bed.log.producer.produce(&unknown, vec![upsert("a")]).await, [Err(expected.clone())]);
    let mut stream = bed.log.source.open(request(&unknown, 0, 0)).unwrap();
    assert_eq!(next(&mut stream).await.unwrap_err(), expected);
    let topic = bed.topic(1).await;
    let beyond = at(&topic, 1);
    let expected = Err(LogError::UnknownPartition(beyond.clone()));
    assert_eq!(bed.log.source.bounds(&beyond).await, expected);
    let misplaced = Outgoing { partition: Some(PartitionId(1)), ..upsert("a") };
    let results = bed.log.producer.produce(&topic, vec![misplaced]).await;
    assert_eq!(results, [Err(LogError::UnknownPartition(beyond))]);
}

type Events = mpsc::Receiver<MembershipEvent>;

/// Applies events to `held` until `enough` is true of it.
async fn until(
    events: &mut Events,
    held: &mut BTreeSet<TopicPartition>,
    enough: impl Fn(&BTreeSet<TopicPartition>) -> bool,
) {
    let follow = async {
        while !enough(held) {
            match events.recv().await.expect("an event") {
                MembershipEvent::Assigned(gained) => {
                    for at in gained {
                        assert!(held.insert(at.clone()), "{at} was assigned twice");
                    }
                }
                MembershipEvent::Revoked { partitions, done } => {
                    for at in partitions {
                        assert!(held.remove(&at), "{at} was not held");
                    }
                    done.send(()).ok();
                }
                MembershipEvent::Failed(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), follow).await.expect("the assignment in time");
}

fn all_of(topic: &TopicName, count: u32) -> BTreeSet<TopicPartition> {
    (0..count).map(|p| at(topic, p)).collect()
}

pub(crate) async fn two_members_share_the_work_and_one_takes_over_from_the_other(bed: Bed) {
    let topic = bed.topic(4).await;
    let all = all_of(&topic, 4);
    let (_keep, topics) = watch::channel(BTreeSet::from([topic.clone()]));
    let (first, second) = (bed.log.membership.clone(), bed.second().await.membership);
    let mut first_events = first.join(topics.clone()).await.unwrap();
    let (mut first_held, mut second_held) = (BTreeSet::new(), BTreeSet::new());
    until(&mut first_events, &mut first_held, |held| *held == all).await;
    first.commit(&at(&topic, 0), Offset(0)).await.unwrap();

    // the second may get a share or wait; nothing is held by both, and after the first has left it holds all
    let mut second_events = second.join(topics).await.unwrap();
    let leaving = tokio::spawn(async move {
        first.leave().await;
        first
    });
    let give_up = until(&mut first_events, &mut first_held, BTreeSet::is_empty);
    let take_over = until(&mut second_events, &mut second_held, |held| *held == all);
    tokio::join!(give_up, take_over);
    let first = leaving.await.unwrap();
    // a commit without a lease is no error
    first.commit(&at(&topic, 0), Offset(0)).await.unwrap();

    // and it may come back
    let leaving = tokio::spawn(async move { second.leave().await });
    until(&mut second_events, &mut second_held, BTreeSet::is_empty).await;
    leaving.await.unwrap();
    let (_keep, topics) = watch::channel(BTreeSet::from([topic.clone()]));
    let mut first_events = first.join(topics).await.unwrap();
    until(&mut first_events, &mut first_held, |held| *held == all).await;
}

pub(crate) async fn membership_follows_the_topics(bed: Bed) {
    let (a, b) = (bed.topic(2).await, bed.topic(1).await);
    let later = TopicName::new(&format!("{a}-later")).unwrap();
    let (change, topics) = watch::channel(BTreeSet::new());
    let member = bed.log.membership.clone();
    let mut events = member.join(topics).await.unwrap();
    let mut held = BTreeSet::new();
    change.send(BTreeSet::from([a.clone()])).unwrap();
    until(&mut events, &mut held, |held| *held == all_of(&a, 2)).await;
    change.send(BTreeSet::from([a.clone(), b.clone()])).unwrap();
    until(&mut events, &mut held, |held| held.len() == 3).await;
    change.send(BTreeSet::from([b.clone()])).unwrap();
    until(&mut events, &mut held, |held| *held == all_of(&b, 1)).await;
    // a topic that does not exist yet joins when it does
    change.send(BTreeSet::from([b.clone(), later.clone()])).unwrap();
    bed.log.producer.ensure_topic(&later, 1).await.unwrap();
    until(&mut events, &mut held, |held| held.len() == 2).await;
    change.send(BTreeSet::new()).unwrap();
    until(&mut events, &mut held, BTreeSet::is_empty).await;
    member.leave().await;
}
