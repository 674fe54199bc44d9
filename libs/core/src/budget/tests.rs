//! MEM-1 and MEM-2: permits cover demands, never exceed the total, and everybody comes to its turn.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn mem_1_permits_never_exceed_the_budget() {
    let budget = ByteBudget::new(10 * UNIT);
    let mut first = budget.acquire(4 * UNIT).await;
    first.merge(budget.acquire(6 * UNIT).await);
    assert_eq!((first.bytes(), budget.used_bytes()), (10 * UNIT, 10 * UNIT));
    assert!(budget.try_acquire(1).is_none());
    drop(first);
    assert_eq!(budget.used_bytes(), 0);
}

#[tokio::test]
async fn a_demand_beyond_the_budget_takes_the_whole_budget() {
    let budget = ByteBudget::new(2 * UNIT);
    assert_eq!(budget.acquire(usize::MAX).await.bytes(), 2 * UNIT);
}

#[tokio::test]
async fn mem_2_a_partition_has_its_reserved_bytes_when_others_hold_the_rest() {
    let budget = ByteBudget::new(10 * UNIT);
    let cold = budget.reserve(3 * UNIT).unwrap();
    let _hot = budget.acquire(7 * UNIT).await;
    assert_eq!(cold.acquire(3 * UNIT).await.bytes(), 3 * UNIT);
}

#[tokio::test]
async fn a_waiter_is_seen_as_pressure_until_it_is_served() {
    let budget = ByteBudget::new(UNIT);
    let held = budget.acquire(UNIT).await;
    let waiter = tokio::spawn({
        let budget = budget.clone();
        async move { budget.acquire(UNIT).await }
    });
    tokio::time::timeout(Duration::from_secs(5), budget.pressed()).await.unwrap();
    assert!(budget.is_pressed());
    drop(held);
    drop(waiter.await.unwrap());
    assert!(!budget.is_pressed());
}

/// One partition's doings: it takes, or gives back the oldest that it has.
#[derive(Debug, Clone)]
enum Doing {
    Take(usize, usize),
    GiveBack(usize),
}

fn any_doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        3 => (0usize..4, 1usize..60).prop_map(|(who, units)| Doing::Take(who, units)),
        2 => (0usize..4).prop_map(Doing::GiveBack),
    ]
}

const TOTAL: usize = 32;

async fn run(reserves: [usize; 3], doings: Vec<Doing>) {
    let budget = ByteBudget::new(TOTAL * UNIT);
    let mut partitions: Vec<_> = reserves
        .iter()
        .map(|units| match units {
            0 => budget.unreserved(),
            units => budget.reserve(units * UNIT).unwrap(),
        })
        .collect();
    partitions.push(budget.unreserved());
    let (held, mut tasks) = (Arc::new(Mutex::new(vec![VecDeque::new(); 4])), Vec::new());
    for doing in doings {
        match doing {
            Doing::Take(who, units) => {
                let (partition, held) = (partitions[who].clone(), Arc::clone(&held));
                tasks.push(tokio::spawn(async move {
                    let permit = Arc::new(partition.acquire(units * UNIT).await);
                    assert_eq!(permit.bytes(), units.min(TOTAL) * UNIT, "the whole demand is charged");
                    held.lock().unwrap()[who].push_back(permit);
                }));
            }
            Doing::GiveBack(who) => drop(held.lock().unwrap()[who].pop_front()),
        }
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        let out: usize = held.lock().unwrap().iter().flatten().map(|permit| permit.bytes()).sum();
        assert_eq!(budget.used_bytes(), out);
        assert!(out <= budget.total_bytes());
    }
    // as long as holders give back in the end, everybody comes to its turn, whatever was asked for
    while tasks.iter().any(|task| !task.is_finished()) {
        {
            let mut held = held.lock().unwrap();
            assert!(
                held.iter().any(|permits| !permits.is_empty()),
                "nobody holds anything and somebody waits"
            );
            held.iter_mut().for_each(|permits| drop(permits.pop_front()));
        }
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    held.lock().unwrap().iter_mut().for_each(VecDeque::clear);
    drop(partitions);
    assert!(!budget.is_pressed());
    assert!(budget.reserve(TOTAL * UNIT).is_some(), "nothing is left in use or set aside");
}

proptest! {
    #[test]
    fn mem_1_permits_cover_every_demand_never_exceed_the_total_and_nobody_waits_for_ever(
        reserves in [0usize..6, 0usize..6, 0usize..6],
        doings in proptest::collection::vec(any_doing(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(reserves, doings));
    }
}

#[tokio::test]
async fn mem_1_a_demand_beyond_the_share_is_charged_in_full_and_waits_for_the_common_part() {
    let budget = ByteBudget::new(10 * UNIT);
    let small = budget.reserve(2 * UNIT).unwrap();
    let other = budget.acquire(5 * UNIT).await;
    assert!(small.try_acquire(6 * UNIT).is_none(), "two of its own and three of the common part are free");
    assert_eq!(small.try_acquire(5 * UNIT).unwrap().bytes(), 5 * UNIT);
    drop(other);
    assert_eq!(small.acquire(6 * UNIT).await.bytes(), 6 * UNIT);
}

#[tokio::test]
async fn mem_2_one_who_waits_for_much_does_not_keep_others_from_their_shares() {
    let budget = ByteBudget::new(10 * UNIT);
    let (hot, cold) = (budget.unreserved(), budget.reserve(2 * UNIT).unwrap());
    let held = hot.acquire(7 * UNIT).await;
    let waiter = tokio::spawn(async move { hot.acquire(8 * UNIT).await.bytes() });
    budget.pressed().await;
    assert_eq!(cold.try_acquire(2 * UNIT).unwrap().bytes(), 2 * UNIT);
    assert!(budget.try_acquire(UNIT).is_none(), "what is common goes to who waits");
    drop(held);
    assert_eq!(waiter.await.unwrap(), 8 * UNIT);
}

#[tokio::test]
async fn one_who_gives_up_waiting_leaves_the_line() {
    let budget = ByteBudget::new(4 * UNIT);
    let held = budget.acquire(3 * UNIT).await;
    let waiter = tokio::spawn({
        let budget = budget.clone();
        async move { budget.acquire(4 * UNIT).await }
    });
    budget.pressed().await;
    assert!(budget.try_acquire(UNIT).is_none());
    waiter.abort();
    assert!(waiter.await.is_err());
    assert!(!budget.is_pressed());
    assert!(budget.try_acquire(UNIT).is_some());
    drop(held);
    assert_eq!(budget.used_bytes(), 0);
}
