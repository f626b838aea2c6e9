//! The overlays, rendered by the kustomize in kubectl: they render, hold what they should and
//! nothing that Kubernetes does not know, and keep the hard rules for pods.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, discovery};
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned};
use serde_json::{Value, json};

use crate::fixture::World;

/// The overlays of `deploy/overlays`; also the modes of the chart.
pub const OVERLAYS: [&str; 2] = ["standalone", "beside-kubedb"];

/// Kind and name of an object: enough to tell those of an overlay apart.
pub type Objects = BTreeMap<(String, String), Value>;

/// What `kubectl apply -k` would apply.
pub fn overlay(name: &str) -> Objects {
    render(&super::root().join("deploy/overlays").join(name))
}

fn render(folder: &Path) -> Objects {
    let output = Command::new("kubectl").arg("kustomize").arg(folder).output();
    let output = output.expect(
        "kubectl is needed by this test: install it (https://kubernetes.io/docs/tasks/tools)",
    );
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {words}", folder.display());
    objects_of(&output.stdout)
}

/// The objects of a stream of YAML documents.
pub fn objects_of(yaml: &[u8]) -> Objects {
    let mut objects = Objects::new();
    for document in serde_yaml::Deserializer::from_slice(yaml) {
        let object = Value::deserialize(document).unwrap();
        if object.is_null() {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let key = (text(&object["kind"]), text(&object["metadata"]["name"]));
        assert!(objects.insert(key.clone(), object).is_none(), "twice: {key:?}");
    }
    objects
}

#[test]
fn overlays_hold_what_their_name_says() {
    let [standalone, beside] = OVERLAYS.map(|name| {
        let names: Vec<String> =
            overlay(name).into_keys().map(|(kind, name)| format!("{kind} {name}")).collect();
        names
    });
    let base = [
        "ClusterRole pgitops-sync",
        "ClusterRoleBinding pgitops-sync",
        "CustomResourceDefinition configrepositories.pgitops.dev",
        "Deployment pgitops",
        "Namespace pgitops-system",
        "NetworkPolicy pgitops",
        "PodDisruptionBudget pgitops",
        "Role pgitops-lease",
        "RoleBinding pgitops-lease",
        "Service pgitops-metrics",
        "ServiceAccount pgitops",
    ];
    assert_eq!(beside, base);
    let servers = [
        "ClusterRole pgitops-servers",
        "ClusterRoleBinding pgitops-servers",
        "CustomResourceDefinition postgreses.kubedb.com",
        "CustomResourceDefinition postgresopsrequests.ops.kubedb.com",
        "NetworkPolicy pgitops-servers",
    ];
    let mut all = [&base[..], &servers].concat();
    all.sort_unstable();
    assert_eq!(standalone, all);
}

#[test]
fn kubernetes_knows_every_field() {
    for ((kind, name), object) in OVERLAYS.into_iter().flat_map(overlay) {
        let read = match kind.as_str() {
            "ClusterRole" => typed::<ClusterRole>(&object),
            "ClusterRoleBinding" => typed::<ClusterRoleBinding>(&object),
            // Printed from the type, and compared with that.
            "CustomResourceDefinition" => continue,
            "Deployment" => typed::<Deployment>(&object),
            "Namespace" => typed::<Namespace>(&object),
            "NetworkPolicy" => typed::<NetworkPolicy>(&object),
            "PodDisruptionBudget" => typed::<PodDisruptionBudget>(&object),
            "Role" => typed::<Role>(&object),
            "RoleBinding" => typed::<RoleBinding>(&object),
            "Service" => typed::<Service>(&object),
            "ServiceAccount" => typed::<ServiceAccount>(&object),
            other => panic!("{other}: no type of it is read here yet; add it"),
        };
        // A field that the type does not have is lost on the way.
        assert_eq!(read, object, "{kind} {name}");
    }
}

fn typed<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let read: T =
        serde_json::from_value(object.clone()).unwrap_or_else(|e| panic!("{e}: {object}"));
    serde_json::to_value(read).unwrap()
}

#[test]
fn the_controller_keeps_the_hard_rules_for_pods() {
    for name in OVERLAYS {
        let objects = overlay(name);
        let deployment = &objects[&("Deployment".to_owned(), "pgitops".to_owned())]["spec"];
        let pod = &deployment["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let closed = json!({
            "allowPrivilegeEscalation": false, "privileged": false,
            "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
        });
        assert_eq!(container["securityContext"], closed);
        assert!(container["resources"]["limits"]["memory"].is_string());
        assert!(container["resources"]["requests"]["cpu"].is_string());
        assert_eq!(deployment["replicas"], 2);
        // Its arguments are arguments.
        let arguments = container["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap());
        let parsed = <pgitops::cli::Cli as clap::Parser>::try_parse_from(
            ["pgitops"].into_iter().chain(arguments),
        );
        assert!(parsed.is_ok(), "{name}: {}", parsed.unwrap_err());
        if name == "standalone" {
            assert_eq!(
                told_image(container),
                &container["image"],
                "databases get the same program"
            );
        }
    }
}

/// Whoever writes another image into a kustomization gets it into the databases too.
#[test]
fn databases_follow_the_image_of_the_controller() {
    let copy = tempfile::tempdir().unwrap();
    for folder in ["deploy", "examples"] {
        let from = super::root().join(folder);
        let copied = Command::new("cp").arg("-r").arg(from).arg(copy.path()).status().unwrap();
        assert!(copied.success());
    }
    for folder in ["deploy/overlays/standalone", "examples/install"] {
        let file = copy.path().join(folder).join("kustomization.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        let other = text
            .replace("newName: pgitops", "newName: registry.example.com/pgitops")
            .replace("newTag: 0.1.0", "newTag: 0.9.9");
        std::fs::write(&file, other).unwrap();
        let objects = render(file.parent().unwrap());
        let deployment = &objects[&("Deployment".to_owned(), "pgitops".to_owned())];
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "registry.example.com/pgitops:0.9.9");
        assert_eq!(told_image(container), &container["image"], "{folder}");
        // One after the other: the example stands on the overlay as it is.
        std::fs::write(&file, text).unwrap();
    }
}

fn told_image(container: &Value) -> &Value {
    let env = container["env"].as_array().unwrap();
    &env.iter().find(|e| e["name"] == "PGITOPS_IMAGE").unwrap()["value"]
}

/// The example is the overlay and a volume with a repository.
#[test]
fn the_example_installation_mounts_what_it_follows() {
    let objects = render(&super::root().join("examples/install"));
    let deployment = &objects[&("Deployment".to_owned(), "pgitops".to_owned())];
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert!(container["args"].as_array().unwrap().contains(&json!("--allow-local-repositories")));
    let claim = &pod["volumes"][1]["persistentVolumeClaim"]["claimName"];
    assert!(
        objects.contains_key(&(
            "PersistentVolumeClaim".to_owned(),
            claim.as_str().unwrap().to_owned()
        ))
    );
    let mounted = container["volumeMounts"][1]["mountPath"].as_str().unwrap();
    let manifest = super::root().join("examples/manifests/config-repository.yaml");
    let manifest = objects_of(&std::fs::read(manifest).unwrap());
    let repository = manifest.into_values().next().unwrap();
    let url = repository["spec"]["url"].as_str().unwrap();
    assert!(url.starts_with(mounted), "{url} is not below {mounted}");
    let git = &objects[&("Pod".to_owned(), "git".to_owned())]["spec"];
    assert!(git["containers"][0]["command"][2].as_str().unwrap().contains(url));
    // Each writes what the other wrote.
    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(git["securityContext"][key], pod["securityContext"][key], "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_takes_every_object_that_it_serves() {
    let world = World::start_with(|options| options.empty = true).await;
    for name in OVERLAYS {
        let (taken, unknown) = apply(&world.client(), &overlay(name)).await;
        println!("{name}: {taken} applied, not served: {unknown:?}");
        assert!(taken >= 10, "{name}: {taken}, not served: {unknown:?}");
    }
    world.stop().await;
}

/// Applies what the API server knows, namespaces and definitions first, with strict validation.
/// How many it took, and the kinds that it does not serve.
pub async fn apply(client: &kube::Client, objects: &Objects) -> (usize, Vec<String>) {
    let first = ["Namespace", "CustomResourceDefinition"];
    let (before, after): (Vec<_>, Vec<_>) =
        objects.iter().partition(|((kind, _), _)| first.contains(&kind.as_str()));
    let (mut taken, mut unknown) = (0, Vec::new());
    for ((kind, name), object) in before.into_iter().chain(after) {
        let version = object["apiVersion"].as_str().unwrap();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let Ok((resource, _)) = discovery::pinned_kind(client, &gvk).await else {
            unknown.push(kind.clone());
            continue;
        };
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let mut parameters = PatchParams::apply("test").force();
        parameters.field_validation = Some(kube::api::ValidationDirective::Strict);
        let applied = api.patch(name, &parameters, &Patch::Apply(object)).await;
        applied.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
        taken += 1;
    }
    (taken, unknown)
}
