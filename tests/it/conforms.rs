//! The conformance cases against the sandbox.

use std::path::Path;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;

use crate::api_server::cluster::Cluster as Server;
use crate::conformance::{self, Cluster, line, map, watching};
use crate::fixture::{EXECUTABLE, World};

macro_rules! on_the_sandbox {
    ($($file:ident::$case:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            let (world, cluster) = start(stringify!($case)).await;
            conformance::$file::$case(&cluster).await;
            world.stop().await;
        }
    )*};
}

crate::conformance::cases!(on_the_sandbox);

async fn start(case: &str) -> (World, Cluster) {
    let world = World::start_with(|options| options.empty = true).await;
    let cluster = Cluster::open(world.client(), &world.sandbox.kubeconfig, case).await;
    (world, cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_line() {
    let (world, cluster) = start("line").await;
    let figures = line::the_whole_line(&cluster, Path::new(EXECUTABLE)).await;
    let line::Figures { ready, reload, restart, push } = figures;
    println!("Ready {ready:?}, reload {reload:?}, restart {restart:?}, push {push:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_watch_expires() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::server(folder.path(), 10).await;
    let client = server.client().unwrap();
    let cluster =
        Cluster::open(client.clone(), &folder.path().join("kubeconfig"), "an-old-watch").await;
    // It remembers ten changes.
    let forget = async {
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        for n in 0..12 {
            maps.create(&PostParams::default(), &map(&format!("m{n}"), &[])).await.unwrap();
        }
    };
    watching::an_old_watch_expires(&cluster, forget).await;
}
