//! `Properties`: settings that are handed to somebody else as they stand. What may be a secret never prints.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sluice_core::secret::MASK;

/// Parts of a key's name that make its value a secret. Rather one too many masked than one too few.
const SECRET_PARTS: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "token",
    "key",
    "credential",
    "passphrase",
    "private",
    "jaas",
    "oauthbearer.config",
    "kinit.cmd",
    "certificate.pem",
    "sas",
];

/// Names that contain one of [`SECRET_PARTS`] and are harmless.
const HARMLESS: &[&str] = &["sasl.mechanism", "sasl.mechanisms", "sasl.username"];

/// Keys and values for librdkafka or the object store.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// The values as they are, secrets among them.
    pub fn expose(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn masked(&self) -> BTreeMap<&str, String> {
        self.0.iter().map(|(key, value)| (key.as_str(), mask(key, value))).collect()
    }
}

impl FromIterator<(String, String)> for Properties {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

/// Whether the value of `key` must not be printed.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    !HARMLESS.contains(&key.as_str()) && SECRET_PARTS.iter().any(|part| key.contains(part))
}

fn mask(key: &str, value: &str) -> String {
    if is_secret(key) { MASK.to_owned() } else { without_user_info(value) }
}

/// `url` with whatever stands between `//` and `@` masked.
pub fn without_user_info(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{MASK}@{host}{path}"),
        None => url.to_owned(),
    }
}

/// Serialises a URL without its user info.
#[expect(clippy::ptr_arg, reason = "the signature that serde asks for")]
pub(super) fn serialize_url<S: Serializer>(url: &String, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&without_user_info(url))
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.masked()).finish()
    }
}

impl Serialize for Properties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.masked())
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Properties;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of keys and values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Properties, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    let text: Text = map.next_value().map_err(|_| {
                        // the value is not quoted: it may be a secret
                        A::Error::custom(format!("{key}: not text, a number or a boolean"))
                    })?;
                    entries.insert(key, text.0);
                }
                Ok(Properties(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Text, or a number or boolean as text.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a number or a boolean")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
            fn visit_str<E>(self, v: &str) -> Result<Text, E> {
                Ok(Text(v.to_owned()))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(entries: &[(&str, &str)]) -> Properties {
        entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn what_may_be_a_secret_is_masked_in_every_print() {
        let secret = [
            "sasl.password",
            "ssl.key.password",
            "ssl.keystore.password",
            "sasl.oauthbearer.client.secret",
            "ssl.key.pem",
            "secret_access_key",
            "AWS_SECRET_ACCESS_KEY",
            "access_key_id",
            "token",
            "session_token",
            "sasl.oauthbearer.config",
        ];
        for key in secret {
            let p = properties(&[(key, "canary")]);
            assert!(!format!("{p:?}").contains("canary"), "{key}");
            assert!(!serde_json::to_string(&p).unwrap().contains("canary"), "{key}");
            assert_eq!(p.expose()[key], "canary");
        }
        let shown =
            ["bootstrap.servers", "sasl.username", "sasl.mechanisms", "region", "endpoint", "allow_http"];
        for key in shown {
            assert!(format!("{:?}", properties(&[(key, "plain")])).contains("plain"), "{key}");
        }
    }

    #[test]
    fn user_info_of_a_url_is_masked() {
        assert_eq!(without_user_info("http://a:b@host:1/x@y"), "http://***@host:1/x@y");
        assert_eq!(without_user_info("http://host/x"), "http://host/x");
        assert_eq!(without_user_info("host:9092"), "host:9092");
    }

    #[test]
    fn numbers_and_booleans_are_taken_as_text_and_tables_are_refused_without_their_value() {
        let p: Properties = toml::from_str("a = 1\nb = true\nc = 'x'").unwrap();
        assert_eq!(p, properties(&[("a", "1"), ("b", "true"), ("c", "x")]));
        let error = toml::from_str::<Properties>("secret = ['canary']").unwrap_err();
        assert!(!error.message().contains("canary"), "{error}");
    }
}
