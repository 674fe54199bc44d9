//! Precedence, refusals by name, masking.

use super::*;

fn file(text: &str) -> Result<Config, ConfigError> {
    load_texts(vec![TomlText::new("test.toml", text)], Environment::from_pairs([]), Flags::default())
}

fn with_env(text: &str, pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    load_texts(vec![TomlText::new("test.toml", text)], Environment::from_pairs(pairs), Flags::default())
}

fn refusal(text: &str) -> String {
    file(text).unwrap_err().to_string()
}

#[test]
fn the_defaults_are_valid_and_complete() {
    let config = file("").unwrap();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:7700");
    assert_eq!(config.log.kind, LogKind::Local);
    assert!(config.store_config().unwrap().url.starts_with("file:///"));
    let shares = config.limits.memory_shares();
    assert_eq!(shares.ingest + shares.build + shares.fetch, 1 << 30);
}

#[test]
fn the_index_shown_in_the_defaults_is_valid() {
    let commented = DEFAULTS.lines().skip_while(|l| *l != "# [[index]]");
    let text: String = commented.map(|l| format!("{}\n", l.trim_start_matches("# "))).collect();
    let config = file(&text).unwrap();
    let spec: IndexSpec = toml::from_str("name = 'packages'\ndimension = 384").unwrap();
    assert!(spec.differences(&config.indexes[0]).iter().all(|d| d.key == "fields"));
}

#[test]
fn precedence_is_default_file_environment_flag() {
    let text = "[limits]\nmax_k = 5\nmax_ef = 50";
    let later = "[limits]\nmax_ef = 60";
    let environment = [("SLUICE__LIMITS__MAX_EF".to_owned(), "70".to_owned())];
    let flags = Flags(vec![("http.listen", "127.0.0.1:1".into())]);
    let texts = || vec![TomlText::new("a", text), TomlText::new("b", later)];
    let config = load_texts(texts(), Environment::from_pairs(environment), flags).unwrap();
    assert_eq!((config.limits.max_k, config.limits.max_ef), (5, 70));
    assert_eq!(config.http.listen.port(), 1);
    let config = load_texts(texts(), Environment::from_pairs([]), Flags::default()).unwrap();
    assert_eq!(config.limits.max_ef, 60);
}

#[test]
fn properties_are_one_key_however_they_are_written() {
    let text = "[log]\nkind = 'kafka'\n[log.kafka]\nbootstrap.servers = 'a:1'\n'sasl.username' = 'u'";
    let environment =
        [("SLUICE__LOG__KAFKA__BOOTSTRAP__SERVERS", "b:2"), ("SLUICE__LOG__KAFKA__SASL__PASSWORD", "007")];
    let config = with_env(text, &environment).unwrap();
    let kafka = config.log.kafka.expose();
    assert_eq!(kafka["bootstrap.servers"], "b:2");
    assert_eq!((kafka["sasl.password"].as_str(), kafka["sasl.username"].as_str()), ("007", "u"));
    let config = with_env("", &[("SLUICE__STORE__OPTIONS__SECRET_ACCESS_KEY", "1e5")]).unwrap();
    assert_eq!(config.store.options.expose()["secret_access_key"], "1e5");
}

#[test]
fn refusals_name_the_key_the_allowed_values_and_the_source() {
    let golden = [
        ("[limits]\nmax_kk = 1", &["limits", "max_kk", "max_k", "test.toml"][..]),
        ("[limits]\nmax_k = 0", &["limits.max_k: 0 is outside 1 to 100000 (from test.toml)"]),
        ("[limits]\nmemory = '1KiB'", &["limits.memory", "is outside 64.0 MiB to 4.0 TiB"]),
        ("[limits]\nmemory = 'lots'", &["limits.memory", "test.toml"]),
        ("[limits]\nquery_deadline = '0s'", &["limits.query_deadline: 0s is outside 1ms to 1h"]),
        ("[log]\nkind = 'redis'", &["log.kind", "redis", "`local` or `kafka`", "test.toml"]),
        ("[log]\nkind = 'kafka'", &["log.kafka", "bootstrap.servers"]),
        ("[store]\nurl = 'gs://x'", &["store.url", "gs://x", "file:///dir", "s3://bucket/prefix"]),
        ("[http]\nlisten = 'here'", &["http.listen", "test.toml"]),
        ("[http]\nlisten = '0.0.0.0:80'", &["http.listen", "http.allow_unauthenticated = true"]),
        ("[[index]]\nname = 'A'\ndimension = 2", &["index", "[a-z0-9][a-z0-9_-]{0,62}"]),
        ("[[index]]\nname = 'a'", &["index", "dimension"]),
        ("[[index]]\nname = 'a'\ndimension = 1", &["dimension", "2 to 4096"]),
        ("[[index]]\nname = 'a'\ndimension = 2\nmetric = 'cos'", &["metric", "cosine", "dot", "l2"]),
        ("[[index]]\nname = 'a'\ndimension = 2\nquantization = 'pq'", &["quantization", "none", "sq8"]),
        (
            "[[index]]\nname = 'a'\ndimension = 2\ngraph = { m = 1 }",
            &["index[0].graph.m (a): 1 is outside 4 to 64"],
        ),
        (
            "[[index]]\nname = 'a'\ndimension = 2\ntopic = 'x.dead-letter'",
            &["index[0].topic", "dead letters"],
        ),
        ("nonsense", &["test.toml", "line 1"]),
    ];
    for (text, parts) in golden {
        let got = refusal(text);
        for part in parts {
            assert!(got.contains(part), "{text:?}: {got:?} lacks {part:?}");
        }
    }
}

#[test]
fn two_indexes_share_neither_name_nor_topic() {
    let index =
        |name: &str, topic: &str| format!("[[index]]\nname = '{name}'\ntopic = '{topic}'\ndimension = 2\n");
    assert!(refusal(&(index("a", "x") + &index("a", "y"))).contains("index[1].name (a)"));
    assert!(refusal(&(index("a", "x") + &index("b", "x"))).contains("index[1].topic (b)"));
    assert_eq!(file(&(index("a", "x") + &index("b", "y"))).unwrap().indexes.len(), 2);
}

#[test]
fn every_finding_is_told_at_once() {
    let got = file("[limits]\nmax_k = 0\nmax_ef = 0").unwrap_err();
    assert_eq!(got.0.len(), 2);
}

#[test]
fn an_unknown_variable_is_refused_by_its_name() {
    let got = with_env("", &[("SLUICE__LIMITS__MAX_KK", "1")]).unwrap_err().to_string();
    assert!(got.contains("max_kk") && got.contains("environment"), "{got}");
}

#[test]
fn secrets_never_print() {
    let text = "
        [log]
        kind = 'kafka'
        [log.kafka]
        'bootstrap.servers' = 'h:1'
        'sasl.password' = 'canary-1'
        'ssl.key.password' = 'canary-2'
        [store]
        url = 's3://user:canary-3@bucket/x'
        [store.options]
        secret_access_key = 'canary-4'
        endpoint = 'http://user:canary-5@host:1'
    ";
    let config = file(text).unwrap();
    let printed = [
        format!("{config:?}"),
        config.to_masked_toml().unwrap(),
        serde_json::to_string(&config).unwrap(),
        format!("{:?}", config.log_config()),
    ];
    for text in printed {
        assert!(!text.contains("canary"), "{text}");
    }
    assert_eq!(config.log.kafka.expose()["sasl.password"], "canary-1");
}

#[test]
fn a_malformed_file_is_reported_without_its_text() {
    for text in [
        "[log.kafka]\n'sasl.password' = 'canary",
        "[log.kafka]\n'sasl.password' = ['canary']",
        "data_dir = canary",
    ] {
        assert!(!refusal(text).contains("canary"), "{}", refusal(text));
    }
}

#[test]
fn what_check_config_prints_is_read_back() {
    let config = file("[[index]]\nname = 'a'\ndimension = 2").unwrap();
    assert_eq!(file(&config.to_masked_toml().unwrap()).unwrap(), config);
}
