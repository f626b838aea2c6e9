//! Custom resources: definition, validation, defaults, rules, status.

use super::cluster::Cluster;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    selectableFields: [{jsonPath: .spec.color}]
    additionalPrinterColumns:
    - {name: Color, type: string, jsonPath: .spec.color}
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
    - {name: Size, type: integer, jsonPath: .spec.size, priority: 1}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [size]
            x-kubernetes-validations:
            - {rule: "self.size <= 10 || self.color == 'red'", message: big ones are red}
            - {rule: self.size >= oldSelf.size, message: widgets only grow}
            properties:
              size: {type: integer, minimum: 1, maximum: 100}
              color: {type: string, enum: [red, green], default: green}
              replicas: {type: integer, default: 1}
              port: {x-kubernetes-int-or-string: true}
              label: {type: string, pattern: '^[a-z]+$', maxLength: 5}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
              tags: {type: array, x-kubernetes-list-type: set, items: {type: string}}
              parts:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, count: {type: integer, default: 7}}
          status:
            type: object
            properties:
              replicas: {type: integer}
              conditions:
                type: array
                items: {type: object, properties: {type: {type: string}, status: {type: string}}}
"#;

fn widget(spec: &str) -> String {
    format!(
        "apiVersion: example.com/v1\nkind: Widget\nmetadata: {{name: w, namespace: default}}\n\
         spec: {spec}\n"
    )
}

async fn defined() -> Cluster {
    let c = Cluster::start().await;
    c.apply(DEFINITION).await;
    let waited = c.ok("wait --for=condition=established crd/widgets.example.com").await;
    assert_eq!(
        waited,
        "customresourcedefinition.apiextensions.k8s.io/widgets.example.com condition met"
    );
    c
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_served_at_once_and_takes_its_objects_along() {
    let c = defined().await;
    c.apply(&widget("{size: 3, port: 50%, free: {a: {b: 1}}, parts: [{name: x}]}")).await;
    let shown = c.ok("get wd w -o jsonpath={.spec}").await;
    assert_eq!(
        shown,
        r#"{"color":"green","free":{"a":{"b":1}},"parts":[{"count":7,"name":"x"}],"port":"50%","replicas":1,"size":3}"#
    );
    assert_eq!(c.table("get all").await, ["NAME COLOR READY", "widget.example.com/w green"]);
    assert_eq!(c.table("get wd -o wide").await, ["NAME COLOR READY SIZE", "w green 3"]);
    assert_eq!(
        c.table("get wd --field-selector spec.color=green -o name").await,
        ["widget.example.com/w"]
    );
    let refused = c.fails("get wd --field-selector spec.size=3").await;
    assert!(refused.contains("field label not supported: spec.size"), "{refused}");
    assert!(c.ok("explain wd.spec.size").await.contains("FIELD: size <integer>"));
    c.ok("delete crd widgets.example.com").await;
    assert!(c.fails("get --raw /apis/example.com/v1/widgets").await.contains("could not find"));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_judged_by_their_schema_and_rules() {
    let c = defined().await;
    for (spec, complaints) in [
        (
            "{size: 200, color: red}",
            vec![
                "spec.size: Invalid value: 200: spec.size in body should be less than or equal to 100",
            ],
        ),
        (
            "{size: 2, color: blue}",
            vec![r#"spec.color: Unsupported value: "blue": supported values: "red", "green""#],
        ),
        (
            "{color: red}",
            vec!["spec.size: Required value", "some validation rules were not checked"],
        ),
        (
            "{size: x}",
            vec![
                r#"spec.size: Invalid value: "string": spec.size in body must be of type integer: "string""#,
            ],
        ),
        (
            "{size: 2, label: ABCDEF}",
            vec![
                "spec.label: Too long: may not be more than 5 bytes",
                "spec.label in body should match '^[a-z]+$'",
            ],
        ),
        ("{size: 2, parts: [{count: 1}]}", vec!["spec.parts[0].name: Required value"]),
        (
            "{size: 2, parts: [{name: a}, {name: a}]}",
            vec![r#"spec.parts[1]: Duplicate value: {"name":"a"}"#],
        ),
        ("{size: 2, tags: [a, a]}", vec![r#"spec.tags[1]: Duplicate value: "a""#]),
        ("{size: 20}", vec![r#"spec: Invalid value: "object": big ones are red"#]),
        ("{size: 2, nonsense: 1}", vec![r#"strict decoding error: unknown field "spec.nonsense""#]),
    ] {
        let file = c.file("bad.yaml", &widget(spec));
        let refused = c.fails(&format!("apply -f {file}")).await;
        for complaint in complaints {
            assert!(refused.contains(complaint), "{spec}: {refused}");
        }
    }
    c.apply(&widget("{size: 5}")).await;
    let refused = c.fails(r#"patch wd w --type merge -p {"spec":{"size":4}}"#).await;
    assert!(refused.contains("spec: Invalid value: \"object\": widgets only grow"), "{refused}");
    let warned = c.ok(r#"patch wd w --type merge -p {"spec":{"nonsense":1}}"#).await;
    assert!(warned.contains("Warning: unknown field \"spec.nonsense\""), "{warned}");
    let refused = c.fails(r#"patch wd w -p {"spec":{"size":6}}"#).await;
    assert!(
        refused.contains("application/strategic-merge-patch+json is not supported"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_a_part_of_its_own() {
    let c = defined().await;
    c.apply(&widget("{size: 5}")).await;
    c.ok(r#"patch wd w --type merge -p {"status":{"replicas":9}}"#).await;
    assert_eq!(c.ok("get wd w -o jsonpath={.status}{.metadata.generation}").await, "1");
    c.ok(r#"patch wd w --subresource status --type merge -p {"spec":{"size":77},"status":{"replicas":2,"conditions":[{"type":"Ready","status":"True"}]}}"#).await;
    let shown =
        c.ok("get wd w -o jsonpath={.spec.size},{.status.replicas},{.metadata.generation}").await;
    assert_eq!(shown, "5,2,1");
    assert_eq!(c.ok("wait --for=condition=Ready wd/w").await, "widget.example.com/w condition met");
    assert_eq!(
        c.ok("wait --for=jsonpath={.status.replicas}=2 wd/w").await,
        "widget.example.com/w condition met"
    );
    c.ok("scale wd w --replicas=4").await;
    assert_eq!(c.ok("get wd w -o jsonpath={.spec.replicas},{.metadata.generation}").await, "4,2");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_by_key_are_owned_by_element() {
    let c = defined().await;
    let one = c.file("one.yaml", &widget("{size: 5, parts: [{name: a, count: 1}]}"));
    let two = c.file("two.yaml", &widget("{size: 5, parts: [{name: b, count: 2}]}"));
    c.ok(&format!("apply --server-side --field-manager one -f {one}")).await;
    c.ok(&format!("apply --server-side --field-manager two -f {two}")).await;
    let parts = c.ok("get wd w -o jsonpath={.spec.parts[*].name}").await;
    assert_eq!(parts, "a b");
    let none = c.file("none.yaml", &widget("{size: 5}"));
    c.ok(&format!("apply --server-side --field-manager one -f {none}")).await;
    assert_eq!(c.ok("get wd w -o jsonpath={.spec.parts[*].name}").await, "b");
    let other = c.file("other.yaml", &widget("{size: 6, parts: [{name: b, count: 3}]}"));
    let conflict = c.fails(&format!("apply --server-side --field-manager one -f {other}")).await;
    assert!(
        conflict.contains("Apply failed with 2 conflicts: conflicts with \"two\":"),
        "{conflict}"
    );
    assert!(conflict.contains("- .spec.parts[name=\"b\"].count"), "{conflict}");
    let refused = c.file("unknown.yaml", &widget("{size: 6, nonsense: 1}"));
    let refused = c.fails(&format!("apply --server-side --field-manager one -f {refused}")).await;
    assert!(refused.contains(".spec.nonsense: field not declared in schema"), "{refused}");
}
