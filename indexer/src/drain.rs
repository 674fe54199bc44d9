//! The end of a worker: what it has applied is published within the deadline, or left to be replayed.

use sluice_core::Offset;
use tracing::{info, warn};

use crate::build::Haste;
use crate::running::Running;
use crate::stage::{MergeStage, SealStage, done, take};
use crate::{IndexerError, Phase};

impl Running {
    /// Publishes what is applied, if the deadline allows it. Returns the next offset that is published, and whether
    /// nothing is left.
    pub(crate) async fn drained(&mut self) -> Result<(Offset, bool), IndexerError> {
        self.report(Phase::Draining);
        let finished = tokio::time::timeout(self.drain, self.finish()).await;
        let partition = self.builder.context.partition.clone();
        let next_offset = self.snapshot.next_offset;
        match finished {
            Ok(result) => {
                result?;
                info!(%partition, %next_offset, "drained");
                Ok((self.snapshot.next_offset, true))
            }
            Err(_) => {
                let applied = self.growing.next();
                warn!(%partition, %next_offset, %applied, "not drained in time: the rest will be replayed");
                Ok((next_offset, false))
            }
        }
    }

    /// Finishes the publication under way, then the seal under way, then seals the growing set. A graph still to be
    /// built is left out, a merge is given up: both are made up for later.
    async fn finish(&mut self) -> Result<(), IndexerError> {
        if matches!(self.merge, MergeStage::Building { .. } | MergeStage::Built { .. }) {
            drop(take(&mut self.merge));
        }
        self.settle_press().await?;
        if let SealStage::Building { .. } = self.seal
            && let SealStage::Building { frozen, reason, job, .. } = take(&mut self.seal)
        {
            drop(job);
            self.build_seal(frozen, reason, Haste::Flat);
        }
        self.finish_seal().await?;
        if self.growing.is_dirty() {
            self.start_seal("stop", Haste::Flat);
            self.finish_seal().await?;
        }
        self.report(Phase::Draining);
        Ok(())
    }

    async fn finish_seal(&mut self) -> Result<(), IndexerError> {
        if let SealStage::Building { .. } = self.seal {
            let made = self.seal.built().await?;
            self.sealed(made);
        }
        self.start_publication();
        self.settle_press().await
    }

    async fn settle_press(&mut self) -> Result<(), IndexerError> {
        if self.publishing.is_some() {
            let (press, result) = done(&mut self.publishing).await;
            self.published(press, result)?;
        }
        Ok(())
    }
}
