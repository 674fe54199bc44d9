//! The protocol's decisions.

use thiserror::Error;

/// Which rule a publication breaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishRefusal {
    #[error("the next offset goes back")]
    Back,
}
