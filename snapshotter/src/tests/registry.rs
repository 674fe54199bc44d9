//! The registry: idempotent creation, changes in place, retirement, generations, races.

use futures::future::join_all;
use sluice_core::{ErrorKind, IndexSpec};

use super::faulty::{FAULTS, Fault, Faulty};
use super::*;
use crate::paths::Object;
use crate::registry::{Created, Registry};

fn spec(text: &str) -> IndexSpec {
    serde_json::from_str(text).unwrap()
}

fn registry(store: &Store) -> Registry {
    Registry::new(store.clone(), Arc::new(TestClock::default()))
}

#[tokio::test]
async fn a_spec_is_created_once_and_then_the_same_or_different() {
    for (name, store, _dir) in stores() {
        let registry = registry(&store);
        let first = spec(r#"{"name":"packages","dimension":4}"#);
        assert_eq!(registry.get(&first.name).await.unwrap(), None, "{name}");
        let Created::Created(stored) = registry.create(&first).await.unwrap() else { panic!("{name}") };
        assert_eq!((stored.version, stored.generation.0, stored.retired), (1, 1, false));
        assert_eq!(registry.create(&first).await.unwrap(), Created::Same(stored.clone()));
        assert_eq!(registry.get(&first.name).await.unwrap(), Some(stored));
        let other = spec(r#"{"name":"packages","dimension":5,"seal":{"max_age":"1s"}}"#);
        let Created::Differs { differences, .. } = registry.create(&other).await.unwrap() else { panic!() };
        let keys: Vec<_> = differences.iter().map(|d| (d.key, d.in_place)).collect();
        assert_eq!(keys, [("dimension", false), ("seal", true)], "{name}");
        let error = registry.update(&other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("dimension: stored 4, given 5"), "{error}");
        let changed = spec(r#"{"name":"packages","dimension":4,"seal":{"max_age":"1s"}}"#);
        let stored = registry.update(&changed).await.unwrap();
        assert_eq!((stored.version, stored.generation.0), (2, 1), "{name}");
        assert_eq!(registry.update(&changed).await.unwrap(), stored, "no change, no version");
        let unknown = spec(r#"{"name":"other","dimension":4}"#);
        assert_eq!(registry.update(&unknown).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_retired_index_is_gone_and_its_name_begins_the_next_generation() {
    for (name, store, _dir) in stores() {
        let registry = registry(&store);
        for index in ["b", "a", "a-b"] {
            registry.create(&spec(&format!(r#"{{"name":"{index}","dimension":4}}"#))).await.unwrap();
        }
        let index = IndexName::new("a").unwrap();
        assert!(registry.retire(&index).await.unwrap().unwrap().retired);
        assert_eq!(registry.retire(&index).await.unwrap(), None, "{name}");
        assert_eq!(registry.get(&index).await.unwrap(), None, "{name}");
        let names = |specs: Vec<crate::StoredSpec>| -> Vec<String> {
            specs.iter().map(|s| s.spec.name.to_string()).collect()
        };
        assert_eq!(names(registry.list().await.unwrap()), ["a-b", "b"], "{name}");
        assert_eq!(names(registry.list_all().await.unwrap()), ["a", "a-b", "b"], "{name}");
        let again = spec(r#"{"name":"a","dimension":7}"#);
        let Created::Created(stored) = registry.create(&again).await.unwrap() else { panic!("{name}") };
        assert_eq!((stored.version, stored.generation.0), (3, 2), "{name}");
    }
}

#[tokio::test]
async fn a_topic_that_feeds_an_index_is_not_given_to_another() {
    for (name, store, _dir) in stores() {
        let registry = registry(&store);
        let first = spec(r#"{"name":"b","dimension":4}"#);
        let second = spec(r#"{"name":"a","topic":"b","dimension":4}"#);
        registry.create(&first).await.unwrap();
        let error = registry.create(&second).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{name}");
        assert!(error.to_string().contains("feeds index b"), "{error}");
        assert!(matches!(registry.create(&first).await.unwrap(), Created::Same(_)), "{name}");
        registry.retire(&first.name).await.unwrap();
        assert!(matches!(registry.create(&second).await.unwrap(), Created::Created(_)), "{name}");
        assert!(registry.create(&first).await.is_err(), "{name}: b would come back to a topic that is taken");
    }
}

#[tokio::test]
async fn of_sixteen_that_create_an_index_at_once_one_does() {
    for (name, store, _dir) in stores() {
        let registry = registry(&store);
        let same = spec(r#"{"name":"packages","dimension":4}"#);
        let results = join_all((0..16).map(|_| registry.create(&same))).await;
        let created = results.iter().filter(|r| matches!(r, Ok(Created::Created(_)))).count();
        let found = results.iter().filter(|r| matches!(r, Ok(Created::Same(_)))).count();
        assert_eq!((created, found), (1, 15), "{name}");
    }
}

#[tokio::test]
async fn fence_4_an_unclear_create_of_a_spec_is_resolved() {
    // of the topic's binding, or of the spec itself
    for (before, fault) in [0, 1].into_iter().flat_map(|n| FAULTS.map(|fault| (n, fault))) {
        let faulty = Arc::new(Faulty::default());
        let script = std::iter::repeat_n(Fault::None, before).chain([fault]);
        faulty.script.lock().unwrap().extend(script);
        let registry = registry(&over(&faulty));
        let made = registry.create(&spec(r#"{"name":"packages","dimension":4}"#)).await.unwrap();
        assert!(matches!(made, Created::Created(_)), "{before} {fault:?}");
        assert_eq!(registry.list().await.unwrap().len(), 1, "{before} {fault:?}");
    }
}

#[tokio::test]
async fn a_damaged_or_foreign_spec_is_refused_by_its_key() {
    let store = memory();
    let registry = registry(&store);
    registry.create(&spec(r#"{"name":"a","dimension":4}"#)).await.unwrap();
    let [a, b] = ["a", "b"].map(|n| IndexName::new(n).unwrap());
    let body =
        store.get(&Object::Spec(a.clone(), 1), 9999, crate::store::Carrier::Small).await.unwrap().unwrap();
    for body in [body.as_ref(), b"{", b"{}"] {
        let object = Object::Spec(b.clone(), 1);
        store.put(&object, bytes::Bytes::copy_from_slice(body)).await.unwrap();
        let error = registry.get(&b).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().starts_with("b/spec/00000000000000000001.json"), "{error}");
        let listed: Vec<_> = registry.list().await.unwrap().into_iter().map(|s| s.spec.name).collect();
        assert_eq!(listed, std::slice::from_ref(&a), "a damaged spec does not take the others with it");
    }
}
