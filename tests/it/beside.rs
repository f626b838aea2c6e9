//! pgitops beside KubeDB, against the sandbox: KubeDB's definitions, `sync` alone.

use crate::conformance::Cluster;
use crate::fixture::World;
use crate::kubedb;

macro_rules! on_the_sandbox {
    ($($case:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            let world = World::start_with(|options| options.empty = true).await;
            kubedb::define(&world.client()).await;
            let kubeconfig = world.sandbox.kubeconfig.clone();
            let cluster = Cluster::open(world.client(), &kubeconfig, "beside").await;
            kubedb::cases::$case(&cluster).await;
            world.stop().await;
        }
    )*};
}

crate::kubedb::beside_cases!(on_the_sandbox);
