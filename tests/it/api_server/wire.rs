//! What goes over the wire: who is let in, what is too large, what is counted.

use super::cluster::Cluster;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use pgitops::sandbox::api_server::ADMIN;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_in_without_the_token() {
    let c = Cluster::start().await;
    let text = c.running.kubeconfig().replace("\"token\": \"", "\"token\": \"x");
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&text).unwrap();
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(Client::try_from(config).unwrap());
    let refused = maps.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(s) if s.code == 401), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_have_a_limit() {
    let c = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(c.client());
    let mut map = ConfigMap::default();
    map.metadata.name = Some("x".into());
    map.data = Some([("a".to_owned(), "x".repeat(4 << 20))].into());
    let refused = maps.create(&Default::default(), &map).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(s) if s.code == 413), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted() {
    let c = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(c.client());
    maps.list(&ListParams::default()).await.unwrap();
    maps.get_opt("x").await.unwrap();
    let counts = c.running.counts();
    let counted = |verb: &str| counts.get(&(verb.to_owned(), "configmaps".to_owned())).copied();
    assert_eq!((counted("list"), counted("get"), counted("create")), (Some(1), Some(1), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_what_is_remembered() {
    let c = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(c.client());
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    let patch = Patch::Apply(&object);
    maps.patch("x", &PatchParams::apply("test"), &patch).await.unwrap();
    maps.patch("x", &PatchParams::apply("test"), &patch).await.unwrap();
    let all = c.running.accesses().into_iter().filter(|access| access.plural == "configmaps");
    let all: Vec<(&str, String, Option<String>)> =
        all.map(|access| (access.verb, access.user, access.namespace)).collect();
    let of = |verb| (verb, ADMIN.to_owned(), Some("default".to_owned()));
    assert_eq!(all, [of("create"), of("patch")], "an apply that creates is a creation too");
}
