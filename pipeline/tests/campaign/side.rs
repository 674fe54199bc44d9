//! Indexes beside the main one: created and retired over HTTP, collected by `sluice gc`, with aborts on the way.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::changes::DIMENSION;
use crate::plan::Abort;
use crate::run::{Campaign, armed, is_abort};
use crate::support::api::Api;
use crate::support::wait::eventually;

/// Partitions of a side index, so that a collection closes as many.
const PARTITIONS: u32 = 3;

fn spec() -> Value {
    json!({ "dimension": DIMENSION, "partitions": PARTITIONS, "seal": { "max_age": "50ms" } })
}

impl Campaign {
    fn side_name(&mut self) -> String {
        self.started += 1;
        format!("{}-s{}", self.world.index, self.started)
    }

    /// An index behind a query service that knows the main one.
    async fn side(&mut self, name: &str) -> Api {
        let main = self.api().await;
        main.shows(&BTreeMap::new()).await;
        main.beside(name)
    }

    /// Creates, creates and retires indexes through a query service that aborts on the way; what was asked for when
    /// it aborted is asked for again.
    pub(crate) async fn abort_creation(&mut self, abort: Abort) -> Result<(), String> {
        self.start_query(Some(abort));
        let (one, two) = (self.side_name(), self.side_name());
        let mut aborted = false;
        for (name, create) in [(&one, true), (&two, true), (&one, false)] {
            let api = self.side(name).await;
            let asked = if create { api.try_create(&spec()).await } else { api.try_delete("").await };
            if asked.is_ok_and(|answer| answer.status < 300) {
                continue;
            }
            if !self.query_aborted().await {
                return Err("a request failed and the process had not aborted".into());
            }
            aborted = true;
            let api = self.side(name).await;
            let answer = if create { api.create(&spec()).await } else { api.delete("").await };
            // it may have been done before the abort
            let done = if create { [200, 201] } else { [200, 404] };
            if !done.contains(&answer.status) {
                return Err(format!("asked again: {}", answer.text));
            }
        }
        if !aborted {
            return Err("not reached".into());
        }
        let api = self.side(&two).await;
        let place = api.publish(&[json!({ "id": "a", "vector": vec![1.0; DIMENSION] })]).await[0];
        self.up().await;
        api.shows_place(place).await;
        api.delete("").await.expect(200);
        Ok(())
    }

    /// Retires an index and collects it with an abort at one of its partitions; then the rest is collected, and the
    /// name begins anew.
    pub(crate) async fn abort_retirement(&mut self, abort: Abort) -> Result<(), String> {
        self.up().await;
        let name = self.side_name();
        let api = self.side(&name).await;
        api.create(&spec()).await.expect(201);
        let claimed = || async {
            let status = api.get("").await;
            let partitions = status.body["partitions"].as_array().cloned().unwrap_or_default();
            let claimed = partitions.iter().filter(|p| p["epoch"].as_u64().is_some_and(|e| e > 0)).count();
            if claimed == PARTITIONS as usize { Ok(()) } else { Err(status.text) }
        };
        eventually("the side index is claimed", claimed).await;
        api.publish(&[json!({ "id": "a", "vector": vec![1.0; DIMENSION] })]).await;
        api.delete("").await.expect(200);
        let collect = |environment: Vec<(String, String)>| {
            let mut command = self.world.command(&["gc", &name, "--retain", "1", "--grace", "0s", "--json"]);
            command.envs(environment).output().unwrap()
        };
        let aborted = collect(armed(Some(abort)));
        if !is_abort(aborted.status) {
            return Err(format!("not reached: {}", String::from_utf8_lossy(&aborted.stdout)));
        }
        let collected = collect(Vec::new());
        let report: Value = serde_json::from_slice(&collected.stdout).unwrap_or_default();
        if !collected.status.success() {
            return Err(format!("not collected: {report}"));
        }
        Ok(())
    }
}
