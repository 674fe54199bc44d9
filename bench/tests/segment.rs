//! `bench segment` on a small generated set: what it prints, and that it says what is missing.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn bench(arguments: &[&str]) -> Vec<Value> {
    let out = Command::new(env!("CARGO_BIN_EXE_bench")).args(arguments).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn generate(kind: &str, rows: &str, dir: &Path) -> Value {
    let out = dir.to_str().unwrap();
    bench(&["generate", "--kind", kind, "--rows", rows, "--queries", "40", "--format", "f16", "--out", out])
        .remove(0)
}

#[test]
fn a_run_says_speed_recall_and_memory_and_ends_with_ratios() {
    let dir = tempfile::tempdir().unwrap();
    let made = generate("sift-like", "600", dir.path());
    let chart = dir.path().join("chart.svg");
    let mut arguments = vec!["segment", "--metric", "l2", "--set", "small", "--threads", "1,2", "--variants"];
    arguments.extend([
        "--ef",
        "10,40,200",
        "--m",
        "8",
        "--ef-construction",
        "40",
        "--clock",
        "cpu",
        "--peers",
        "nobody",
        "--python",
        "/no/such/python",
    ]);
    arguments.extend(["--vectors", made["vectors"].as_str().unwrap()]);
    arguments.extend(["--queries", made["queries"].as_str().unwrap()]);
    arguments.extend(["--neighbours", made["neighbours"].as_str().unwrap()]);
    arguments.extend(["--chart", chart.to_str().unwrap()]);
    let lines = bench(&arguments);

    assert!(lines.iter().any(|line| line["skipped"] == "nobody"));
    for threads in [1, 2] {
        let line =
            lines.iter().find(|line| line["threads"] == threads && !line["build_per_s"].is_null()).unwrap();
        assert!(line["system"].as_str().unwrap().starts_with("sluice-"));
        assert_eq!(
            (&line["set"], &line["rows"], &line["dimension"]),
            (&"small".into(), &600.into(), &128.into())
        );
        for name in ["build_per_s", "file_per_s", "qps_90", "qps_95", "qps_99", "p50_us", "p99_us"] {
            assert!(line[name].as_f64().unwrap() > 0.0, "{name}: {line}");
        }
        // a segment holds at least its keys and links in memory, and its vectors of f32 on the disk
        assert!(line["ram_bytes_per_vector"].as_f64().unwrap() > 64.0);
        assert!(line["disk_bytes_per_vector"].as_f64().unwrap() > 256.0);
        assert!(line["peak_allocated_bytes_per_vector"].as_f64().unwrap() > 0.0);
        let best = line["curve"].as_array().unwrap().iter().map(|point| point["recall"].as_f64().unwrap());
        assert!(best.fold(0.0, f64::max) >= 0.99);
    }

    let variant = |name: &str| lines.iter().filter(|line| line["variant"] == name).collect::<Vec<_>>();
    let merged = variant("merged")[0];
    assert!(merged["merge_rows_per_s"].as_f64().unwrap() > 0.0);
    assert!(merged["merged"]["recall_default"].as_f64().unwrap() >= 0.95);
    let deleted = variant("deleted")[0];
    assert!((deleted["deleted"].as_f64().unwrap() - 0.3).abs() < 0.05);
    assert!(deleted["recall_default_below_fresh"].as_f64().unwrap() <= 0.01);
    let filtered = variant("filtered");
    assert_eq!(filtered.len(), 12);
    for line in filtered {
        assert!(line["filtered"]["recall_default"].as_f64().unwrap() >= 0.95, "{line}");
        assert!(line["pre_filter_qps"].as_f64().unwrap() > 0.0);
    }

    assert!(lines.last().unwrap()["ratios"].is_array());
    assert!(std::fs::read_to_string(&chart).unwrap().contains("sluice-"));
}

#[test]
fn neighbours_of_other_rows_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let made = generate("embedding-like", "300", dir.path());
    let other = generate("embedding-like", "200", &dir.path().join("other"));
    let out = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["segment", "--vectors", made["vectors"].as_str().unwrap()])
        .args(["--queries", made["queries"].as_str().unwrap()])
        .args(["--neighbours", other["neighbours"].as_str().unwrap()])
        .output()
        .unwrap();
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("not the nearest under this metric"));
}
