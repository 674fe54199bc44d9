//! The HTTP client of the commands that talk to a running service.

use std::time::Duration;

use clap::Args;
use reqwest::{Client, ClientBuilder, Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_core::ErrorKind;
use sluice_query_svc::types::Problem;

use super::CliError;
use super::options::Common;
use crate::config::without_user_info;

const CONNECT: Duration = Duration::from_secs(5);

/// Where the service is.
#[derive(Debug, Clone, Args)]
pub(super) struct ServiceArgs {
    /// Base address of the service; by default the one that http.listen gives
    #[arg(long, value_name = "URL", env = "SLUICE_URL")]
    url: Option<String>,
    /// Longest wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// A client of one service.
pub(super) struct ServiceClient {
    base: String,
    http: Client,
}

impl ServiceClient {
    pub(super) fn new(common: &Common, args: &ServiceArgs) -> Result<Self, CliError> {
        let base = match &args.url {
            Some(url) => url.clone(),
            None => common.load()?.client_url(),
        };
        Self::at(base, args.timeout)
    }

    pub(super) fn at(base: String, timeout: Duration) -> Result<Self, CliError> {
        let builder = without_needless_roots(Client::builder(), &base);
        let builder = builder.connect_timeout(CONNECT).timeout(timeout).no_proxy();
        let http = builder.build().map_err(|e| CliError::internal(format!("no http client: {e}")))?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), http })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.send(Method::GET, path, None::<&()>).await
    }

    pub(super) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, CliError> {
        self.send(Method::POST, path, Some(body)).await
    }

    async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, CliError> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        if !response.status().is_success() {
            return Err(problem(response).await);
        }
        response.json().await.map_err(|e| {
            let kind = if e.is_decode() { ErrorKind::Invalid } else { ErrorKind::Unavailable };
            CliError::failed(kind, format!("the answer is not understood: {}", e.without_url()))
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let base = without_user_info(&self.base);
        if error.is_builder() {
            return CliError::Usage(format!(
                "--url {base} is no address of a service, e.g. http://127.0.0.1:7700"
            ));
        }
        let text = if error.is_timeout() && !error.is_connect() {
            format!("{base} did not answer in time; give a longer --timeout")
        } else {
            format!("nothing answers at {base}; start `sluice up`, or give --url")
        };
        CliError::failed(ErrorKind::Unavailable, text)
    }
}

/// A client for plain http needs no certificates: a small image may have none, and would get no client at all.
pub(super) fn without_needless_roots(builder: ClientBuilder, url: &str) -> ClientBuilder {
    if url.starts_with("https:") { builder } else { builder.tls_certs_only([]) }
}

async fn problem(response: Response) -> CliError {
    let status = response.status();
    let text = response.text().await.unwrap_or_default();
    match serde_json::from_str::<Problem>(&text) {
        Ok(problem) => {
            let Problem { code, detail: message, .. } = problem;
            CliError::Service { kind: kind_of(status, &code), code, message }
        }
        Err(_) => {
            let code = serde_json::from_str::<serde_json::Value>(&text).ok();
            let code = code.and_then(|v| v.get("code").and_then(|c| c.as_str()).map(str::to_owned));
            let code = code.unwrap_or_default();
            let message = format!("the service answered {status}");
            CliError::Service { kind: kind_of(status, &code), code, message }
        }
    }
}

/// What an answer that is an error makes its reader do.
fn kind_of(status: StatusCode, code: &str) -> ErrorKind {
    match (status.as_u16(), code) {
        (_, "closing") => ErrorKind::Closed,
        (_, "store_corrupt") => ErrorKind::Corrupt,
        (404, _) => ErrorKind::NotFound,
        (409, _) => ErrorKind::Conflict,
        (408 | 429 | 502..=504, _) => ErrorKind::Unavailable,
        (400..=499, _) => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    }
}

/// `text` as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    let encode = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_kind_that_its_status_and_code_say() {
        for (status, code, kind) in [
            (404, "index_not_found", ErrorKind::NotFound),
            (409, "index_differs", ErrorKind::Conflict),
            (400, "invalid_filter", ErrorKind::Invalid),
            (403, "", ErrorKind::Invalid),
            (422, "log_refused", ErrorKind::Invalid),
            (500, "internal", ErrorKind::Internal),
            (500, "store_corrupt", ErrorKind::Corrupt),
            (502, "", ErrorKind::Unavailable),
            (503, "overloaded", ErrorKind::Unavailable),
            (503, "closing", ErrorKind::Closed),
            (504, "deadline_exceeded", ErrorKind::Unavailable),
        ] {
            assert_eq!(kind_of(StatusCode::from_u16(status).unwrap(), code), kind, "{status} {code}");
        }
    }

    #[test]
    fn a_segment_of_a_path_is_percent_encoded() {
        assert_eq!(segment("a-b_c.d~1"), "a-b_c.d~1");
        assert_eq!(segment("a/b ü%"), "a%2Fb%20%C3%BC%25");
    }
}
