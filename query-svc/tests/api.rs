//! Every route with good and bad requests, and one request just over each limit.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{Answer, Service, World, flat, upsert};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sluice_query_svc::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SEARCH: &str = "/v1/indexes/a/search";

async fn served(limits: Limits) -> (World, Service) {
    let world = World::new();
    let spec = world.index(flat("a", 2)).await;
    let mut hand = world.claim(&spec, 0).await;
    let rows = (0..10).map(|i| upsert(format!("r{i}"), &[i as f32, 0.0], json!({"color": "red", "size": i})));
    hand.publish(rows.collect()).await;
    let service = world.serve(limits, None).await;
    service.serves("a", &[2, 0]).await;
    (world, service)
}

async fn raw(service: &Service, path: &str, media: Option<&str>, body: &str) -> Answer {
    let mut request = service.client.post(format!("{}{path}", service.base)).body(body.to_owned());
    if let Some(media) = media {
        request = request.header("content-type", media);
    }
    Answer::read(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_search_is_refused_with_its_own_code() {
    let (_world, service) = served(Limits::default()).await;
    let cases = [
        (json!({"vector": [0, 0], "k": 0}), "invalid_request"),
        (json!({"vector": [0, 0], "k": 10_001}), "invalid_request"),
        (json!({"vector": [0, 0], "ef": 0}), "invalid_request"),
        (json!({"vector": [0, 0], "ef": 10_001}), "invalid_request"),
        (json!({"vector": [0, 0], "id": "r1"}), "invalid_request"),
        (json!({}), "invalid_request"),
        (json!({"vector": [0, 0], "min_score": 0.5}), "invalid_request"),
        (json!({"vector": [0, 0], "max_distance": 1e300}), "invalid_request"),
        (json!({"vector": [0, 0, 0]}), "dimension_mismatch"),
        (json!({"vector": []}), "dimension_mismatch"),
        (json!({"vector": [1e39, 0]}), "invalid_vector"),
        (json!({"vector": [1e30, 0]}), "invalid_vector"),
        (json!({"vector": ["x", 0]}), "malformed_body"),
        (json!({"vector": [null, 0]}), "malformed_body"),
        (json!({"vector": [0, 0], "limit": 5}), "malformed_body"),
        (json!({"vector": [0, 0], "include": ["payload"]}), "malformed_body"),
        (json!({"vector": [0, 0], "k": -1}), "malformed_body"),
        (json!([1, 2]), "malformed_body"),
        (json!({"id": ""}), "invalid_name"),
        (json!({"id": "x".repeat(513)}), "invalid_name"),
        (json!({"vector": [0, 0], "filter": {"colour": "red"}}), "invalid_filter"),
        (json!({"vector": [0, 0], "filter": {"size": {"$near": 1}}}), "invalid_filter"),
        (json!({"vector": [0, 0], "filter": {"size": "big"}}), "invalid_filter"),
    ];
    for (body, code) in cases {
        service.post(SEARCH, body.clone()).await.problem(400, code);
        let batch = json!({"searches": [{"vector": [0, 0]}, body]});
        let problem = service.post("/v1/indexes/a/search/batch", batch).await.problem(400, code);
        let told = problem["detail"].as_str().unwrap().starts_with("searches[1]: ");
        assert!(told || code == "malformed_body", "{problem}");
    }
    let both = service.post(SEARCH, json!({"vector": [0, 0, 0]})).await.problem(400, "dimension_mismatch");
    assert!(both["detail"].as_str().unwrap().contains("3 components, the index has dimension 2"), "{both}");
    let declared = service.post(SEARCH, json!({"vector": [0, 0], "filter": {"colour": 1}})).await;
    let detail = declared.problem(400, "invalid_filter")["detail"].to_string();
    assert!(detail.contains("color") && detail.contains("size"), "{detail}");

    let json_type = Some("application/json");
    for body in
        ["{", "", "nul", "{\"vector\":[NaN,0]}", "{\"vector\":[Infinity,0]}", "{\"vector\":[1e999,0]}"]
    {
        raw(&service, SEARCH, json_type, body).await.problem(400, "malformed_body");
    }
    for twice in [r#"{"vector":[0,0],"k":1,"k":2}"#, r#"{"vector":[0,0],"filter":{"size":1,"size":2}}"#] {
        raw(&service, SEARCH, json_type, twice).await.problem(400, "malformed_body");
    }
    let deep =
        format!(r#"{{"vector":[0,0],"filter":{}1{}}}"#, r#"{"$not":"#.repeat(10_000), "}".repeat(10_000));
    raw(&service, SEARCH, json_type, &deep).await.problem(400, "malformed_body");
    let nested =
        format!(r#"{{"vector":[0,0],"filter":{}{{"size":1}}{}}}"#, r#"{"$not":"#.repeat(17), "}".repeat(17));
    raw(&service, SEARCH, json_type, &nested).await.problem(400, "invalid_filter");
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_in_the_place_of_an_object_is_refused_on_every_route() {
    let (_world, service) = served(Limits::default()).await;
    let search = json!([[0, 0], null, 3]);
    let cases = [
        (SEARCH, search.clone()),
        (SEARCH, json!({"vector": [0, 0], "consistency": [{"0": 0}, 1]})),
        ("/v1/indexes/a/search/batch", json!([[{"vector": [0, 0]}]])),
        ("/v1/indexes/a/search/batch", json!({"searches": [{"vector": [0, 0]}, search]})),
        ("/v1/indexes/a/count", json!([])),
        ("/v1/indexes/a/count", json!({"consistency": [{"0": 0}]})),
    ];
    for (path, body) in cases {
        let problem = service.post(path, body.clone()).await.problem(400, "malformed_body");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("sequence, expected a JSON object"), "{path} {body}: {detail}");
    }
    let spec = service.call(Method::PUT, "/v1/indexes/b", Some(json!(["b", null, 4, "auto", 2]))).await;
    spec.problem(400, "malformed_body");
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_a_problem_too() {
    let (_world, service) = served(Limits::default()).await;
    for path in ["/", "/v1", "/v1/indexes/", "/v2/indexes", "/v1/indexes/a/searches", "/metrics/x"] {
        service.get(path).await.problem(404, "route_not_found");
    }
    for (method, path) in [
        (Method::GET, SEARCH),
        (Method::POST, "/v1/indexes/a"),
        (Method::PUT, "/v1/indexes/a/records"),
        (Method::DELETE, "/health/live"),
        (Method::PATCH, "/v1/indexes"),
    ] {
        service.call(method, path, None).await.problem(405, "method_not_allowed");
    }
    for name in ["none", "..%2fa", "A", "a%00", "%ff", &"x".repeat(200)] {
        let get = service.get(&format!("/v1/indexes/{name}")).await;
        assert!(matches!(get.status.as_u16(), 400 | 404), "{name}: {get:?}");
        let search = service.post(&format!("/v1/indexes/{name}/search"), json!({"vector": [0, 0]})).await;
        assert!(matches!(search.status.as_u16(), 400 | 404), "{name}: {search:?}");
        assert_eq!(search.media, "application/problem+json");
    }
    service.search("none", json!({"vector": [0, 0]})).await.problem(404, "index_not_found");
    service.post("/v1/indexes/none/count", json!({})).await.problem(404, "index_not_found");
    service.get("/v1/indexes/none/records").await.problem(404, "index_not_found");
    service.get("/v1/indexes/none/records/x").await.problem(404, "index_not_found");
    service.post("/v1/indexes/none/records", json!({"records": []})).await.problem(404, "index_not_found");
    service.call(Method::DELETE, "/v1/indexes/none/records/x", None).await.problem(404, "index_not_found");
    service.call(Method::DELETE, "/v1/indexes/none", None).await.problem(404, "index_not_found");
    service.get("/v1/indexes/a/records/none").await.problem(404, "record_not_found");
    for query in ["limit=0", "limit=10001", "limit=x", "include=all", "page=2", "cursor=%20"] {
        let refused = service.get(&format!("/v1/indexes/a/records?{query}")).await;
        assert_eq!(refused.status, 400, "{query}: {refused:?}");
        assert_eq!(refused.media, "application/problem+json");
    }
    raw(&service, SEARCH, None, "{}").await.problem(415, "unsupported_media_type");
    raw(&service, SEARCH, Some("text/plain"), "{}").await.problem(415, "unsupported_media_type");
    raw(&service, SEARCH, Some("application/x-protobuf"), "{}").await.problem(415, "unsupported_media_type");
    let json_type = Some("application/json; charset=utf-8");
    assert_eq!(raw(&service, SEARCH, json_type, r#"{"vector":[0,0]}"#).await.status, 200);
    let packed = service.client.post(format!("{}{SEARCH}", service.base)).header("content-encoding", "gzip");
    Answer::read(packed.json(&json!({})).send().await.unwrap()).await.problem(415, "unsupported_media_type");
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_log_writes_are_503_and_searches_go_on() {
    let (_world, service) = served(Limits::default()).await;
    let record = json!({"records": [{"id": "x", "vector": [0, 0]}]});
    let refused = service.post("/v1/indexes/a/records", record).await;
    refused.problem(503, "log_unavailable");
    assert!(refused.headers.contains_key("retry-after"));
    let delete = service.call(Method::DELETE, "/v1/indexes/a/records/x", None).await;
    delete.problem(503, "log_unavailable");
    let put = service.call(Method::PUT, "/v1/indexes/b", Some(json!({"dimension": 2}))).await;
    put.problem(503, "log_unavailable");
    assert_eq!(service.search("a", json!({"vector": [0, 0], "k": 1})).await.ids(), ["r0"]);
    let status = service.status("a").await;
    assert_eq!((status.partitions[0].lag_records, status.partitions[0].log_end), (None, None));
    assert_eq!((status.partitions[0].records, status.partitions[0].next_offset), (Some(10), Some(10)));
    assert_eq!((status.partitions[0].segments, status.partitions[0].manifest), (Some(1), Some(2)));
    let all = service.get("/v1/indexes").await.ok();
    assert_eq!(all["indexes"].as_array().unwrap().len(), 1);
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_over_each_limit_is_refused() {
    let limits = Limits {
        max_body_bytes: 1000,
        max_answer_bytes: 300,
        max_k: 5,
        max_ef: 20,
        max_batch: 2,
        max_list: 3,
        ..Limits::default()
    };
    let (_world, service) = served(limits).await;
    let padded = |n: usize| {
        let body = json!({"vector": [0, 0], "k": 1}).to_string();
        format!("{body}{}", " ".repeat(n - body.len()))
    };
    let json_type = Some("application/json");
    assert_eq!(raw(&service, SEARCH, json_type, &padded(1000)).await.status, 200);
    raw(&service, SEARCH, json_type, &padded(1001)).await.problem(413, "body_too_large");
    let chunks = futures::stream::iter((0..11).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100])));
    let request =
        service.client.post(format!("{}{SEARCH}", service.base)).header("content-type", "application/json");
    let streamed = request.body(reqwest::Body::wrap_stream(chunks)).send().await.unwrap();
    Answer::read(streamed).await.problem(413, "body_too_large");

    let search = |k: usize, ef: usize| json!({"vector": [0, 0], "k": k, "ef": ef, "include": []});
    assert_eq!(service.post(SEARCH, search(5, 20)).await.ids().len(), 5);
    service.post(SEARCH, search(6, 20)).await.problem(400, "invalid_request");
    service.post(SEARCH, search(5, 21)).await.problem(400, "invalid_request");
    let batch = |n: usize| json!({"searches": vec![search(1, 20); n]});
    let answers = service.post("/v1/indexes/a/search/batch", batch(2)).await.ok();
    assert_eq!(answers["results"].as_array().unwrap().len(), 2);
    service.post("/v1/indexes/a/search/batch", batch(3)).await.problem(400, "invalid_request");
    service.post("/v1/indexes/a/search/batch", batch(0)).await.problem(400, "invalid_request");
    service.get("/v1/indexes/a/records?limit=4").await.problem(400, "invalid_request");
    let long = json!({"vector": [0, 0], "k": 5, "include": ["metadata", "vector"]});
    service.post(SEARCH, long).await.problem(400, "answer_too_large");
    // a page is cut short rather than refused
    let page = service.get("/v1/indexes/a/records?limit=3&include=vector").await.ok();
    assert!(page["records"].as_array().unwrap().len() < 10 && page["cursor"].is_string(), "{page}");
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_cut_off_and_do_not_keep_others_out() {
    let limits = Limits {
        header_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        max_connections: 200,
        ..Limits::default()
    };
    let (_world, service) = served(limits).await;
    let address = service.base.trim_start_matches("http://").to_owned();
    let mut slow = Vec::new();
    for i in 0..150 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let begun: &[u8] = if i % 2 == 0 {
            b"POST /v1/indexes/a/search HTTP/1.1\r\nhost: x\r\n"
        } else {
            b"POST /v1/indexes/a/search HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
        };
        stream.write_all(begun).await.unwrap();
        slow.push(stream);
    }
    assert_eq!(service.search("a", json!({"vector": [0, 0], "k": 1})).await.ids(), ["r0"]);
    for (i, mut stream) in slow.into_iter().enumerate() {
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_string(&mut answer));
        read.await.expect("the connection is closed in time").unwrap_or_default();
        if i % 2 == 1 {
            assert!(answer.contains("408") && answer.contains("request_timeout"), "{answer}");
        }
    }
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_small_pieces_is_charged_for_what_it_holds() {
    let (_world, service) = served(Limits { max_bodies_bytes: 8 << 10, ..Limits::default() }).await;
    let address = service.base.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let mut request = String::from(
        "POST /v1/indexes/a/search HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n",
    );
    for byte in r#"{"vector": [0, 0], "k": 1}"#.chars() {
        request.push_str(&format!("1\r\n{byte}\r\n"));
    }
    request.push_str("0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_string(&mut answer));
    read.await.expect("the connection is closed in time").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_heads_are_refused() {
    let (_world, service) = served(Limits::default()).await;
    let long =
        service.client.get(format!("{}/v1/indexes", service.base)).header("x-long", "x".repeat(20 << 10));
    assert_eq!(long.send().await.unwrap().status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let mut many = service.client.get(format!("{}/v1/indexes", service.base));
    for i in 0..100 {
        many = many.header(format!("x-{i}"), "1");
    }
    assert_eq!(many.send().await.unwrap().status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn health_metrics_and_the_description_are_served() {
    let world = World::new();
    let empty = world.serve(Limits::default(), None).await;
    assert_eq!(empty.get("/health/live").await.ok(), json!({"status": "live"}));
    let mut ready = empty.get("/health/ready").await;
    for _ in 0..200 {
        if ready.status == 200 {
            break;
        }
        assert_eq!((ready.status.as_u16(), ready.json()["status"].as_str()), (503, Some("starting")));
        tokio::time::sleep(Duration::from_millis(10)).await;
        ready = empty.get("/health/ready").await;
    }
    assert_eq!(ready.ok(), json!({"status": "ready", "partitions": []}));
    assert_eq!(empty.get("/v1/indexes").await.ok(), json!({"indexes": []}));
    let document = empty.get("/openapi.json").await.ok();
    assert!(document["paths"]["/v1/indexes/{index}/search"]["post"].is_object());
    empty.get("/v1/indexes/a%2Fb/../secret").await;
    let metrics = empty.get("/metrics").await;
    assert!(metrics.media.starts_with("text/plain"));
    assert!(metrics.text.contains("route=\"/health/ready\""), "{}", metrics.text);
    assert!(!metrics.text.contains("secret"), "labels hold the matched path only");
    empty.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sane_request_id_is_kept_and_another_replaced() {
    let (_world, service) = served(Limits::default()).await;
    for (given, kept) in [("abc-1.2_3", true), ("a b", false), (&"x".repeat(65), false)] {
        let request = service.client.get(format!("{}/v1/indexes/none", service.base));
        let answer = Answer::read(request.header("x-request-id", given).send().await.unwrap()).await;
        let body: Value = answer.problem(404, "index_not_found");
        assert_eq!(body["request_id"] == given, kept, "{body}");
    }
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn liv_5_a_stop_lets_running_requests_end() {
    let (world, service) = served(Limits::default()).await;
    let address = service.base.trim_start_matches("http://").to_owned();
    let wanted = json!({"min_offsets": {"1": 0}, "timeout_ms": 20_000});
    let body = json!({"vector": [0, 0], "k": 1, "consistency": wanted}).to_string();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST {SEARCH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // the service asks for the body: the request is running
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    assert!(asked.starts_with(b"HTTP/1.1 100"), "{asked:?}");
    let spec = world.registry.list().await.unwrap().remove(0).spec;
    let mut hand = world.claim(&spec, 1).await;
    let stopping = tokio::spawn(service.stop());
    stream.write_all(body.as_bytes()).await.unwrap();
    hand.publish(vec![upsert("late", &[0.0, 0.0], json!({}))]).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"hits\""), "{answer}");
    stopping.await.unwrap().unwrap();
    assert!(TcpStream::connect(&address).await.is_err());
}
