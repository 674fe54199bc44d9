//! The HTTP client of the commands that talk to a running service.

use std::time::Duration;

use clap::Args;
use reqwest::{Client, ClientBuilder, Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
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
        let http = builder.build().map_err(|e| CliError::Failed(format!("no http client: {e}")))?;
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
        response
            .json()
            .await
            .map_err(|e| CliError::Failed(format!("the answer is not understood: {}", e.without_url())))
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let base = without_user_info(&self.base);
        if error.is_timeout() && !error.is_connect() {
            return CliError::Failed(format!("{base} did not answer in time; give a longer --timeout"));
        }
        CliError::Failed(format!("nothing answers at {base}; start `sluice up`, or give --url"))
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
        Ok(problem) => CliError::Service { code: problem.code, message: problem.detail },
        Err(_) => {
            let code = serde_json::from_str::<serde_json::Value>(&text).ok();
            let code = code.and_then(|v| v.get("code").and_then(|c| c.as_str()).map(str::to_owned));
            CliError::Service {
                code: code.unwrap_or_default(),
                message: format!("the service answered {status}"),
            }
        }
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
    fn a_segment_of_a_path_is_percent_encoded() {
        assert_eq!(segment("a-b_c.d~1"), "a-b_c.d~1");
        assert_eq!(segment("a/b ü%"), "a%2Fb%20%C3%BC%25");
    }
}
