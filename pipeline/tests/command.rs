//! The binary: exit codes, masking, load, two roles as two processes, the tools.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn sluice(dir: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments.split_whitespace()).current_dir(dir).env_remove("SLUICE_CONFIG");
    command
}

fn run(dir: &Path, arguments: &str) -> (i32, String, String) {
    let Output { status, stdout, stderr } = sluice(dir, arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn json(dir: &Path, arguments: &str) -> Value {
    let (code, out, err) = run(dir, arguments);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{arguments}: {code} {e}\n{out}\n{err}"))
}

/// A role as a process; killed when the test ends early.
struct Role {
    child: Child,
    address: String,
}

impl Role {
    fn start(dir: &Path, arguments: &str) -> Self {
        let mut command = sluice(dir, arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let address = said["listening"].as_str().unwrap().to_owned();
        Self { child, address }
    }

    /// SIGTERM, and the exit code.
    fn terminate(mut self) -> i32 {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // it may have ended already
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

const CONFIG: &str = "
data_dir = 'data'
[http]
listen = '127.0.0.1:0'
[[index]]
name = 'docs'
partitions = 2
dimension = 2
seal = { max_age = '20ms' }
";

#[test]
fn refused_usage_and_configuration_exit_with_2_and_name_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bad.toml"), "[limits]\nmax_k = 0").unwrap();
    let (code, out, err) = run(dir.path(), "up --config bad.toml");
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("limits.max_k: 0 is outside 1 to 100000 (from bad.toml)"), "{err}");
    assert_eq!(run(dir.path(), "nonsense").0, 2);
    assert_eq!(run(dir.path(), "check-config --config absent.toml").0, 2);
    let said = json(dir.path(), "check-config --json --config bad.toml");
    assert_eq!(said["error"]["kind"], "invalid");
    std::fs::write(
        dir.path().join("owned.toml"),
        "[log]\nkind='kafka'\n[log.kafka]\n'bootstrap.servers'='h:1'\n'enable.auto.commit'=true",
    )
    .unwrap();
    let (code, _, err) = run(dir.path(), "check-config --config owned.toml");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("enable.auto.commit"), "{err}");
}

#[test]
fn check_config_masks_secrets_wherever_they_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[log]\nkind='kafka'\n[log.kafka]\n'bootstrap.servers'='h:1'\n'sasl.password'='canary'\n[store.options]\nsecret_access_key='canary'";
    std::fs::write(dir.path().join("s.toml"), text).unwrap();
    for arguments in [
        "check-config --config s.toml",
        "check-config --config s.toml --json",
        "-vvv check-config --config s.toml",
    ] {
        let output = sluice(dir.path(), arguments)
            .env("SLUICE__LOG__KAFKA__SSL__KEY__PASSWORD", "canary")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let both = [output.stdout, output.stderr].concat();
        let both = String::from_utf8(both).unwrap();
        assert!(both.contains("***") && !both.contains("canary"), "{both}");
    }
    let (code, defaults, _) = run(dir.path(), "check-config --defaults");
    assert_eq!((code, defaults.contains("[limits]")), (0, true));
}

#[test]
fn two_roles_are_two_processes_over_one_directory_and_every_tool_sees_their_work() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("c.toml"), CONFIG).unwrap();
    let index = Role::start(dir, "index --json --config c.toml");
    let serve = Role::start(dir, "serve --json --config c.toml");
    let lines = "{\"id\":\"a\",\"vector\":[1,0],\"metadata\":{\"n\":1}}\n{\"id\":\"b\",\"vector\":[0,1]}\nnonsense\n{\"id\":\"b\",\"deleted\":true}\n";
    std::fs::write(dir.join("rows.jsonl"), lines).unwrap();
    let report = json(dir, "load rows.jsonl --index docs --json --config c.toml");
    assert_eq!((report["loaded"].as_u64(), report["refused"].as_u64()), (Some(3), Some(1)), "{report}");
    assert_eq!(report["errors"][0]["line"], 3);
    let (code, ..) = run(dir, "load rows.jsonl --config c.toml");
    assert_eq!(code, 0, "loaded before");
    let (code, out, err) = run(dir, "load rows.jsonl --restart --max-errors 0 --json --config c.toml");
    assert_eq!(code, 1);
    let document: Value = serde_json::from_str(&out).expect("one document, the error in it");
    assert_eq!((&document["loaded"], &document["refused"]), (&Value::from(2), &Value::from(1)), "{document}");
    let message = document["error"]["message"].as_str().unwrap();
    assert!(err.contains(message) && message.contains("line 3"), "{err}: {message}");
    let (code, ..) = run(dir, "load rows.jsonl --restart --config c.toml");
    assert_eq!(code, 1, "a row is refused");
    let url = format!("http://{}", serve.address);
    let hits = until("the record", || {
        let answer = json(dir, &format!("search docs --vector [1,0] --json --url {url}"));
        let hits = answer.get("hits")?.as_array()?.clone();
        (!hits.is_empty()).then_some(hits)
    });
    assert_eq!(hits[0]["id"], "a");
    let status = json(dir, &format!("status --json --url {url}"));
    assert_eq!(status["indexes"][0]["name"], "docs");
    let indexer = format!("status --url http://{}", index.address);
    let partitions = json(dir, &format!("{indexer} --json"));
    assert_eq!(partitions["partitions"].as_array().unwrap().len(), 2);
    assert!(run(dir, &indexer).1.contains("running"));
    assert!(run(dir, &format!("search docs --id a --url {url}")).1.contains("hits in"));
    assert_eq!(run(dir, &format!("search absent --id a --url {url}")).0, 1);
    assert_eq!((index.terminate(), serve.terminate()), (0, 0));

    let inspected = json(dir, "inspect docs --json --config c.toml");
    assert_eq!(inspected["partitions"].as_array().unwrap().len(), 2);
    let holder = (0..2).map(|p| format!("inspect docs --partition {p} --segments --json --config c.toml"));
    let manifests: Vec<_> = holder.map(|c| json(dir, &c)).collect();
    let records: u64 = manifests.iter().map(|m| m["records"].as_u64().unwrap()).sum();
    assert_eq!(records, 1, "{manifests:?}");
    assert_eq!(json(dir, "scrub --json --config c.toml")["findings"], serde_json::json!([]));
    assert_eq!(run(dir, "gc --dry-run --config c.toml").0, 0);
    let health = json(dir, "doctor --json --config c.toml");
    assert!(health["checks"].as_array().unwrap().iter().all(|c| c["verdict"] != "failed"), "{health}");
}

#[test]
fn a_name_that_is_no_index_gets_the_same_answer_from_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("c.toml"), CONFIG).unwrap();
    std::fs::write(dir.join("rows.jsonl"), "").unwrap();
    let service = Role::start(dir, "up --json --config c.toml");
    let url = format!("--url http://{}", service.address);
    until("the first listing", || run(dir, &format!("status docs {url}")).1.contains("docs").then_some(()));
    let commands = [
        "gc absent --config c.toml".into(),
        "inspect absent --config c.toml".into(),
        "inspect absent --partition 0 --config c.toml".into(),
        "scrub absent --config c.toml".into(),
        "load rows.jsonl --index absent --config c.toml".into(),
        format!("search absent --id a {url}"),
        format!("status absent {url}"),
    ];
    let answers = commands.map(|command| (run(dir, &format!("{command} --json")), command));
    let ((code, first, _), _) = &answers[0];
    let told: Value = serde_json::from_str(first).unwrap();
    assert_eq!((*code, &told["error"]["kind"]), (1, &Value::from("not_found")));
    let message = told["error"]["message"].as_str().unwrap();
    assert!(message.contains("no index absent") && message.contains("`sluice inspect`"), "{message}");
    for ((code, out, _), command) in &answers {
        assert_eq!((*code, out), (1, first), "{command}");
    }
    assert_eq!(service.terminate(), 0);
}

#[test]
fn with_json_a_command_prints_one_document_whatever_becomes_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("damaged.seg"), "nothing of ours").unwrap();
    for (arguments, code, kind) in [
        ("--json", 2, "invalid"),
        ("up --json --lissten x", 2, "invalid"),
        ("search docs --json", 2, "invalid"),
        ("search docs --id a --filter { --json", 2, "invalid"),
        ("status --json --url nowhere", 2, "invalid"),
        ("status --json --url http://127.0.0.1:1", 1, "unavailable"),
        ("up --json --listen localhost:7797", 2, "invalid"),
        ("check-config --json --config absent.toml", 2, "invalid"),
        ("gc --json", 1, "not_found"),
        ("inspect --json --file absent.seg", 1, "not_found"),
        ("inspect --json --file damaged.seg", 1, "corrupt"),
        ("load absent.jsonl --index docs --json", 1, "not_found"),
    ] {
        let (exit, out, _) = run(dir, arguments);
        let document: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{arguments}: {e} {out}"));
        assert_eq!((exit, &document["error"]["kind"]), (code, &Value::from(kind)), "{arguments}: {out}");
    }
    assert_eq!(json(dir, "check-config --defaults --json")["limits"]["max_k"], 10_000);
    let demo = json(dir, "demo --once --json --data-dir demo --listen 127.0.0.1:0");
    assert_eq!((&demo["records"], &demo["hung"]), (&Value::from(5000), &serde_json::json!([])), "{demo}");
}

#[test]
fn with_json_a_process_that_runs_on_prints_a_line_of_json_for_each_event() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.toml"), CONFIG).unwrap();
    for role in ["up", "index", "serve"] {
        let mut command = sluice(dir.path(), &format!("{role} --json --config c.toml"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let listening: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        assert!(listening["listening"].is_string(), "{role}: {listening}");
        assert_eq!(Role { child, address: String::new() }.terminate(), 0, "{role}");
        let rest: Vec<Value> = lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
        assert_eq!(rest, [serde_json::json!({"hung": []})], "{role}");
    }
}

#[test]
fn an_address_by_name_is_refused_with_an_example() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("named.toml"), "[http]\nlisten = 'localhost:7797'").unwrap();
    for arguments in ["up --listen localhost:7797", "up --config named.toml"] {
        let (code, _, err) = run(dir.path(), arguments);
        assert_eq!(code, 2, "{arguments}");
        assert!(err.contains("localhost:7797") && err.contains("e.g. 127.0.0.1:7700"), "{arguments}: {err}");
    }
}

#[test]
fn a_machine_without_any_certificates_asks_a_service_over_http_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = sluice(dir.path(), "status --url http://127.0.0.1:1");
    let none = dir.path().join("none");
    let output = command.env("SSL_CERT_FILE", &none).env("SSL_CERT_DIR", &none).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("nothing answers at http://127.0.0.1:1"), "{err}");
}

#[test]
fn standard_input_is_loaded_and_completions_are_written() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.toml"), CONFIG).unwrap();
    let mut command = sluice(dir.path(), "load - --json --config c.toml");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"id\":\"a\",\"vector\":[1,0]}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), report["loaded"].as_u64()), (Some(0), Some(1)));
    assert!(run(dir.path(), "completions bash").1.contains("check-config"));
}

#[test]
fn tools_refuse_a_directory_without_a_store_and_make_none() {
    let dir = tempfile::tempdir().unwrap();
    for tool in ["scrub", "gc --dry-run", "inspect"] {
        let (code, _, error) = run(dir.path(), tool);
        assert_ne!(code, 0, "{tool}");
        assert!(error.contains("there is no store in") && error.contains("--data-dir"), "{tool}: {error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
