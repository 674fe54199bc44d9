//! The HTTP API: routes, what every request passes through, and the description generated from the handlers.

mod answer;
mod count;
mod edge;
mod extract;
mod health;
mod indexes;
mod publish;
mod query;
mod records;
mod round;
mod search;
mod server;
mod stall;
mod status;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use metrics_exporter_prometheus::PrometheusHandle;
use sluice_connectors::Log;
use sluice_core::{ByteBudget, Clock, IndexName};
use sluice_snapshotter::Registry;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa::openapi::{Content, OpenApi as Document, RefOr};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use server::serve;

use self::answer::PROBLEM_JSON;
use crate::catalogue::{Catalogue, Index};
use crate::error::ApiError;
use crate::fan_out::FanOut;
use crate::lag::LagMeter;
use crate::limits::Limits;
use crate::pins::Pins;

/// What the handlers share.
pub(crate) struct App {
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) registry: Registry,
    pub(crate) log: Option<Log>,
    pub(crate) fan_out: FanOut,
    pub(crate) pins: Pins,
    pub(crate) lag: LagMeter,
    pub(crate) limits: Limits,
    /// Bytes of request bodies held at once.
    pub(crate) bodies: ByteBudget,
    /// Bytes of answers that clients have not taken yet.
    pub(crate) answers: ByteBudget,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: PrometheusHandle,
}

impl App {
    /// The index under `name`.
    ///
    /// # Errors
    /// `IndexNotFound`, also when `name` could not be a name; `Starting` when it cannot be known yet.
    pub(crate) fn index(&self, name: &str) -> Result<Arc<Index>, ApiError> {
        // asked first: an index that is found by then is in the catalogue
        let listed = self.catalogue.is_listed();
        let unknown = || ApiError::IndexNotFound(name.chars().take(80).collect());
        let id = IndexName::new(name).map_err(|_| unknown())?;
        self.catalogue.get(&id).ok_or_else(|| if listed { unknown() } else { ApiError::Starting })
    }

    /// The log.
    ///
    /// # Errors
    /// `LogUnavailable` when this service was started without one.
    pub(crate) fn log(&self) -> Result<&Log, ApiError> {
        self.log.as_ref().ok_or_else(|| ApiError::LogUnavailable("this service has no log at hand".into()))
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sluice",
        description = "Search over vectors that arrive through a log. Errors are problem+json (RFC 9457) with a stable `code`.",
    ),
    components(schemas(crate::types::Problem)),
    tags(
        (name = "search", description = "Queries; each is answered from one snapshot per partition"),
        (name = "records", description = "Single records, listings, writing through the log"),
        (name = "indexes", description = "Specs and status"),
        (name = "service", description = "Health, metrics, this description"),
    )
)]
struct Api;

/// The routes and their description, before they are given what they share.
fn api() -> (Router<Arc<App>>, Document) {
    let (router, mut document) = OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(search::search))
        .routes(routes!(search::batch))
        .routes(routes!(count::count))
        .routes(routes!(records::list, publish::publish))
        .routes(routes!(records::get, publish::delete))
        .routes(routes!(indexes::list))
        .routes(routes!(indexes::get, indexes::put, indexes::retire))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(health::openapi))
        .split_for_parts();
    name_problems(&mut document);
    (router, document)
}

/// Problems have a media type of their own, which the macros would have to be told at each.
fn name_problems(document: &mut Document) {
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
        let responses = operations.into_iter().flatten().flat_map(|o| o.responses.responses.values_mut());
        for response in responses {
            let RefOr::T(response) = response else { continue };
            let is_problem = |content: &RefOr<Content>| match content {
                RefOr::T(Content { schema: Some(RefOr::Ref(at)), .. }) => {
                    at.ref_location.ends_with("/Problem")
                }
                _ => false,
            };
            if response.content.values().any(is_problem) {
                let content = std::mem::take(&mut response.content);
                response.content = content.into_values().map(|c| (PROBLEM_JSON.into(), c)).collect();
            }
        }
    }
}

/// The description of the API as it is served under `/openapi.json`.
pub fn openapi() -> Document {
    api().1
}

/// [`openapi`] as JSON; it never changes while the process lives.
static DESCRIPTION: LazyLock<String> = LazyLock::new(|| openapi().to_json().unwrap_or_default());

/// The whole service as one router, `beside` among its routes.
pub(crate) fn router(app: Arc<App>, beside: Router) -> Router {
    let unknown_route = || async { ApiError::RouteNotFound };
    let wrong_method = || async { ApiError::MethodNotAllowed };
    api()
        .0
        .with_state(Arc::clone(&app))
        .merge(beside)
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(CatchPanicLayer::custom(edge::panicked))
        .layer(from_fn_with_state(app, answer::charge))
        .layer(from_fn(edge::edge))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Routes are registered only through `routes!`, which describes them; this holds the list of DESIGN together.
    #[test]
    fn every_route_is_described() {
        let described = openapi();
        let mut found = Vec::new();
        for (path, item) in &described.paths.paths {
            let methods =
                [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("DELETE", &item.delete)];
            for (method, operation) in methods {
                let Some(operation) = operation else { continue };
                assert!(!operation.responses.responses.is_empty(), "{path}");
                found.push(format!("{method} {path}"));
            }
        }
        found.sort();
        let mut expected = [
            "DELETE /v1/indexes/{index}",
            "DELETE /v1/indexes/{index}/records/{id}",
            "GET /health/live",
            "GET /health/ready",
            "GET /metrics",
            "GET /openapi.json",
            "GET /v1/indexes",
            "GET /v1/indexes/{index}",
            "GET /v1/indexes/{index}/records",
            "GET /v1/indexes/{index}/records/{id}",
            "POST /v1/indexes/{index}/count",
            "POST /v1/indexes/{index}/records",
            "POST /v1/indexes/{index}/search",
            "POST /v1/indexes/{index}/search/batch",
            "PUT /v1/indexes/{index}",
        ];
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn problems_are_described_under_their_own_media_type() {
        let document = serde_json::to_value(openapi()).unwrap();
        let responses = &document["paths"]["/v1/indexes/{index}/search"]["post"]["responses"];
        assert!(responses["404"]["content"]["application/problem+json"].is_object(), "{responses}");
        assert!(responses["404"]["content"].get("application/json").is_none(), "{responses}");
        assert!(responses["200"]["content"]["application/json"].is_object(), "{responses}");
    }

    #[test]
    fn every_schema_that_is_referred_to_is_described() {
        let text = openapi().to_json().unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        for rest in text.split("#/components/schemas/").skip(1) {
            let name = rest.split('"').next().unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
        }
    }
}
