//! Free ports on 127.0.0.1, for servers that a test starts by itself.

use std::net::TcpListener;

/// Ports that the system gives out to nobody by itself.
const FROM: u16 = 20_000;
const TO: u16 = 32_000;

/// The first of `count` consecutive ports that are free now.
pub(crate) fn free(count: u16) -> u16 {
    // tests of other processes look for ports too: begin somewhere else each time
    let somewhere = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    let begin = u16::try_from(somewhere % u64::from(TO - FROM)).unwrap();
    let candidates = (0..TO - FROM).map(|n| FROM + (begin + n) % (TO - FROM));
    let is_free = |first: &u16| (0..count).all(|n| TcpListener::bind(("127.0.0.1", first + n)).is_ok());
    candidates.filter(|first| first + count < TO).find(is_free).expect("free ports")
}
