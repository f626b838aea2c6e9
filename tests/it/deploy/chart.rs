//! The Helm chart renders the same objects as the overlays. A lane of its own, because Helm is not
//! everywhere: `tests/deploy/run.sh` builds it and runs this, and so does `.ci/run`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::manifests::{OVERLAYS, Objects, objects_of, overlay};

/// `PGITOPS_HELM`, or what `tests/deploy/build.sh` made.
fn helm() -> PathBuf {
    let path = std::env::var_os("PGITOPS_HELM").map(PathBuf::from);
    let path = path.expect("PGITOPS_HELM names no Helm; run tests/deploy/run.sh, which builds one");
    assert!(path.is_file(), "{}: run tests/deploy/run.sh", path.display());
    path
}

fn render(arguments: &[&str]) -> Result<Objects, String> {
    let output = Command::new(helm())
        .args(["template", "pgitops"])
        .arg(super::root().join("deploy/helm/pgitops"))
        .args(["--namespace", "pgitops-system"])
        .args(arguments)
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(objects_of(&output.stdout))
}

#[test]
#[ignore = "needs Helm: tests/deploy/run.sh builds it and runs this"]
fn the_chart_renders_the_overlays() {
    for mode in OVERLAYS {
        let mut chart = render(&["--set", &format!("mode={mode}")]).unwrap();
        let mut overlay = overlay(mode);
        // Helm makes the namespace itself, or it is there (--create-namespace).
        overlay.remove(&("Namespace".to_owned(), "pgitops-system".to_owned())).unwrap();
        for ((kind, name), object) in &mut chart {
            if kind == "CustomResourceDefinition" {
                // With a definition all its objects go: they outlive the release.
                let annotations = object["metadata"].as_object_mut().unwrap().remove("annotations");
                assert_eq!(annotations, Some(json!({"helm.sh/resource-policy": "keep"})), "{name}");
            }
        }
        let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&chart), names(&overlay), "{mode}");
        for (key, object) in &chart {
            assert_eq!(object, &overlay[key], "{mode}: {key:?}: the chart differs (left)");
        }
    }
}

#[test]
#[ignore = "needs Helm: tests/deploy/run.sh builds it and runs this"]
fn the_charts_values_reach_the_deployment() {
    let refused = render(&["--set", "mode=both"]).unwrap_err();
    assert!(refused.contains("must be one of 'standalone', 'beside-kubedb'"), "{refused}");
    let refused = render(&["--set", "replica=3"]).unwrap_err();
    assert!(refused.contains("replica"), "a typing error is not swallowed: {refused}");

    let values = json!({
        "image": {"repository": "registry.example.com/pgitops", "tag": "2"},
        "postgresImage": "registry.example.com/postgres:{version}-bookworm",
        "replicas": 3,
        "extraArgs": ["--allow-local-repositories"],
        "extraVolumes": [{"name": "git", "persistentVolumeClaim": {"claimName": "git"}}],
        "extraVolumeMounts": [{"name": "git", "mountPath": "/srv/git"}],
        "imagePullSecrets": [{"name": "pull"}],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "db"}],
    });
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(values.to_string().as_bytes()).unwrap();
    let objects = render(&["--values", file.path().to_str().unwrap()]).unwrap();
    let deployment = &objects[&("Deployment".to_owned(), "pgitops".to_owned())]["spec"];
    assert_eq!(deployment["replicas"], 3);
    let pod = &deployment["template"]["spec"];
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!(pod["nodeSelector"], json!({"disk": "ssd"}));
    assert_eq!(pod["tolerations"], json!([{"key": "db"}]));
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "registry.example.com/pgitops:2");
    assert_eq!(container["env"][1]["value"], container["image"], "databases get the same program");
    let arguments = container["args"].as_array().unwrap();
    assert!(arguments.contains(&json!("--allow-local-repositories")));
    let image = "--postgres-image=registry.example.com/postgres:{version}-bookworm";
    assert!(arguments.contains(&json!(image)), "{arguments:?}");
    assert_eq!(container["volumeMounts"][1], json!({"name": "git", "mountPath": "/srv/git"}));
    let claim = json!({"name": "git", "persistentVolumeClaim": {"claimName": "git"}});
    assert_eq!(pod["volumes"][1], claim);
}
