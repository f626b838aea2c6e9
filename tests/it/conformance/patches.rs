//! The four types of patch, and who manages which field.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::verbs::SET;
use super::{Cluster, map, refusal};

fn set() -> StatefulSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "serviceName": "web", "replicas": 0, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
                {"name": "one", "image": "pgitops:1", "env": [{"name": "A", "value": "a"}],
                 "ports": [{"containerPort": 80, "name": "http"}]},
                {"name": "two", "image": "pgitops:2"},
            ]}},
        },
    }))
    .unwrap()
}

fn containers(set: &StatefulSet) -> Value {
    json!(set.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers)
}

pub async fn every_type_of_patch(c: &Cluster) {
    let sets: Api<StatefulSet> = c.api();
    sets.create(&PostParams::default(), &set()).await.unwrap();
    let parameters = PatchParams::default();
    let spec = |value: Value| json!({"spec": {"template": {"spec": value}}});

    // Strategic: lists with a key are merged by it.
    let change = spec(json!({"containers": [
        {"name": "two", "image": "pgitops:3"},
        {"name": "one", "env": [{"name": "B", "value": "b"}]},
    ]}));
    let patched = sets.patch("web", &parameters, &Patch::Strategic(&change)).await.unwrap();
    let all = containers(&patched);
    let names = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap();
        list.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(all[names(&all).iter().position(|n| n == "two").unwrap()]["image"], "pgitops:3");
    let one = &all[names(&all).iter().position(|n| n == "one").unwrap()];
    let mut variables = names(&one["env"]);
    variables.sort();
    assert_eq!((variables, &one["image"]), (vec!["A".into(), "B".into()], &json!("pgitops:1")));
    let change = spec(json!({"containers": [{"name": "two", "$patch": "delete"}]}));
    let patched = sets.patch("web", &parameters, &Patch::Strategic(&change)).await.unwrap();
    assert_eq!(names(&containers(&patched)), ["one"]);

    // Merge: lists are replaced, null removes.
    let change = json!({
        "metadata": {"labels": {"x": "y", "gone": null}},
        "spec": {"template": {"spec": {"containers": [{"name": "three", "image": "pgitops:4"}]}}},
    });
    let patched = sets.patch("web", &parameters, &Patch::Merge(&change)).await.unwrap();
    assert_eq!(names(&containers(&patched)), ["three"]);
    assert_eq!(patched.labels(), &BTreeMap::from([("x".to_owned(), "y".to_owned())]));

    // JSON: operations in order, all or nothing.
    let path = "/spec/template/spec/containers/0/image";
    let operations: json_patch::Patch = serde_json::from_value(json!([
        {"op": "test", "path": path, "value": "pgitops:4"},
        {"op": "replace", "path": path, "value": "pgitops:5"},
        {"op": "add", "path": "/metadata/labels/a~1b", "value": "c"},
        {"op": "remove", "path": "/metadata/labels/x"},
    ]))
    .unwrap();
    let patch = Patch::Json::<()>(operations.clone());
    let patched = sets.patch("web", &parameters, &patch).await.unwrap();
    assert_eq!(containers(&patched)[0]["image"], "pgitops:5");
    assert_eq!(patched.labels(), &BTreeMap::from([("a/b".to_owned(), "c".to_owned())]));
    let refused = refusal(sets.patch("web", &parameters, &patch).await);
    assert_eq!(refused.code, 422, "the test fails now: {refused:?}");
    let now = sets.get("web").await.unwrap();
    assert_eq!(
        (now.metadata.generation, now.labels()),
        (patched.metadata.generation, patched.labels())
    );

    // What a patch may not do.
    let change = json!({"spec": {"serviceName": "other"}});
    let refused = refusal(sets.patch("web", &parameters, &Patch::Merge(&change)).await);
    assert_eq!(refused.code, 422);
    assert!(refused.message.contains("updates to statefulset spec for fields other than"));
    let absent = refusal(sets.patch("none", &parameters, &Patch::Merge(&change)).await);
    assert_eq!(absent.code, 404);
    let change = json!({"metadata": {"name": "renamed"}});
    let refused = refusal(sets.patch("web", &parameters, &Patch::Merge(&change)).await);
    assert_eq!(refused.code, 400, "{refused:?}");
    assert!(refused.message.contains("does not match the name on the URL"), "{refused:?}");
}

pub async fn applies_own_fields_and_conflict(c: &Cluster) {
    let maps: Api<ConfigMap> = c.api();
    let data = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data});
    let one = PatchParams::apply("one");
    let mine = Patch::Apply(data(json!({"a": "1", "b": "1"})));
    maps.patch("x", &one, &mine).await.unwrap();
    let theirs = Patch::Apply(data(json!({"a": "2", "c": "2"})));
    let two = PatchParams::apply("two");
    let status = refusal(maps.patch("x", &two, &theirs).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"one\": .data.a");
    let cause = &status.details.unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".data.a"));
    // The same value is no conflict: both own it.
    maps.patch("x", &two, &Patch::Apply(data(json!({"a": "1"})))).await.unwrap();
    let less = Patch::Apply(data(json!({"b": "1"})));
    let object = maps.patch("x", &one, &less).await.unwrap();
    assert_eq!(object.data.unwrap()["a"], "1", "it has another owner still");
    maps.patch("x", &one, &mine).await.unwrap();

    maps.patch("x", &two.clone().force(), &theirs).await.unwrap();
    // What "one" no longer names goes; what "two" has taken stays.
    let object = maps.patch("x", &one, &Patch::Apply(data(json!({})))).await.unwrap();
    let expected = BTreeMap::from([("a".into(), "2".into()), ("c".into(), "2".into())]);
    assert_eq!(object.data, Some(expected));
    let before = object.resource_version();
    let same = maps.patch("x", &two, &theirs).await.unwrap();
    assert_eq!(same.resource_version(), before, "nothing changed");
    // An apply without a manager's name, and one that carries managed fields.
    let nameless = refusal(maps.patch("x", &PatchParams::default(), &theirs).await);
    let words = "fieldManager: Required value: is required for apply patch";
    assert!(nameless.code == 422 && nameless.message.contains(words), "{nameless:?}");
    for (metadata, complaint) in [
        (
            json!({"name": "x", "managedFields": object.metadata.managed_fields}),
            "metadata.managedFields must be nil",
        ),
        (json!({"name": "y"}), "does not match the name on the URL"),
    ] {
        let mut wrong = data(json!({"a": "2"}));
        wrong["metadata"] = metadata;
        let refused = refusal(maps.patch("x", &two, &Patch::Apply(wrong)).await);
        assert_eq!(refused.code, 400);
        assert!(refused.message.contains(complaint), "{refused:?}");
    }
    // A name may be left out of what is there, not of what is to be.
    let mut nameless = data(json!({"a": "2"}));
    nameless["metadata"] = json!({});
    maps.patch("x", &two, &Patch::Apply(nameless.clone())).await.unwrap();
    let refused = refusal(maps.patch("z", &two, &Patch::Apply(nameless)).await);
    assert_eq!(refused.code, 400);
    assert!(refused.message.contains("name must be provided"), "{refused:?}");
}

pub async fn fields_are_managed(c: &Cluster) {
    let maps: Api<ConfigMap> = c.api();
    let by =
        |name: &str| PostParams { field_manager: Some(name.to_owned()), ..PostParams::default() };
    let mut object = map("x", &[("a", "1"), ("b", "1")]);
    object.metadata.labels = Some(BTreeMap::from([("l".to_owned(), "1".to_owned())]));
    maps.create(&by("creator"), &object).await.unwrap();
    let other = PatchParams { field_manager: Some("editor".into()), ..PatchParams::default() };
    maps.patch("x", &other, &Patch::Merge(json!({"data": {"b": "2"}}))).await.unwrap();
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"},
                         "data": {"c": "3"}});
    let object = maps.patch("x", &PatchParams::apply("applier"), &Patch::Apply(applied)).await;
    let mut told: Vec<String> = object
        .unwrap()
        .metadata
        .managed_fields
        .unwrap()
        .iter()
        .map(|entry| {
            let (manager, operation) = (entry.manager.as_deref(), entry.operation.as_deref());
            let (version, type_) = (entry.api_version.as_deref(), entry.fields_type.as_deref());
            assert_eq!((version, type_), (Some("v1"), Some("FieldsV1")));
            assert!(entry.time.is_some());
            format!("{} {} {}", manager.unwrap(), operation.unwrap(), json!(entry.fields_v1))
        })
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            r#"applier Apply {"f:data":{"f:c":{}}}"#,
            r#"creator Update {"f:data":{".":{},"f:a":{}},"f:metadata":{"f:labels":{".":{},"f:l":{}}}}"#,
            r#"editor Update {"f:data":{"f:b":{}}}"#,
        ]
    );
}

pub async fn what_an_apply_no_longer_names_goes(c: &Cluster) {
    let file = c.file("set.yaml", SET);
    let applied = c.ok(&format!("apply --server-side -f {file}")).await;
    assert_eq!(applied, "statefulset.apps/web serverside-applied");
    c.ok("scale sts web --replicas=5").await;
    let conflict = c.fails(&format!("apply --server-side -f {file}")).await;
    assert!(
        conflict.contains("Apply failed with 1 conflict: conflict with \"kubectl\""),
        "{conflict}"
    );
    assert!(conflict.contains(": .spec.replicas"), "{conflict}");
    c.ok(&format!("apply --server-side -f {file} --force-conflicts")).await;
    assert_eq!(c.ok("get sts web -o jsonpath={.spec.replicas}").await, "2");
    // Taking over from a client-side apply: what that alone had owned goes as well.
    c.ok("delete sts web").await;
    c.apply(SET).await;
    c.ok(&format!("apply --server-side -f {file}")).await;
    // A field that its only owner no longer applies goes.
    let file = c.file("less.yaml", &SET.replace("        env: [{name: A, value: b}]\n", ""));
    c.ok(&format!("apply --server-side -f {file}")).await;
    let container = "jsonpath={.spec.template.spec.containers[0]";
    assert_eq!(c.ok(&format!("get sts web -o {container}.env}}")).await, "");
    let ports = c.ok(&format!("get sts web -o {container}.ports}}")).await;
    assert_eq!(ports, r#"[{"containerPort":80,"protocol":"TCP"}]"#);
}
