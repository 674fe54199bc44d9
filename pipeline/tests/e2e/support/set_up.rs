//! The two set-ups on which the same tests run: the local log with a directory, and real Kafka with a real S3 store.

use std::env::var;

/// Where the log and the store are.
#[derive(Clone, Debug)]
pub(crate) enum SetUp {
    /// The local log and a directory; needs nothing.
    Local,
    /// Servers that the environment names. Credentials and endpoint reach the processes by AWS_* variables.
    Servers { kafka: String, store: String },
}

impl SetUp {
    /// Real servers, when the environment names them; says so when it does not.
    pub(crate) fn servers() -> Option<Self> {
        let (Ok(kafka), Ok(store)) = (var("SLUICE_TEST_KAFKA"), var("SLUICE_TEST_S3_URL")) else {
            println!("skipped: SLUICE_TEST_KAFKA and SLUICE_TEST_S3_URL are not set (see cargo xtask test)");
            return None;
        };
        Some(Self::Servers { kafka, store })
    }
}

/// Whether the long forms of tests are asked for, by SLUICE_TEST_LONG=1.
pub(crate) fn is_long() -> bool {
    var("SLUICE_TEST_LONG").is_ok_and(|long| long == "1")
}

/// A program that the environment names; says so when it does not.
pub(crate) fn program(variable: &str) -> Option<String> {
    let path = var(variable).ok();
    if path.is_none() {
        println!("skipped: {variable} is not set (see cargo xtask test)");
    }
    path
}

/// Makes two tests of each function: one per set-up.
macro_rules! on_both_set_ups {
    ($($name:ident),* $(,)?) => {
        mod local {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::support::set_up::SetUp::Local).await;
                }
            )*
        }
        $crate::support::set_up::on_servers!($($name),*);
    };
}

/// Makes a test of each function on the servers only.
macro_rules! on_servers {
    ($($name:ident),* $(,)?) => {
        mod kafka_and_s3 {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if let Some(set_up) = $crate::support::set_up::SetUp::servers() {
                        super::$name(set_up).await;
                    }
                }
            )*
        }
    };
}

pub(crate) use {on_both_set_ups, on_servers};
