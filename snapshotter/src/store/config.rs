//! Which object store: the URL and the options, checked before anything is connected.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, RetryConfig};
use url::{Host, Url};

use crate::error::StoreError;

/// Where objects are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreConfig {
    /// `file:///dir` or `s3://bucket/prefix`.
    pub url: String,
    /// object_store's own keys; no credentials, these come from `AWS_*` variables.
    pub options: BTreeMap<String, String>,
}

/// A store's place, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    File(PathBuf),
    S3 { bucket: String, prefix: Path },
}

/// How patient a client is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) retries: usize,
    pub(super) timeout: Duration,
    pub(super) retry_timeout: Duration,
}

/// Creates: one request, no retry that would hide its own success behind "exists already".
pub(super) const SINGLE: Patience =
    Patience { retries: 0, timeout: Duration::from_secs(8), retry_timeout: Duration::from_secs(8) };
/// Small reads, listings, deletes: repeating them is harmless.
pub(super) const SMALL: Patience =
    Patience { retries: 3, timeout: Duration::from_secs(8), retry_timeout: Duration::from_secs(20) };
/// Segments, up and down, by parts of at most 64 MiB.
pub(super) const BULK: Patience =
    Patience { retries: 4, timeout: Duration::from_secs(60), retry_timeout: Duration::from_secs(30) };

const CONNECT_TIMEOUT: &str = "2s";

impl StoreConfig {
    pub(super) fn place(&self) -> Result<Place, StoreError> {
        let refuse = |message: &str| Err(config("store.url", message));
        // the text itself is not quoted: it may hold a password
        let Ok(url) = Url::parse(&self.url) else {
            return refuse("is no URL; allowed: file:///dir, s3://bucket/prefix");
        };
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("holds user info; credentials come from AWS_* variables");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refuse("has a query or a fragment");
        }
        match url.scheme() {
            "file" => match url.to_file_path() {
                Ok(dir) if url.host().is_none() => Ok(Place::File(dir)),
                _ => refuse("is no local directory; write file:///dir"),
            },
            "s3" => {
                let Some(bucket) = url.host_str().filter(|b| is_bucket(b)) else {
                    return refuse("names no bucket; write s3://bucket/prefix");
                };
                match Path::from_url_path(url.path()) {
                    Ok(prefix) => Ok(Place::S3 { bucket: bucket.to_owned(), prefix }),
                    Err(_) => refuse("has a prefix that is no object path"),
                }
            }
            other => Err(config("store.url", format!("scheme {other:.20} is unknown; allowed: file, s3"))),
        }
    }

    /// The settings of an S3 store: those of the environment, then the options, all checked.
    pub(super) fn s3(
        &self,
        bucket: &str,
        environment: AmazonS3Builder,
    ) -> Result<AmazonS3Builder, StoreError> {
        let mut builder = environment;
        for (name, value) in &self.options {
            let name = name.to_ascii_lowercase();
            let key = AmazonS3ConfigKey::from_str(&name)
                .map_err(|_| option(&name, "is unknown to the S3 client".into()))?;
            check_option(&name, &key)?;
            builder = builder.with_config(key, value);
        }
        let builder = builder.with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch);
        let allow_http = builder
            .get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp))
            .is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "on" | "yes" | "y"));
        for key in [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint] {
            if let Some(endpoint) = builder.get_config_value(&key) {
                check_endpoint(&endpoint, allow_http).map_err(|m| option("endpoint", m))?;
            }
        }
        Ok(builder)
    }
}

pub(super) fn client(builder: &AmazonS3Builder, patience: Patience) -> Result<AmazonS3, StoreError> {
    let key = AmazonS3ConfigKey::Client;
    let retry = RetryConfig {
        max_retries: patience.retries,
        retry_timeout: patience.retry_timeout,
        backoff: BackoffConfig::default(),
    };
    let builder = builder
        .clone()
        .with_config(key(ClientConfigKey::Timeout), format!("{}s", patience.timeout.as_secs()))
        .with_config(key(ClientConfigKey::ConnectTimeout), CONNECT_TIMEOUT)
        .with_retry(retry);
    builder.build().map_err(|e| config("store", e.to_string()))
}

fn check_option(name: &str, key: &AmazonS3ConfigKey) -> Result<(), StoreError> {
    use AmazonS3ConfigKey as Key;
    match key {
        Key::AccessKeyId | Key::SecretAccessKey | Key::Token => {
            Err(option(name, "credentials come from AWS_* variables".into()))
        }
        Key::Bucket => Err(option(name, "the bucket is named by store.url".into())),
        Key::ConditionalPut
        | Key::CopyIfNotExists
        | Key::Client(ClientConfigKey::Timeout | ClientConfigKey::ConnectTimeout) => {
            Err(option(name, "is set by the commit protocol".into()))
        }
        _ => Ok(()),
    }
}

fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<(), String> {
    // the text itself is not quoted: it may hold a password
    let url = Url::parse(endpoint).map_err(|_| "is no URL".to_owned())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds user info; credentials come from AWS_* variables".into());
    }
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => return Err("is plain http; set allow_http = \"true\" to allow it".into()),
        other => return Err(format!("scheme {other:.20} is unknown; allowed: https, http")),
    }
    match url.host() {
        Some(host) if !is_metadata_host(&host) => Ok(()),
        Some(_) => Err("is a link-local or instance-metadata address".into()),
        None => Err("names no host".into()),
    }
}

/// Addresses that answer with a machine's credentials, not with objects.
fn is_metadata_host(host: &Host<&str>) -> bool {
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let address = match host {
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            match name.parse::<IpAddr>() {
                Ok(address) => address,
                Err(_) => {
                    return matches!(
                        name.as_str(),
                        "metadata.google.internal" | "metadata" | "instance-data"
                    );
                }
            }
        }
        Host::Ipv4(v4) => IpAddr::V4(*v4),
        Host::Ipv6(v6) => IpAddr::V6(*v6),
    };
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == METADATA_V6,
    }
}

fn is_bucket(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
    (3..=63).contains(&name.len()) && name.bytes().all(allowed)
}

fn config(key: &str, message: impl Into<String>) -> StoreError {
    StoreError::Config { key: key.into(), message: message.into() }
}

fn option(name: &str, message: String) -> StoreError {
    config(&format!("store.options.{name:.60}"), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(url: &str, options: &[(&str, &str)]) -> StoreConfig {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        StoreConfig { url: url.into(), options }
    }

    #[test]
    fn two_kinds_of_url_are_read() {
        assert_eq!(with("file:///var/a%20b", &[]).place().unwrap(), Place::File("/var/a b".into()));
        let expected = Place::S3 { bucket: "bucket".into(), prefix: Path::from("a/b") };
        assert_eq!(with("s3://bucket/a/b/", &[]).place().unwrap(), expected);
    }

    #[test]
    fn other_urls_are_refused_and_not_quoted() {
        let bad = [
            "",
            "data",
            "/data",
            "http://host/bucket",
            "gs://bucket",
            "s3://",
            "s3:///prefix",
            "s3://B?x=canary",
            "s3://user:canary@bucket/prefix",
            "s3://bucket/#canary",
            "file://host/dir",
            "memory:///",
            "s3://ab/x",
            "file://user:canary@localhost/dir",
        ];
        for url in bad {
            let error = with(url, &[]).place().unwrap_err().to_string();
            assert!(error.starts_with("store.url: ") && !error.contains("canary"), "{url}: {error}");
        }
    }

    #[test]
    fn metadata_addresses_and_plain_http_are_refused() {
        let bad = [
            "http://169.254.169.254",
            "https://169.254.0.1:9000",
            "https://[fd00:ec2::254]",
            "https://[fe80::1]",
            "https://metadata.google.internal",
            "https://METADATA.google.internal./x",
            "https://2852039166",
            "https://[::ffff:169.254.169.254]",
            "https://0xa9.0xfe.0xa9.0xfe",
            "https://user:canary@host",
            "ftp://host",
            "host:9000",
            "https://",
        ];
        for endpoint in bad {
            let options = [("endpoint", endpoint), ("allow_http", "true")];
            let error =
                with("s3://bucket", &options).s3("bucket", AmazonS3Builder::new()).unwrap_err().to_string();
            assert!(error.starts_with("store.options.endpoint: "), "{endpoint}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
        let error = with("s3://bucket", &[("endpoint", "http://127.0.0.1:9")])
            .s3("bucket", AmazonS3Builder::new())
            .unwrap_err();
        assert!(error.to_string().contains("allow_http"), "{error}");
        let good = [("endpoint", "http://127.0.0.1:9000"), ("allow_http", "true"), ("region", "eu-west-1")];
        assert!(with("s3://bucket", &good).s3("bucket", AmazonS3Builder::new()).is_ok());
    }

    #[test]
    fn options_that_are_unknown_or_not_the_users_are_refused_by_name() {
        for (name, value) in [
            ("endpont", "x"),
            ("aws_secret_access_key", "canary"),
            ("access_key_id", "canary"),
            ("token", "canary"),
            ("conditional_put", "disabled"),
            ("bucket", "other"),
            ("timeout", "1h"),
        ] {
            let error = with("s3://bucket", &[(name, value)])
                .s3("bucket", AmazonS3Builder::new())
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(&format!("store.options.{name}: ")), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
