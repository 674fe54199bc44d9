//! One suite for every log: what `source.rs` promises, checked on the local log always and on real Apache Kafka
//! when `SLUICE_TEST_KAFKA` names a broker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bed;
mod cases;

/// Runs every case on the log that `$bed` opens; a bed that is not there skips the case and says so.
macro_rules! conformance {
    ($name:ident, $bed:expr, [$($case:ident),* $(,)?]) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    match $bed.await {
                        Some(bed) => crate::cases::$case(bed).await,
                        None => println!("skipped: SLUICE_TEST_KAFKA is not set"),
                    }
                }
            )*
        }
    };
}

macro_rules! on_every_log {
    ($cases:tt) => {
        conformance!(local, crate::bed::local(), $cases);
        conformance!(kafka, crate::bed::kafka(), $cases);
    };
}

on_every_log!([
    records_come_in_order_and_exactly_once,
    key_1_equal_keys_share_the_partition_that_the_java_client_picks,
    headers_keys_and_null_values_arrive_as_they_were_written,
    fold_3_reading_again_from_any_offset_gives_the_same_records,
    a_gap_moves_the_next_offset,
    a_stream_waits_for_what_is_written_later,
    mem_1_a_reader_stops_at_its_budget_and_goes_on_when_bytes_are_freed,
    mem_2_a_partition_that_is_not_read_does_not_stop_the_others,
    liv_1_bad_messages_become_dead_letters_and_the_partition_goes_on,
    log_1_a_truncated_log_is_an_error_that_says_what_is_lost,
    log_1_truncation_under_a_slow_reader_is_noticed_at_the_first_lost_record,
    a_position_beyond_the_end_is_an_error_of_its_own,
    one_partition_is_opened_anew_while_the_others_go_on,
    a_topic_is_created_once_and_keeps_its_partitions,
    a_message_beyond_the_limit_is_refused_and_the_others_are_written,
    an_unknown_topic_is_named,
    two_members_share_the_work_and_one_takes_over_from_the_other,
    membership_follows_the_topics,
]);
